"""Faults of a machine that is busy with other work: what is measured beside it says so."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from faulty import assert_ended, cnnperf, write_suite
from processes import started

SUITE = """
datasets = [{ name = "synthetic", shape = [1, 28, 28], train = 2000, test = 1000 }]
models = ["lenet"]
stages = ["train", "infer"]
train = { seconds = 3, validation_images = 200 }
infer = { engines = ["torch"], pairs = 0, test_images = 500, batch_sizes = [8] }
"""
BUSY = "cnnperf: warning: the machine is busy: "


@pytest.fixture
def _busy() -> Iterator[None]:
    """Keep each usable core busy."""
    loop = (sys.executable, "-c", "while True: pass")
    with ExitStack() as stack:
        for _ in os.sched_getaffinity(0):
            stack.enter_context(started(loop, limit_s=600))
        yield


def rows(run: Path, table: str) -> list[dict[str, str]]:
    """Return the rows of a table of a run."""
    return list(csv.DictReader((run / f"{table}.csv").read_text(encoding="utf-8").splitlines()))


@pytest.mark.usefixtures("_busy")
def test_a_run_beside_busy_loops(tmp_path: Path) -> None:
    """A run warns first, and each of its figures has the mark of doubt with its reason and no rank."""
    run = tmp_path / "run"
    done = cnnperf("run", write_suite(tmp_path, SUITE), "--out", run)
    assert_ended(done, 0)
    assert sum(line.startswith(BUSY) for line in done.stderr.splitlines()) == 1
    for table in ("leaderboard", "engines"):
        assert all(row["disturbed"].startswith("a thread waited for a core") for row in rows(run, table)), table
    assert "† lenet: images/s: disturbed: a thread waited" in done.stdout
    assert rows(run, "leaderboard")[0]["rank"] == ""
    assert not any(row["best"] or row["pareto"] for row in rows(run, "engines"))


@pytest.mark.usefixtures("_busy")
def test_a_strict_run_beside_busy_loops(tmp_path: Path) -> None:
    """A strict run without another attempt ends its training as disturbed, and skips what needs it."""
    run = tmp_path / "run"
    done = cnnperf("run", write_suite(tmp_path, SUITE), "--out", run, "--strict", "0")
    assert_ended(done, 1)
    assert [row["status"] for row in rows(run, "tasks")] == ["disturbed", "skipped"]


@pytest.mark.usefixtures("_busy")
def test_a_profile_beside_busy_loops(tmp_path: Path) -> None:
    """A profile warns first and names the disturbance below its table."""
    done = cnnperf(
        "profile", "mlp", "--dataset", "synthetic", "--samples", "5", "--out", tmp_path / "run", cwd=tmp_path
    )
    assert_ended(done, 0)
    assert BUSY in done.stderr
    assert "† disturbed: a thread waited for a core for " in done.stdout
