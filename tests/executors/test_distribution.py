"""Distribution over nodes: every cell once, the longest first, lost ones again, and nothing is taken twice or lost."""

from __future__ import annotations

import errno
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process import workers_here

from cnnperf import record as store
from cnnperf.errors import RunError
from cnnperf.executors import SuiteWork
from cnnperf.executors._distribution import ATTEMPTS, Contents, Event, Lost, distribute
from cnnperf.executors._node import _mark, serve_cell
from cnnperf.ipc.messages import CellEnded, CellRequest, Recorded, Refused, SuiteRequest, decode, encode
from cnnperf.measuring.measured import UnwatchedMeasurement
from cnnperf.record import Record
from cnnperf.running.preflight import prepare
from cnnperf.running.runner import Run
from cnnperf.suite import parse

DATA = {"name": "synthetic", "shape": [1, 28, 28], "train": 300, "test": 100}
SUITE = {
    "datasets": [DATA],
    "models": ["mlp", {"name": "lenet", "batch_norm": True}, "lenet"],
    "threads": 1,
    "train": {"steps": 2, "validation_images": 50, "batch_size": 50},
}


class Nodes:
    """A cluster whose nodes serve cells in this process, one after the other; some are lost."""

    def __init__(self, count: int, losses: dict[str, int] | None = None, after: int = 0) -> None:
        """losses: how often a cell's node is lost, by the cell, each time after this number of records."""
        self.count = count
        self.losses = Counter(losses or {})
        self.after = after
        self.given: list[CellRequest] = []
        self.most = 0
        self.held: set[int] = set()
        self._flying: deque[tuple[int, CellRequest, Contents]] = deque()

    def capacity(self) -> int:
        """Return the number of nodes that are not held."""
        return self.count - len(self.held)

    def release(self, number: int) -> None:
        """Let a node take cells again."""
        self.held.remove(number)

    def start(self, number: int, request: CellRequest, files: Contents) -> None:
        """Take a cell."""
        self.given.append(request)
        self._flying.append((number, request, files))
        self.most = max(self.most, len(self._flying))

    def wait(self) -> Iterable[Event]:
        """Run the cell that was given first."""
        number, request, files = self._flying.popleft()
        yield from self._events(number, request, files)

    def _events(self, number: int, request: CellRequest, files: Contents) -> Iterator[Event]:
        records = 0
        is_lost = self.losses[request.cell.id] > 0
        self.losses[request.cell.id] -= is_lost
        for line, left in serve_cell(encode(request), files):
            message: Any = decode(line)
            if is_lost and records == self.after and isinstance(message, Recorded | CellEnded):
                yield Event(number, Lost("its raylet was killed"))
                return
            records += isinstance(message, Recorded)
            if isinstance(message, Refused):
                self.held.add(number)
            yield Event(number, message, left, f"box {number}")


class Told(UnwatchedMeasurement):
    """Keeps what nodes do."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, str | None]] = []

    def on_node(self, node: str, label: str | None, numbers: dict[str, float]) -> None:
        """Keep it."""
        self.nodes.append((node, label))


@pytest.fixture(autouse=True)
def _here() -> Iterator[None]:
    with workers_here():
        yield


def work(**changes: object) -> SuiteWork:
    """Return the work of the suite with some keys changed."""
    asked = SuiteRequest(suite=parse(SUITE | changes, where="x.toml", name="x"), where="x.toml")
    return SuiteWork(asked, prepare(asked).tasks)


def done(given: SuiteWork, folder: Path, nodes: Nodes, watcher: Told | None = None) -> list[Record]:
    """Distribute work over nodes."""
    with Run(folder) as run:
        return list(distribute(given, run, watcher or Told(), nodes))


def test_a_run_over_nodes_reads_like_one_of_one_machine(tmp_path: Path) -> None:
    """Each task has one record with its files, in one sitting; the cells are given longest first, one for each node."""
    given, nodes, told = work(repeats=2), Nodes(2), Told()
    records = done(given, tmp_path, nodes, told)
    assert {record.key for record in records} == {ready.task.key for ready in given.tasks}
    assert store.read(tmp_path) == tuple(records)
    assert [record.status for record in records] == ["ok"] * 6
    assert len({record.sitting for record in records}) == 1
    assert len(nodes.given) == 3
    assert nodes.most == 2
    for record in records:
        assert record.artifacts["weights"].verified(tmp_path).is_file()
        assert list((tmp_path / "logs").glob(f"*-{record.key}.log"))
    assert told.nodes[-1][1] is None
    assert any(label and "train" in label for _, label in told.nodes)
    assert {request.cell.model.name for request in nodes.given[:1]} == {"lenet"}


def test_a_lost_node_costs_its_attempt_only(tmp_path: Path) -> None:
    """Records that came before the loss are kept, their tasks are not run again, and the rest is run elsewhere."""
    given = work(models=["mlp"], repeats=3)
    cell = given.tasks[0].task.cell.id
    nodes = Nodes(1, {cell: 1}, after=1)
    records = done(given, tmp_path, nodes)
    assert [record.status for record in records] == ["ok"] * 3
    assert len(nodes.given) == 2
    assert [record.key for record in nodes.given[1].records] == [records[0].key]
    assert len(store.read_attempts(tmp_path)) == 3


def test_a_cell_that_loses_every_node_fails_by_name(tmp_path: Path) -> None:
    """After the last attempt its tasks are failed with the node's name; other cells are not affected."""
    given = work()
    cell = given.tasks[0].task.cell.id
    nodes = Nodes(2, {cell: ATTEMPTS})
    records = {record.task.cell.id: record for record in done(given, tmp_path, nodes)}
    assert records.pop(cell).status == "failed"
    assert {record.status for record in records.values()} == {"ok"}
    [failed] = [record for record in store.read(tmp_path) if record.status == "failed"]
    assert str(failed.error).startswith("box ")
    assert str(failed.error).endswith(": its raylet was killed, for the 3rd time")


