"""`cnnperf.profile` as a notebook calls it: a typed result, no output, errors raised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cnnperf
from cnnperf.errors import RunError, UsageError
from cnnperf.measuring.measured import Measured
from cnnperf.record import FILE


def test_a_profile_is_one_line(seen: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The report has one row per layer, the records are in the folder that the watcher gets, and nothing is printed."""
    measured = cnnperf.profile("mlp", dataset="synthetic", batch_size=4, samples=2, out=Path("run"), watcher=seen)
    assert capsys.readouterr() == ("", "")
    assert seen.told == [["profile"], Path("run"), "ok"]
    layers = measured.report.table("layers")
    assert layers is not None
    assert {"layer", "forward_s", "forward_macs"} <= set(layers.frame().columns)
    assert {row["batch_size"] for row in layers.rows} == {4}
    assert measured.exit_code == 0
    assert cnnperf.read(measured.folder) == measured.records
    assert cnnperf.layers([measured.folder]).shape[0] == len(layers.rows)


def test_a_small_dataset_is_profiled() -> None:
    """A dataset with fewer images than the default validation set can be profiled."""
    few = {"name": "synthetic", "train": 40, "test": 10}
    measured = cnnperf.profile("mlp", dataset=few, batch_size=4, samples=2, out=Path("run"))
    assert measured.exit_code == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda **k: cnnperf.profile("lenett", **k), "^`model`: unknown model.*did you mean 'lenet'"),
        (
            lambda **k: cnnperf.profile("mlp", mode="both", **k),
            "^`mode`: 'both' is not valid; give 'train' or 'infer'$",
        ),
        (lambda **k: cnnperf.profile("mlp", waiting="long", **k), "^`waiting`: unknown policy 'long'"),
        (lambda **k: cnnperf.profile({"name": "mlp", "depht": 2}, **k), "^`model`: mlp: unknown option 'depht'"),
    ],
)
def test_what_cannot_be_carried_out(call: Callable[..., Measured], words: str) -> None:
    """An invalid argument raises a UsageError, which is a CnnperfError, and no folder is made."""
    with pytest.raises(UsageError, match=words) as caught:
        call(dataset="synthetic", out=Path("run"))
    assert isinstance(caught.value, cnnperf.CnnperfError)
    assert not Path("run").exists()


def test_a_folder_that_holds_a_run_is_refused() -> None:
    """A folder with a run raises a UsageError."""
    Path(FILE).write_text("")
    with pytest.raises(UsageError, match="already contains a run"):
        cnnperf.profile("mlp", dataset="synthetic", out=Path())


def test_a_profile_that_failed_is_an_error() -> None:
    """A failed profile raises a RunError with the reason and the folder of the log."""
    with pytest.raises(RunError, match=r"synthetic.*broken:raised.*: failed: .*surprise.*; see run/logs"):
        cnnperf.profile("broken:raised", dataset="synthetic", batch_size=4, samples=2, out=Path("run"))


def test_one_device_is_measured() -> None:
    """Every device of a kind is more than a measurement of one network takes."""
    with pytest.raises(UsageError, match=r"^`device`: several devices; give one, such as cuda:0$"):
        cnnperf.profile("mlp", dataset="synthetic", device="cuda:all", out=Path("run"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_is_an_error() -> None:
    """An absent device raises a UsageError that says to use another device."""
    with pytest.raises(UsageError, match="profile it on another device"):
        cnnperf.profile("mlp", dataset="synthetic", device="cuda", out=Path("run"))
