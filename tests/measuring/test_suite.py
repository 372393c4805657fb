"""A suite in one call: results, no output, interruption and resumption."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnperf import executors, registry
from cnnperf.errors import SuiteError, UsageError
from cnnperf.ipc.messages import SuiteRequest
from cnnperf.measuring.measured import UnwatchedMeasurement
from cnnperf.measuring.suite import chosen_executor, measure_suite, run
from cnnperf.record import Record
from cnnperf.suite import Suite, parse

DOCUMENT = {
    "datasets": [{"name": "synthetic", "train": 64, "test": 32}],
    "models": ["lenet", "mlp"],
    "threads": 1,
    "train": {"steps": 2, "validation_images": 0, "batch_size": 32},
}
SOMEWHERE = """IS_REMOTE = True
from cnnperf.executors import SuiteWork
from cnnperf.record import Record
from cnnperf.running.runner import Run, Watcher


def run_tasks(work: SuiteWork, run: Run, watcher: Watcher, *, address: str = "", jobs: int = 1):
    print(address, jobs, len(work.tasks))
    yield from run.execute(work.tasks[:1], watcher)
"""


def suite(**changes: object) -> Suite:
    """Return the suite with some keys changed."""
    return parse(DOCUMENT | changes, where="test", name="test")


REQUEST = SuiteRequest(suite=suite(), where="test")


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


@pytest.fixture
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add an executor to the room."""
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "somewhere.py").write_text(SOMEWHERE)
    monkeypatch.setattr(executors, "__path__", [*executors.__path__, str(tmp_path / "room")])
    listed, file = registry.names, registry._file
    monkeypatch.setattr(registry, "names", lambda room: listed(room) + ("somewhere",) * (room == "executors"))
    monkeypatch.setattr(
        registry,
        "_file",
        lambda room, name: tmp_path / "room" / "somewhere.py" if name == "somewhere" else file(room, name),
    )


@pytest.mark.usefixtures("_somewhere")
def test_a_suite_runs_where_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The library runs the tasks by the suite's executor, with its address and options."""
    table = {"name": "somewhere", "jobs": 3}
    for executor, said in (("somewhere:box:1", "box:1 1 2\n"), (table, " 3 2\n")):
        [record] = run(suite(executor=executor), tmp_path / str(len(said)))
        assert record.status == "ok"
        assert capsys.readouterr().out == said
    assert suite().executed("somewhere:box").executor == suite(executor="somewhere:box").executor


@pytest.mark.usefixtures("_somewhere")
def test_an_executor_that_cannot_be_used_is_refused() -> None:
    """Unknown names and options, and machines that would each choose their number of threads, are refused."""
    with pytest.raises(SuiteError, match="test: executor: unknown executor 'loca'; did you mean 'local'"):
        suite(executor="loca")
    with pytest.raises(SuiteError, match="`executor`: unknown executor 'loca'; did you mean 'local'"):
        suite().executed("loca:1")
    with pytest.raises(SuiteError, match=r"test: executor\.address: Extra inputs"):
        list(run(suite(executor="local:here")))
    with pytest.raises(SuiteError, match="'somewhere' needs `threads`"):
        list(run(suite(executor="somewhere").model_copy(update={"threads": None})))
    with pytest.raises(SuiteError, match=r"'somewhere' needs the index of each device.*; write cuda:0, cuda:1 … in"):
        list(run(suite(executor="somewhere", devices=["cuda:all"])))


@pytest.mark.parametrize(("strict", "status"), [(None, "ok"), (0, "disturbed")])
def test_the_library_ends_disturbed_tasks_as_such_if_it_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strict: int | None, status: str
) -> None:
    """`run(strict=0)` ends a disturbed task as `disturbed`; a number below 0 is refused."""
    monkeypatch.setattr("cnnperf.machine.disturbance.Disturbance.shares", property(lambda _: {"waited_share": 0.4}))
    assert {record.status for record in run(suite(), tmp_path, strict=strict)} == {status}
    with pytest.raises(UsageError, match="`strict`: got -1; give the number of further attempts, 0 or more"):
        list(run(suite(), strict=-1))


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_executor_whose_package_is_not_installed_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    """Before anything is planned, one sentence says which extra to install."""
    monkeypatch.setattr("cnnperf.measuring.suite.find_spec", lambda _: None)
    monkeypatch.setattr("cnnperf.measuring.suite.prepare", None)
    words = rf"the executor '{name}' needs {package}, which is not installed; run pip install 'cnnperf\[{name}\]'"
    with pytest.raises(UsageError, match=words):
        list(run(suite(executor=name)))


def test_threads_may_be_given_or_left_to_this_machine() -> None:
    """The threads of a call take the place of the suite's; the machine of the command can count its cores itself."""
    assert suite().launched(threads=3).threads == 3
    assert suite().launched().threads == 1
    with pytest.raises(UsageError, match="`threads`: got 0; give 1 or more"):
        suite().launched(threads=0)
    assert chosen_executor(suite().model_copy(update={"threads": None}), "test")