def test_a_resumed_run_gives_only_what_is_left(tmp_path: Path) -> None:
    """Another set of nodes goes on with the cells that have pending tasks, and gets the artifacts that these read."""
    stages = {"stages": ["train", "export"], "export": {"test_images": 50}}
    given = work(**stages)
    with Run(tmp_path) as run:
        trained = [ready for ready in given.tasks if ready.task.stage == "train"]
        list(run.execute(trained[:2], Told()))
    nodes = Nodes(3)
    records = done(given, tmp_path, nodes)
    assert sorted(record.task.stage for record in records) == ["export", "export", "export", "train"]
    assert {record.status for record in records} == {"ok"}
    assert sorted(len(request.records) for request in nodes.given) == [0, 1, 1]


def test_a_node_with_other_images_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node whose task would differ, or whose cnnperf has another version, runs nothing."""
    given = work(models=["mlp"])
    other = work(models=["mlp"], seed=5)
    unlike = SuiteWork(other.asked, given.tasks)
    nodes = Nodes(1)
    [record] = done(unlike, tmp_path / "images", nodes)
    assert record.status == "failed"
    assert "box 0: " in str(record.error)
    assert "would differ from the task that was planned; its images are synthetic" in str(record.error)
    assert nodes.held == set()
    monkeypatch.setattr("cnnperf.running.cell.version", lambda _: "0.0.1")
    [record] = done(given, tmp_path / "version", Nodes(2))
    assert "cnnperf 0.0.1 is installed here" in str(record.error)


class OneBad(Nodes):
    """A cluster of which a node refuses each cell at once, while the other works."""

    def _events(self, number: int, request: CellRequest, files: Contents) -> Iterator[Event]:
        if len(self._flying) < self.count - 1 or self.held:
            yield from super()._events(number, request, files)
        else:
            self.held.add(number)
            yield Event(number, Refused(error="UsageError", reason="no"))


def test_a_bad_node_does_not_refuse_all_cells(tmp_path: Path) -> None:
    """A node that refuses cells is held until its cell has ended elsewhere, so that each cell finds a good one."""
    nodes = OneBad(2)
    records = done(work(), tmp_path, nodes)
    assert [record.status for record in records] == ["ok"] * 3
    assert len(nodes.given) > 3
    assert nodes.held == set()


def test_a_file_that_changed_on_its_way_fails_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An artifact whose checksum is wrong, or whose place is outside, makes the record a failed one."""
    for path, words in ((None, "changed"), ("../x", "not a place"), ("records.jsonl", "not a place")):
        folder = tmp_path / (path or "weights").strip("./")

        class Altered(Nodes):
            def _events(
                self, number: int, request: CellRequest, files: Contents, path: str | None = path
            ) -> Iterator[Event]:
                for event in super()._events(number, request, files):
                    sent = {
                        path or name: b"other" if "artifacts" in name else left for name, left in event.files.items()
                    }
                    yield Event(number, event.message, sent, event.node)

        [record] = done(work(models=["mlp"]), folder, Altered(1))
        assert record.status == "failed"
        assert words in str(record.error)
    assert not (tmp_path / "x").is_file()


class Full(Nodes):
    """A cluster whose head has no space left when a record comes."""

    def _events(self, number: int, request: CellRequest, files: Contents) -> Iterator[Event]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield


def test_a_full_disk_stops_the_run(tmp_path: Path) -> None:
    """A fault of the run folder is one sentence that says how to go on."""
    with pytest.raises(RunError, match=r"cannot be written .*resume"):
        done(work(models=["mlp"]), tmp_path, Full(1))


def test_folders_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell removes the folders that killed cells left, and not that of one which still runs."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead, alive = (tmp_path / f"{_mark()}{pid}-x" for pid in (2**22 + 1, os.getpid()))
    for folder in (dead, alive):
        (folder / "artifacts").mkdir(parents=True)
    done(work(models=["mlp"]), tmp_path / "run", Nodes(1))
    assert sorted(tmp_path.iterdir()) == sorted([alive, tmp_path / "run"])


def test_no_node_left_stops_the_run(tmp_path: Path) -> None:
    """A cluster without a node stops the run."""
    with pytest.raises(RunError, match="no node can run a cell"):
        done(work(models=["mlp"]), tmp_path, Nodes(0))
