"""Fixtures for calls that measure one network: workers in this process, a new folder, and a watcher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from in_process import workers_here

from cnnperf.ipc.messages import Ready
from cnnperf.measuring.measured import UnwatchedMeasurement
from cnnperf.profiling import probes
from cnnperf.record import Record
from cnnperf.roofline import MEMORY_PROBE


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Run workers in this process, in a new folder and with short roofline probes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probes, "SQUARES", (64,))
    monkeypatch.setattr(probes, "CONVOLUTIONS", ((3, 2, 4, 8),))
    monkeypatch.setattr(probes, "COPIES", {MEMORY_PROBE: 2**16})
    monkeypatch.setattr(probes, "PROBE_S", 0.0)
    with workers_here():
        yield


class Seen(UnwatchedMeasurement):
    """A watcher that keeps its messages."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def planned(self, tasks: Sequence[Ready], folder: Path) -> None:
        """Keep the stages and the folder."""
        self.told += [[ready.task.stage for ready in tasks], folder]

    def finished(self, record: Record) -> None:
        """Keep the status of the record."""
        self.told.append(record.status)


@pytest.fixture
def seen() -> Seen:
    """Return a watcher that keeps its messages."""
    return Seen()
