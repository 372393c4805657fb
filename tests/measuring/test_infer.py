"""`cnnperf.infer` as a notebook calls it: a typed result, no output, errors raised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cnnperf
from cnnperf.errors import UsageError
from cnnperf.measuring.measured import Measured
from cnnperf.record import FILE

pytest.importorskip("onnx")

IMAGES = {"name": "synthetic", "train": 64, "test": 32}
STRANGE: Any = {"name": "torch", "x": 1}


def test_an_inference_is_one_line(seen: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The report has one row per engine, nothing is printed, and the default folder is below `results/`."""
    engines = ("torch", "onnxruntime")
    few = {"batch_sizes": [2], "samples": 11, "pairs": 0, "threads": 1}
    measured = cnnperf.infer({"name": "unruly:build"}, dataset=IMAGES, engines=engines, watcher=seen, **few)
    assert capsys.readouterr() == ("", "")
    assert measured.folder.parent == Path("results/infer")
    assert seen.told == [["export", "infer", "infer"], measured.folder, "ok", "ok", "ok"]
    table = measured.report.table("engines")
    assert table is not None
    assert [(row["engine"], row["batch_size"], row["status"]) for row in table.rows] == [
        (engine, 2, "ok") for engine in engines
    ]
    assert measured.exit_code == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda **k: cnnperf.infer("lenett", **k), "^`model`: unknown model.*did you mean 'lenet'"),
        (lambda **k: cnnperf.infer("mlp", engines=[STRANGE], **k), "^cnnperf.infer: infer: torch: unknown option 'x'"),
        (lambda **k: cnnperf.infer("mlp", engines=[STRANGE], where="here", **k), "^here: infer: torch: unknown option"),
        (lambda **k: cnnperf.infer("mlp", pairs=2.5, **k), "^`pairs`: 2.5 is not valid; give a valid integer$"),
        (lambda **k: cnnperf.infer("mlp", engines=["torhc"], **k), "did you mean 'torch'"),
        (lambda **k: cnnperf.infer("mlp", batch_sizes=[0], **k), "whole numbers from 1"),
        (lambda **k: cnnperf.infer("mlp", allocator="none", **k), "^`allocator`: unknown policy 'none'"),
        (
            lambda **k: cnnperf.infer(Path("none.onnx"), train=1.0, **k),
            "^`train`: none.onnx: an ONNX file cannot be trained",
        ),
        (
            lambda **k: cnnperf.infer({"name": "none.onnx"}, train=1.0, **k),
            "^`train`: none.onnx: an ONNX file cannot be trained",
        ),
    ],
)
def test_what_cannot_be_carried_out(call: Callable[..., Measured], words: str) -> None:
    """An invalid argument raises a UsageError, which is a CnnperfError, and no folder is made."""
    with pytest.raises(UsageError, match=words) as caught:
        call(dataset=IMAGES, out=Path("run"))
    assert isinstance(caught.value, cnnperf.CnnperfError)
    assert not Path("run").exists()


def test_a_folder_that_holds_a_run_is_refused() -> None:
    """A folder with a run raises a UsageError."""
    Path(FILE).write_text("")
    with pytest.raises(UsageError, match="already contains a run"):
        cnnperf.infer("mlp", dataset=IMAGES, out=Path())


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_is_an_error() -> None:
    """An absent device raises a UsageError, since nothing was measured."""
    with pytest.raises(UsageError, match="nothing was measured"):
        cnnperf.infer("mlp", dataset=IMAGES, device="cuda", out=Path("other"))


def test_a_network_that_fails_leaves_its_reason() -> None:
    """The result of a network that fails has its records and the exit status 1."""
    measured = cnnperf.infer("broken:raised", dataset=IMAGES, engines=["onnxruntime"], pairs=0, out=Path("run"))
    assert [record.status for record in measured.records] == ["failed", "skipped"]
    assert measured.exit_code == 1
