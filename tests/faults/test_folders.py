"""Faults of run folders: runs that begin at once, and what damage between two runs leaves of the records."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest
from faulty import COMMAND, write_suite
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from matrix import Trials
from processes import environment, started

import cnnperf
from cnnperf import CnnperfWarning, Record
from cnnperf.record import FILE, append, line_of
from cnnperf.running.merge import merge
from cnnperf.running.runner import Run
from cnnperf.tables.report import report_of_run

AT_ONCE = 8
"""Runs that begin in the same second."""


def test_runs_begun_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    """Each of several runs that begin in one second writes its own folder, with a record of its own."""
    suite = write_suite(tmp_path)
    with ExitStack() as stack:
        runs = [
            stack.enter_context(started((COMMAND, "run", suite), cwd=tmp_path, limit_s=500, env=environment()))
            for _ in range(AT_ONCE)
        ]
        for process in runs:
            out, err = process.communicate()
            assert process.returncode == 0, err
            assert "Traceback" not in out + err
    folders = [path.parent for path in tmp_path.glob("results/small/*/records.jsonl")]
    assert len(folders) == AT_ONCE
    nonces = {record.nonce for folder in folders for record in cnnperf.read(folder)}
    assert len(nonces) == AT_ONCE


def test_runs_begun_at_once_with_one_folder(tmp_path: Path) -> None:
    """One of two runs into one new folder measures; the other is refused in one sentence and shows no figure."""
    suite = write_suite(tmp_path)
    command = (COMMAND, "run", suite, "--out", tmp_path / "run")
    with ExitStack() as stack:
        runs = [stack.enter_context(started(command, limit_s=500)) for _ in range(2)]
        ended = {process: process.communicate() for process in runs}
    refused, measured = sorted(runs, key=lambda process: process.returncode == 0)
    assert (refused.returncode, measured.returncode) == (2, 0), ended
    out, err = ended[refused]
    assert out == ""
    assert "another run is writing this folder" in err or "already contains a run" in err
    assert [record.status for record in cnnperf.read(tmp_path / "run")] == ["ok"]


class Folder(RuleBasedStateMachine):
    """A run folder beside a model in memory: records appended, writers killed, runs resumed, merged and reported."""

    make: Callable[..., Record]

    def __init__(self) -> None:
        super().__init__()
        self._place = tempfile.TemporaryDirectory(prefix="cnnperf-folder-")
        self.folder = Path(self._place.name)
        self.known: dict[str, Record] = {}

    def teardown(self) -> None:
        """Remove the folder."""
        self._place.cleanup()

    @rule(
        model=st.sampled_from(("lenet", "mlp", "nin")),
        repeat=st.integers(0, 2),
        accuracy=st.floats(0, 1),
        status=st.sampled_from(("ok", "ok", "failed", "timeout")),
    )
    def append(self, model: str, repeat: int, accuracy: float, status: str) -> None:
        """A task ends, for the first time or again."""
        record = self.record(model, repeat, accuracy, status)
        append(self.folder, record)
        self.known[record.key] = record

    @precondition(lambda self: self.known)
    @rule(model=st.sampled_from(("lenet", "vgg")), data=st.data())
    def kill_the_writer(self, model: str, data: st.DataObject) -> None:
        """A writer is killed after some bytes of a line; a line that an earlier one left torn is mended first."""
        record = self.record(model, 0, 0.5, "ok")
        line = line_of(record)
        written = data.draw(st.integers(0, len(line) - 2))
        append(self.folder, record)
        with (self.folder / FILE).open("r+b") as file:
            file.truncate(file.seek(0, 2) - len(line) + written)

    @precondition(lambda self: self.known)
    @rule()
    def read(self) -> None:
        """The records are those of the model, in its order."""
        assert self.found() == tuple(self.known.values())

    @precondition(lambda self: self.known)
    @rule()
    def resume(self) -> None:
        """A run that resumes the folder finds the same records."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CnnperfWarning)
            with Run(self.folder) as run:
                assert run.records == tuple(self.known.values())

    @precondition(lambda self: self.known)
    @rule()
    def report(self) -> None:
        """All tables are those of the records in memory."""
        of_file = report_of_run(self.folder, self.found())
        of_model = report_of_run(self.folder, tuple(self.known.values()))
        assert [table.rows for table in of_file.tables] == [table.rows for table in of_model.tables]

    @precondition(lambda self: self.known)
    @rule(accuracy=st.floats(0, 1))
    def merge(self, accuracy: float) -> None:
        """A merge with another run has the records of both, and leaves this one as it is."""
        other = self.record("resnet", 0, accuracy, "ok")
        content = (self.folder / FILE).read_bytes()
        with tempfile.TemporaryDirectory(prefix="cnnperf-merge-") as place, warnings.catch_warnings():
            warnings.simplefilter("ignore", CnnperfWarning)
            append(Path(place), other)
            merged = merge([self.folder, Path(place)], Path(place) / "merged")
            assert merged.records == cnnperf.read(Path(place) / "merged") == (*self.known.values(), other)
        assert (self.folder / FILE).read_bytes() == content

    def found(self) -> tuple[Record, ...]:
        """Read the folder; a torn line is a warning."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CnnperfWarning)
            return cnnperf.read(self.folder)

    def record(self, model: str, repeat: int, accuracy: float, status: str) -> Record:
        """Make a record; one that did not end well has an error."""
        error = None if status == "ok" else "it failed"
        return type(self).make(model, repeat=repeat, accuracy=round(accuracy * 1000) / 1000, status=status, error=error)


def test_no_record_is_lost(request: pytest.FixtureRequest, trials: Trials, trained: Callable[..., Record]) -> None:
    """The model's records are there after any sequence of appends, killed writers, resumed runs, merges and reports."""
    made = type("Made", (Folder,), {"make": staticmethod(trained)})
    hypothesis.seed(request.config.getoption("--fault-seed"))(made)
    run_state_machine_as_test(
        made,
        settings=settings(
            max_examples=trials.count, stateful_step_count=20, derandomize=False, database=None, deadline=None
        ),
    )
    request.node.user_properties += [("tried", trials.count), ("survived", trials.count)]
