"""Faults of a training by several processes: it ends with the name of the one at fault, and leaves none running."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from faulty import COMMAND, SUITE, all_gone, assert_one_sentence, cnnperf, write_suite
from processes import descendants, environment, started, until
from test_workers import importable

from cnnperf import record as store
from cnnperf.record import Record

NAMED_S = 10.0
"""Seconds within which a training ends after one of its processes was killed."""
SEVERAL = SUITE.replace("steps = 2,", "epochs = 1000000, processes = 2,")


def ranks(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes of a command that train as a rank other than 0."""
    found = []
    for each in descendants(process):
        with suppress(psutil.Error):
            if "cnnperf.workers.rank" in each.cmdline():
                found.append(each)
    return found


def has_joined(rank: psutil.Process) -> bool:
    """Tell whether a rank has a connection to the store, and one in each of two groups of gloo."""
    with suppress(psutil.Error):
        return sum(each.status == psutil.CONN_ESTABLISHED for each in rank.net_connections("tcp")) > 2
    return False


@contextmanager
def training(folder: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """Start a run of a training by two processes that does not end by itself, and wait until rank 1 has joined."""
    words = (COMMAND, "run", write_suite(folder, SEVERAL), "--out", folder / "run")
    with started(words, env=environment(FAULT_MARK=str(folder))) as process:
        [rank] = until(lambda: process.poll() is not None or ranks(process))
        until(lambda: process.poll() is not None or has_joined(rank))
        assert process.poll() is None, process.communicate()[1]
        yield process, rank


def only_record(folder: Path) -> Record:
    """Return the one record of a run."""
    [record] = store.read(folder / "run")
    return record


def test_a_killed_rank_is_named_and_none_is_left(tmp_path: Path) -> None:
    """Within ten seconds of the end of rank 1 the task has failed with its name, and no process is left."""
    with training(tmp_path) as (process, rank):
        start = time.monotonic()
        rank.kill()
        until((tmp_path / "run" / store.FILE).exists)
        assert time.monotonic() - start < NAMED_S
        process.communicate()
    assert process.returncode == 1
    record = only_record(tmp_path)
    assert record.status == "failed"
    assert (record.error or "").startswith("rank 1 of 2 processes was killed (SIGKILL)")
    assert all_gone(str(tmp_path))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("failing_in_rank_1", "failed: RuntimeError: not in rank 1"),
        ("hanging_in_rank_0", "was killed (SIGKILL); the system does that when memory runs out"),
    ],
)
def test_the_error_is_that_of_the_rank_at_fault(tmp_path: Path, network: str, words: str) -> None:
    """If rank 1 fails or dies, the record says so, also if the process of the task hangs and notices nothing."""
    suite = write_suite(tmp_path, SEVERAL.replace('"mlp"', f'"misbehaving:{network}"'))
    done = cnnperf("run", suite, "--out", tmp_path / "run", env={**importable(), "FAULT_MARK": str(tmp_path)})
    assert done.returncode == 1, done.stderr
    assert only_record(tmp_path).error == f"rank 1 of 2 processes {words}"
    assert all_gone(str(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
def test_no_rank_outlives_the_command(tmp_path: Path, number: signal.Signals) -> None:
    """A command that is killed or interrupted leaves no process of a training running."""
    with training(tmp_path) as (process, _):
        process.send_signal(number)
        process.wait()
        assert all_gone(str(tmp_path), within_s=NAMED_S)


def test_no_rank_outlives_the_first(tmp_path: Path) -> None:
    """If the process of the task is killed, so is every other, and the record says what happened."""
    with training(tmp_path) as (process, rank):
        rank.parent().kill()
        process.communicate()
    assert "SIGKILL" in (only_record(tmp_path).error or "")
    assert all_gone(str(tmp_path))


def test_a_batch_that_cannot_be_divided_is_refused(tmp_path: Path) -> None:
    """A batch size that the processes do not divide is refused in one sentence before anything is measured."""
    done = cnnperf("run", write_suite(tmp_path, SEVERAL.replace("processes = 2", "processes = 3")), cwd=tmp_path)
    assert_one_sentence(done, 2, "batch_size 50 is not divisible by processes 3")
