"""A report with every kind of row, and the golden files to compare it with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cnnperf import record
from cnnperf.record import Measurement, Record, single
from cnnperf.tables.report import report_of
from cnnperf.tables.table import Report

GOLDEN = Path(__file__).parent.parent / "data"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Return a comparison of a text with a golden file, which `--update-golden` rewrites instead."""

    def compare(name: str, text: str) -> None:
        if request.config.getoption("--update-golden"):
            (GOLDEN / name).write_text(text, encoding="utf-8")
        assert text == (GOLDEN / name).read_text(encoding="utf-8")

    return compare


@pytest.fixture
def report(tmp_path: Path, trained: Callable[..., Record]) -> Report:
    """Return a report with ties, repeats, a failed repeat, a timeout, a skip and generated images."""

    def once(metric: str, unit: str, value: float) -> Measurement:
        return Measurement(metric=f"train.{metric}", unit=unit, better="lower", values=(value,))

    def point(step: int, value: float) -> Measurement:
        place = {"step": step, "samples": 128 * step, "seconds": step / 4, "epoch": step / 351, "n": 2000}
        name = "train.validation_accuracy"
        return single(name, "fraction", value, "higher", place)

    loss = Measurement(metric="train.loss", unit="1", better="lower", values=(2.5, 2.0, 1.75, 1.5))
    common = [loss, once("seconds", "s", 60.125), once("steps", "count", 4), point(2, 0.25), point(4, 0.625)]
    memory = once("peak_above_start_bytes", "bytes", 5 * 2**26)
    resnet = {"name": "resnet", "depth": 18, "shortcut": True}
    no_gpu = "no CUDA device: torch was built without CUDA"
    generated = {"name": "synthetic", "fallback": "no connection to the download address"}
    records = [
        trained("lenet", status="timeout", error="took longer than 60 s"),
        *(
            trained(
                resnet,
                repeat=i,
                accuracy=0.61 + i / 100,
                step_s=[0.01 + i / 500, 0.02],
                measured=[*common, memory, once("time_to_target", "s", 0.5 + i / 8)],
            )
            for i in range(3)
        ),
        trained("nin", accuracy=0.615, step_s=[0.015], measured=[*common, once("parameters", "count", 966_986)]),
        trained("nin", repeat=1, status="failed", error="non-finite loss at step 3 | lr 0.1"),
        trained(
            "=trash:net", accuracy=0.2, n=10_000, step_s=[0.25, 0.125], measured=[once("peak_bytes", "bytes", 2**30)]
        ),
        trained("lenet", device="cuda", status="skipped", error=no_gpu),
        trained("lenet", dataset="mnist", data=generated, accuracy=0.99, step_s=[0.0004, 0.0005], measured=common),
    ]
    run = tmp_path / "everything" / "20250102T030405Z-box"
    run.mkdir(parents=True)
    for each in records:
        record.append(run, each)
    return report_of([run])
