"""Fixtures of accuracy records, made of records of trainings without a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cnnperf.accuracy_record.claim import RecordClaim
from cnnperf.accuracy_record.folder import AccuracyRecord, checksums, sources_of, write_record
from cnnperf.record import Record

Series = Callable[..., list[Record]]
Written = Callable[..., Path]


@pytest.fixture
def series(trained: Callable[..., Record]) -> Series:
    """Return a function that makes the records of a training's seeds with these accuracies."""

    def make(*accuracies: float, **facts: object) -> list[Record]:
        return [trained(accuracy=each, n=10_000, repeat=i, **facts) for i, each in enumerate(accuracies)]

    return make


@pytest.fixture
def written(series: Series, tmp_path: Path) -> Written:
    """Return a function that writes the folder of a record of a name below `records`, and returns it."""

    def make(name: str, *accuracies: float, target: float = 0.5, **facts: object) -> Path:
        records = series(*accuracies, **facts)
        task = records[0].task
        sources = checksums(sources_of(task.cell, task.stage))
        record = AccuracyRecord.of(records, RecordClaim(target=target), name, sources)
        folder = tmp_path / "records" / record.kind / name
        folder.mkdir(parents=True)
        suite = tmp_path / "mine.toml"
        suite.write_text("# as it was")
        write_record(folder, record, suite, records)
        return folder

    return make
