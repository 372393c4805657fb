"""Fixtures that several tests of the comparison share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from compared import STEPS
from repositories import commit, git

from cnnperf import record as store
from cnnperf.record import Measurement, Record
from cnnperf.regression.check import compare
from cnnperf.regression.verdict import Comparison


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository with two commits, and a cache of its own."""
    monkeypatch.setenv("CNNPERF_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    commit(folder, "old")
    git(folder, "tag", "before")
    commit(folder, "new")
    return folder


@pytest.fixture
def repeats(trained: Callable[..., Record]) -> Callable[..., list[Record]]:
    """Return a maker of repeats that differ in their accuracy."""

    def make(*accuracies: float, measured: Iterable[Measurement] = (), **changes: Any) -> list[Record]:
        changes = {"seconds": None, "steps": 500, "n": 10_000} | changes
        found = [STEPS, *measured]
        return [trained(repeat=i, accuracy=a, measured=found, **changes) for i, a in enumerate(accuracies)]

    return make


@pytest.fixture
def held(tmp_path: Path) -> Callable[..., Comparison]:
    """Return a comparison of two lists of records."""

    def against(baseline: Iterable[Record], candidate: Iterable[Record]) -> Comparison:
        for name, records in (("baseline", baseline), ("candidate", candidate)):
            (tmp_path / name).mkdir()
            (tmp_path / name / store.FILE).touch()
            for each in records:
                store.append(tmp_path / name, each)
        return compare([tmp_path / "baseline"], [tmp_path / "candidate"])

    return against
