"""A run whose processes are killed at random moments, and resumed until it is complete."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import psutil
import pytest
from faulty import COMMAND, all_gone, assert_ended, catches, cnnperf, write_suite
from matrix import Trials
from processes import environment, started, until

from cnnperf.record import DAMAGED_FILE, FILE, read
from cnnperf.record.line import DamagedLineError, parsed_record
from cnnperf.tables.leaderboard_row import LeaderboardRow
from cnnperf.tables.report import report_of

LIMIT_S = 1800.0
"""Seconds after which a command counts as hung: many of its workers are killed before it ends."""
LONGEST_S = 8.0
"""Longest time between two kills: about that of the check and of two tasks, so that all that a command does is hit."""
MOST_ENDINGS = 20
"""Most commands that the run takes to its end once nothing is killed any more."""
CELLS = """
datasets = [
    { name = "synthetic", shape = [1, 28, 28], train = 200, test = 100 },
    { name = "synthetic", shape = [1, 28, 28], train = 150, test = 80 },
]
models = [
    "mlp",
    "lenet",
    { name = "lenet", activation = "relu" },
    { name = "lenet", pool = "max" },
    { name = "lenet", batch_norm = true },
    { name = "lenet", activation = "relu", pool = "max" },
]
threads = 1
train = { steps = 2, validation_images = 50, batch_size = 50 }
"""
NUMBER_OF_CELLS = 12
COMPARED = tuple(
    column.name
    for column in LeaderboardRow.columns()
    if column.unit in (None, "count", "fraction") and column.name not in ("run", "sitting")
)
"""Columns of the leaderboard that are neither times nor memory: facts, counts and accuracies."""
OF_PARENT = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

CHECK, TASK = "check of the suite", "worker of a task"

Board = list[dict[str, Any]]


def leaderboard(folder: Path) -> Board:
    """Return the rows of a run's leaderboard without times and memory, sorted, since speed decides among ties."""
    rows = ({name: row[name] for name in COMPARED} for row in report_of([folder]).tables[0].rows)
    return sorted(rows, key=lambda row: (row["dataset"], row["model"]))


