"""`cnnperf.profile` and `cnnperf.infer` as a notebook calls them: a typed result, no word printed, faults raised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import workers_here

import cnnperf
from cnnperf.errors import RunError, SuiteError, UsageError
from cnnperf.profiling import probes
from cnnperf.record import FILE, Record
from cnnperf.roofline import MEMORY_PROBE
from cnnperf.running.preflight import Ready
from cnnperf.single import Measured, UnwatchedMeasurement
from cnnperf.tables.table import Column, Report, Table

IMAGES = {"name": "synthetic", "train": 64, "test": 32}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Have the workers in this process, and probe its roofline with a moment's work."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probes, "SQUARES", (64,))
    monkeypatch.setattr(probes, "CONVOLUTIONS", ((3, 2, 4, 8),))
    monkeypatch.setattr(probes, "COPIES", {MEMORY_PROBE: 2**16})
    monkeypatch.setattr(probes, "PROBE_S", 0.0)
    with workers_here():
        yield


class Seen(UnwatchedMeasurement):
    """Keeps what a watcher is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def planned(self, tasks: Sequence[Ready], folder: Path) -> None:
        """Keep the stages and the folder."""
        self.told += [[ready.task.stage for ready in tasks], folder]

    def finished(self, record: Record) -> None:
        """Keep how it ended."""
        self.told.append(record.status)


def test_a_profile_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A row a layer in the report, the records in the folder that the watcher is told; nothing is printed."""
    seen = Seen()
    measured = cnnperf.profile("mlp", dataset="synthetic", batch_size=4, samples=2, out=Path("run"), watcher=seen)
    assert capsys.readouterr() == ("", "")
    assert seen.told == [["profile"], Path("run"), "ok"]
    layers = measured.report.table("layers")
    assert layers is not None
    assert {"layer", "forward_s", "forward_macs"} <= set(layers.frame().columns)
    assert [row["batch_size"] for row in layers.rows[:1]] == [4]
    assert measured.exit_code == 0
    assert cnnperf.read(measured.folder) == measured.records
    assert cnnperf.layers([measured.folder]).shape[0] == len(layers.rows)


def test_an_inference_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A row an engine; the folder is made below `results/` where none is named."""
    pytest.importorskip("onnx")
    seen = Seen()
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
        (lambda **k: cnnperf.profile("lenett", **k), r"^cnnperf\.profile: models\.0: .*did you mean 'lenet'"),
        (lambda **k: cnnperf.infer("lenett", **k), r"^cnnperf\.infer: models\.0: .*did you mean 'lenet'"),
        (lambda **k: cnnperf.infer("lenett", where="here", **k), r"^here: models\.0: "),
        (lambda **k: cnnperf.profile("mlp", mode="both", **k), r"^cnnperf\.profile: profile\.mode: .*got 'both'"),
        (lambda **k: cnnperf.profile("mlp", waiting="long", **k), "--waiting: unknown policy 'long'"),
        (lambda **k: cnnperf.infer("mlp", engines=["torhc"], **k), "did you mean 'torch'"),
        (lambda **k: cnnperf.infer("mlp", batch_sizes=[0], **k), "whole numbers from 1"),
        (
            lambda **k: cnnperf.infer(Path("none.onnx"), train=1.0, **k),
            "^--train: none.onnx: an ONNX file is not trained",
        ),
        (
            lambda **k: cnnperf.infer({"name": "none.onnx"}, train=1.0, **k),
            "^--train: none.onnx: an ONNX file is not trained",
        ),
    ],
)
def test_what_cannot_be_carried_out(call: Callable[..., Measured], words: str) -> None:
    """A UsageError, before a folder is made."""
    with pytest.raises(UsageError, match=words):
        call(dataset=IMAGES, out=Path("run"))
    assert not Path("run").exists()


def test_a_folder_that_holds_a_run_is_refused() -> None:
    """By either call, before anything is looked at."""
    Path(FILE).write_text("")
    for call in (cnnperf.profile, cnnperf.infer):
        with pytest.raises(UsageError, match="already holds a run"):
            call("mlp", dataset=IMAGES, out=Path())


def test_a_profile_that_failed_is_an_error() -> None:
    """With the reason and the place of the log."""
    with pytest.raises(RunError, match=r"synthetic.*broken:raised.*: failed: .*surprise.*; see run/logs"):
        cnnperf.profile("broken:raised", dataset="synthetic", batch_size=4, samples=2, out=Path("run"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_is_an_error() -> None:
    """Nothing was measured, and the tables of nothing are no result."""
    pytest.importorskip("onnx")
    with pytest.raises(UsageError, match="profile it on another device"):
        cnnperf.profile("mlp", dataset="synthetic", device="cuda", out=Path("run"))
    with pytest.raises(UsageError, match="nothing was measured"):
        cnnperf.infer("mlp", dataset=IMAGES, device="cuda", out=Path("other"))


def test_a_network_that_fails_leaves_its_reason() -> None:
    """Records and report, and 1 as the exit status."""
    pytest.importorskip("onnx")
    measured = cnnperf.infer("broken:raised", dataset=IMAGES, engines=["onnxruntime"], pairs=0, out=Path("run"))
    assert [record.status for record in measured.records] == ["failed", "skipped"]
    assert measured.exit_code == 1


@pytest.mark.parametrize(
    ("status", "parity", "code"),
    [("ok", "ok", 0), ("skipped", "ok", 0), ("ok", "undecided", 3), ("failed", "undecided", 1), ("timeout", "ok", 1)],
)
def test_the_exit_status(trained: Callable[..., Record], status: str, parity: str, code: int) -> None:
    """A failure comes before what is undecided."""
    report = Report((Table("engines", (Column("parity"),), ({"parity": parity},)),))
    assert Measured(Path("run"), (trained(status=status),), report).exit_code == code


def test_an_unknown_model_names_the_call_and_not_the_command() -> None:
    """SuiteError is a CnnperfError: what a notebook catches."""
    with pytest.raises(cnnperf.CnnperfError) as caught:
        cnnperf.profile("resnt")
    assert isinstance(caught.value, SuiteError)
