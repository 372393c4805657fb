"""Cells of two fake GPUs side by side: at the same time, on cores of their own, and with one writer."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from fake_cuda import GPUS
from fake_nvml import Nvml
from in_process import workers_here
from processes import has_ended

from cnnperf import record as store
from cnnperf.devices import cuda
from cnnperf.errors import RunError, SuiteError, UsageError
from cnnperf.executors import SuiteWork, _side_by_side
from cnnperf.executors.local import run_tasks
from cnnperf.ipc.messages import Answered, Message, Progressed, SuiteRequest, TaskRequest
from cnnperf.ipc.process import Launch, WorkerProcess
from cnnperf.measuring.suite import chosen_executor
from cnnperf.record import Record
from cnnperf.running import runner
from cnnperf.running.preflight import prepare
from cnnperf.running.runner import Run, Unwatched
from cnnperf.suite import parse
from cnnperf.tables.repeats import Repeats

SUITE = {
    "datasets": [{"name": "synthetic", "shape": [1, 28, 28], "train": 300, "test": 100}],
    "models": ["lenet", "mlp"],
    "devices": ["cpu", "cuda:all"],
    "threads": 2,
    "train": {"steps": 2, "validation_images": 0, "batch_size": 50},
}
PARTS = ((0, 1), (2, 3))
LIMIT_S = 60.0
"""Seconds after which a thread that waits for another one fails the test."""

Prepared = Callable[..., SuiteWork]


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """Return a function that prepares the tasks of the suite on a machine with two GPUs and four cores."""
    monkeypatch.setattr(cuda, "gpus", lambda: GPUS)
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(uuids=[gpu.uuid for gpu in GPUS]))
    monkeypatch.setattr(_side_by_side, "shares", lambda count, sys: PARTS[:count])
    monkeypatch.setattr(_side_by_side, "usable_cores", lambda: 4)
    monkeypatch.setattr("cnnperf.executors.local.warn_if_busy", lambda tasks: None)

    def prepare_suite(strict: int | None = None, **changes: object) -> SuiteWork:
        asked = SuiteRequest(suite=parse(SUITE | changes, where="x.toml", name="x"), where="x.toml")
        with workers_here():
            return SuiteWork(asked, prepare(asked).tasks, strict)

    return prepare_suite


class StandIn:
    """A worker that leaves a record at once, or as soon as the other GPU's first task runs too."""

    signal, loss, returncode = None, None, 0
    met = threading.Barrier(2)
    begun: Sequence[tuple[str, tuple[int, ...] | None, int | None]] = []

    def __init__(self, request: TaskRequest, *, log: Path, launch: Launch) -> None:
        self._request = request
        log.touch()
        type(self).begun = [*self.begun, (str(request.task.cell.device), launch.cores, launch.threads)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def kill(self) -> None:
        """Do nothing, since it ends by itself."""

    def messages(self, patience: Callable[[], float | None]) -> Iterator[Message]:
        """Meet the other GPU's task, and leave a record."""
        task = self._request.task
        if task.cell.device.name == "cuda" and task.cell.model.name == "lenet":
            self.met.wait(LIMIT_S)
        yield Progressed(numbers={"step": 1})
        facts: dict[str, Any] = {"nonce": self._request.nonce, "started": "2025-01-02T03:04:05Z", "duration_s": 1.0}
        record = Record(task=task, key=task.key, machine=self._request.machine, status="ok", **facts)
        self._request.answer.write_text(record.model_dump_json(by_alias=True))
        yield Answered()


class Seen(Unwatched):
    """A watcher that keeps what it is told, and the threads that tell it."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, str | None]] = []
        self.records: list[Record] = []
        self.threads: set[int] = set()

    def on_node(self, node: str, label: str | None, numbers: dict[str, float]) -> None:
        """Keep it."""
        self.nodes.append((node, label))
        self.threads.add(threading.get_ident())

    def finished(self, record: Record) -> None:
        """Keep it."""
        self.records.append(record)
        self.threads.add(threading.get_ident())


def test_each_gpu_s_cells_run_beside_the_other_s(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks run at once, each bound to its GPU's cores; those of the CPU follow alone; one thread tells it all."""
    monkeypatch.setattr(runner, "WorkerProcess", StandIn)
    monkeypatch.setattr(StandIn, "begun", [])
    monkeypatch.setattr(StandIn, "met", threading.Barrier(2))
    watcher = Seen()
    with Run(tmp_path) as run:
        records = list(run_tasks(prepared(), run, watcher, parallel_devices=True))
    assert [record.status for record in records] == ["ok"] * 6
    assert watcher.records == records == list(store.read(tmp_path))
    assert watcher.threads == {threading.get_ident()}
    assert sorted(StandIn.begun[:4]) == [
        *[("cuda[index=0]", PARTS[0], 2)] * 2,
        *[("cuda[index=1]", PARTS[1], 2)] * 2,
    ]
    assert StandIn.begun[4:] == [("cpu", None, 2)] * 2
    assert {node for node, label in watcher.nodes if label is None} == {"cuda:0", "cuda:1"}
    bound = {str(record.task.cell.device): record.machine.bound_cores for record in records}
    assert bound == {"cuda[index=0]": PARTS[0], "cuda[index=1]": PARTS[1], "cpu": None}
    [second] = {
        r.device_label for r in (Repeats("run", (each,)) for each in records) if "2-3" in (r.device_label or "")
    }
    assert second == "cuda; beside other devices, on cores 2-3"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"threads": 3},
            r"2 devices side by side have 2 cores each, and a task has 3 threads; give `threads` of at most 2",
        ),
        ({"strict": 1}, "`strict` waits for a quiet machine, which it never is with `parallel_devices`"),
    ],
)
def test_what_cannot_be_side_by_side_is_refused(
    prepared: Prepared, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    """More threads than cores, and repetitions once the machine is quiet, are refused before a task runs."""
    work = prepared(**changes)
    with Run(tmp_path) as run, pytest.raises(UsageError, match=words):
        list(run_tasks(work, run, Unwatched(), parallel_devices=True))
    assert not run.left


def test_a_cell_on_several_gpus_follows_alone(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training by several processes, each on a GPU of its own, has no other beside it."""
    monkeypatch.setattr(runner, "WorkerProcess", StandIn)
    monkeypatch.setattr(StandIn, "begun", [])
    work = prepared(devices=["cuda:all"], models=["mlp"])
    first, *others = work.tasks
    several = first.task.model_copy(update={"settings": first.task.settings | {"processes": 2}})
    work = replace(work, tasks=(first.model_copy(update={"task": several}), *others))
    with Run(tmp_path) as run:
        list(run_tasks(work, run, Unwatched(), parallel_devices=True))
    assert StandIn.begun == [("cuda[index=0]", None, 2), ("cuda[index=1]", None, 2)]


def test_one_gpu_runs_as_without(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one GPU no task is bound."""
    monkeypatch.setattr(runner, "WorkerProcess", StandIn)
    monkeypatch.setattr(StandIn, "begun", [])
    with Run(tmp_path) as run:
        list(run_tasks(prepared(devices=["cpu", "cuda:1"], models=["mlp"]), run, Unwatched(), parallel_devices=True))
    assert StandIn.begun == [("cpu", None, 2), ("cuda[index=1]", None, 2)]


SPEAKING = (
    'import os, sys, time; os.write(int(sys.argv[1]), b\'{"progress": {"numbers": {"step": 1}}}\\n\'); time.sleep(600)'
)


class Endless(WorkerProcess):
    """A real process that says that it is at work, and does not end by itself."""

    made: Sequence[Endless] = []

    def __init__(self, request: TaskRequest, *, log: Path, launch: Launch) -> None:
        command = (sys.executable, "-S", "-c", SPEAKING)
        super().__init__(request, log=log, launch=replace(launch, command=command, cores=None))
        type(self).made = [*self.made, self]


class Interrupting(Unwatched):
    """A watcher that ends the run as Ctrl-C does as soon as two GPUs are at work."""

    def __init__(self) -> None:
        self.at_work: set[str] = set()

    def on_node(self, node: str, label: str | None, numbers: dict[str, float]) -> None:
        """Raise KeyboardInterrupt when the second GPU reports numbers."""
        if numbers:
            self.at_work.add(node)
        if len(self.at_work) == 2:
            raise KeyboardInterrupt


def test_an_interrupt_ends_the_tasks_of_both_gpus(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C leaves no process, no thread and no record of a task that was under way."""
    monkeypatch.setattr(runner, "WorkerProcess", Endless)
    monkeypatch.setattr(Endless, "made", [])
    before = threading.active_count()
    with Run(tmp_path) as run, pytest.raises(KeyboardInterrupt):
        list(run_tasks(prepared(), run, Interrupting(), parallel_devices=True))
    assert len(Endless.made) == 2
    assert all(has_ended(each._process.pid) for each in Endless.made)
    assert threading.active_count() == before
    assert not run.left


def test_a_fault_of_one_gpu_s_thread_ends_the_run(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is the error of the run, whichever thread meets it, and leaves no thread."""
    monkeypatch.setattr(runner, "WorkerProcess", StandIn)
    monkeypatch.setattr(StandIn, "met", threading.Barrier(2))
    monkeypatch.setattr(runner, "append", _full)
    before = threading.active_count()
    work = prepared(devices=["cuda:all"])
    with Run(tmp_path) as run, pytest.raises(RunError, match="records are kept"):
        list(run_tasks(work, run, Unwatched(), parallel_devices=True))
    assert threading.active_count() == before
    assert not run.left


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_another_executor_is_not_put_side_by_side() -> None:
    """The option is that of this machine; it is an option of the executor in a suite."""
    suite = parse(SUITE, where="x.toml", name="x")
    with pytest.raises(SuiteError, match=r"^`parallel_devices`: the executor 'ray' places the cells; leave one out$"):
        suite.executed("ray:auto", parallel_devices=True)
    beside = suite.executed(None, parallel_devices=True)
    assert beside.executor.options == {"parallel_devices": True}
    assert chosen_executor(beside, "x.toml")