class Disturbed:
    """A run whose parent and workers are killed; within the `with` block a command may be under way."""

    def __init__(self, folder: Path, suite: Path, undisturbed: Board) -> None:
        self.folder, self.suite, self.undisturbed = folder, suite, undisturbed
        self.hits: Counter[str] = Counter()
        """How often what was killed, and how often the run was complete."""
        self._log = folder.with_suffix(".log")
        self._process: subprocess.Popen[str] | None = None
        self._stack = ExitStack()
        self._lines: tuple[bytes, ...] = ()
        self._ok: frozenset[str] = frozenset()
        self._number = 0
        self._has_lost_a_worker = False

    def __enter__(self) -> Disturbed:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def kill(self, numbers: random.Random) -> None:
        """Kill the parent or a worker at a random moment; a run that is complete before that begins anew."""
        while True:
            process = self._process or self._begun()
            if numbers.random() < 0.5:  # Else most kills hit the check, with which each command begins.
                until(lambda: process.poll() is not None or TASK in _workers(process.pid), limit_s=LIMIT_S, poll_s=0.2)  # noqa: B023
            with suppress(subprocess.TimeoutExpired):
                process.wait(numbers.uniform(0.0, LONGEST_S))
            if process.poll() is None and self._hit(process, numbers):
                return
            if process.poll() is not None:
                self._check_end(process)

    def finish(self) -> None:
        """Let the run come to its end undisturbed."""
        for _ in range(MOST_ENDINGS):
            process = self._process or self._begun()
            process.wait()
            if self._check_end(process):
                return
        raise AssertionError(f"the run is not complete after {MOST_ENDINGS} commands:\n{self._log.read_text()}")

    def _begun(self) -> subprocess.Popen[str]:
        """Start the command, or resume the run if it has records."""
        self._number += 1
        words = ("--resume", self.folder) if (self.folder / FILE).exists() else ("--out", self.folder)
        env = environment(FAULT_MARK=self._mark)
        command = (COMMAND, "run", self.suite, *words)
        log = self._stack.enter_context(self._log.open("w"))
        self._process = self._stack.enter_context(
            started(command, env=env, limit_s=LIMIT_S, stdout=log, stderr=subprocess.STDOUT)
        )
        return self._process

    @property
    def _mark(self) -> str:
        return f"{self.folder}-{self._number}-"

    def _hit(self, process: subprocess.Popen[str], numbers: random.Random) -> bool:
        """Kill a worker if there is one, else the parent, or the parent; tell whether it was still there."""
        workers = _workers(process.pid)
        if workers and numbers.random() < 0.5:
            name, worker = numbers.choice(list(workers.items()))
            with suppress(psutil.NoSuchProcess):
                worker.kill()
                self.hits[f"SIGKILL to the {name}"] += 1
                self._has_lost_a_worker = True
                return True
            return False
        number = numbers.choice(OF_PARENT)
        if number is not signal.SIGKILL:  # Before the command handles them, these end Python itself.
            until(lambda: process.poll() is not None or catches(process.pid, signal.SIGTERM))
        if process.poll() is not None:
            return False
        process.send_signal(number)
        process.wait()
        self.hits[f"{number.name} to the parent"] += 1
        self._check_end(process, number)
        return True

    def _check_end(self, process: subprocess.Popen[str], number: signal.Signals | None = None) -> bool:
        """Check what a command that has ended left behind, and tell whether the run is complete.

        number: the signal that its parent got.
        """
        self._process = None
        is_clean = all_gone(self._mark, within_s=20.0)
        self._stack.close()
        said = self._log.read_text()
        assert is_clean, f"a process is left\n{said}"
        assert "Traceback" not in said, said
        assert "Exception ignored" not in said, said
        expected = {0, 1} if number is None else {0, 1, -number if number is signal.SIGKILL else 130}
        # Without its worker the check of the suite gives no answer.
        expected |= {2} if self._has_lost_a_worker else set()
        assert process.returncode in expected, f"exit status {process.returncode}\n{said}"
        self._has_lost_a_worker = False
        self._check_records()
        if process.returncode != 0:
            return False
        assert leaderboard(self.folder) == self.undisturbed
        self.hits["(run complete)"] += 1
        shutil.rmtree(self.folder)
        self._lines, self._ok = (), frozenset()
        return True

    def _check_records(self) -> None:
        """Fail unless all earlier lines are there, unchanged, and what has ended well is still ok."""
        file = self.folder / FILE
        content = file.read_bytes() if file.exists() else b""
        lines = tuple(content.splitlines(keepends=True))
        whole = lines if content.endswith(b"\n") else lines[:-1]
        assert whole[: len(self._lines)] == self._lines
        aside = self.folder / DAMAGED_FILE
        for line in aside.read_bytes().splitlines() if aside.exists() else []:
            with pytest.raises(DamagedLineError):
                parsed_record(line)
        if whole:
            with catch_warnings():
                simplefilter("ignore")
                found = frozenset(each.key for each in read(self.folder) if each.status == "ok")
            assert self._ok <= found
            self._ok = found
        self._lines = whole


def _workers(parent: int) -> Mapping[str, psutil.Process]:
    """Return the workers of a command, by what they do."""
    found: dict[str, psutil.Process] = {}
    with suppress(psutil.Error):
        for each in psutil.Process(parent).children():
            with suppress(psutil.Error):
                words = " ".join(each.cmdline())
                for module, name in (("prepare", CHECK), ("task", TASK)):
                    if f"cnnperf.workers.{module} " in words:
                        found[name] = each
    return found


def test_a_run_that_is_killed_and_resumed_until_it_is_complete(
    tmp_path: Path, trials: Trials, said: Callable[[str], None]
) -> None:
    """The leaderboard of 12 cells equals that of an undisturbed run, however often parent and workers were killed."""
    suite = write_suite(tmp_path, CELLS)
    undisturbed = tmp_path / "undisturbed"
    assert_ended(cnnperf("run", suite, "--out", undisturbed, limit_s=LIMIT_S), 0)
    wanted = leaderboard(undisturbed)
    assert len(wanted) == NUMBER_OF_CELLS
    assert {row["status"] for row in wanted} == {"ok"}
    with Disturbed(tmp_path / "disturbed", suite, wanted) as run:
        trials.run(run.kill, scale=2)
        run.finish()
    said(", ".join(f"{what} {count}" for what, count in sorted(run.hits.items())))
