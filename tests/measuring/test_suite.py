"""A suite in one call: results, no output, interruption and resumption."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnperf.ipc.messages import SuiteRequest
from cnnperf.measuring.measured import UnwatchedMeasurement
from cnnperf.measuring.suite import measure_suite
from cnnperf.record import Record
from cnnperf.suite import parse

REQUEST = SuiteRequest(
    suite=parse(
        {
            "datasets": [{"name": "synthetic", "train": 64, "test": 32}],
            "models": ["lenet", "mlp"],
            "threads": 1,
            "train": {"steps": 2, "validation_images": 0, "batch_size": 32},
        },
        where="test",
        name="test",
    ),
    where="test",
)


class Stopped(UnwatchedMeasurement):
    """A watcher that interrupts the measurement after its first task."""

    def finished(self, record: Record) -> None:
        """Raise a KeyboardInterrupt."""
        raise KeyboardInterrupt


def test_an_interrupted_suite_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The interrupted call has the first record, and the resumed call has both, of which it made one."""
    stopped = measure_suite(REQUEST, tmp_path, Stopped())
    assert (stopped.interrupted, stopped.exit_code, len(stopped.records)) == (True, 0, 1)
    resumed = measure_suite(REQUEST, tmp_path, UnwatchedMeasurement())
    assert (resumed.interrupted, resumed.exit_code, len(resumed.records), len(resumed.made)) == (False, 0, 2, 1)
    assert sorted(row.model for row in resumed.report.tables[0].rows) == ["lenet", "mlp"]
    assert capsys.readouterr() == ("", "")
