"""The head of a cluster: its time for a task, its memory, and the makespan, with the real scheduling and stub nodes."""

from __future__ import annotations

import heapq
import random
import resource
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from cnnperf.executors import SuiteWork
from cnnperf.executors._distribution import Contents, Event, distribute
from cnnperf.ipc.messages import Arrived, CellEnded, CellRequest, Ready, Recorded, SuiteRequest
from cnnperf.measuring.measured import UnwatchedMeasurement
from cnnperf.record import Record
from cnnperf.running.runner import Run, blank
from cnnperf.suite import parse
from cnnperf.task import Cell, Choice, Task

CELLS = 10_000
LONGEST_HEAD_S = 2e-3
MOST_OVER_BOUND = 1.1


class Simulated:
    """Nodes with a clock of their own: a cell ends after its planned duration."""

    def __init__(self, nodes: int, durations: dict[str, float], records: dict[str, Record]) -> None:
        self.nodes = nodes
        self.now_s = 0.0
        self._durations, self._records = durations, records
        self._ends: list[tuple[float, int, str]] = []

    def capacity(self) -> int:
        """Return the number of nodes."""
        return self.nodes

    def start(self, number: int, request: CellRequest, files: Contents) -> None:
        """Begin a cell now."""
        heapq.heappush(self._ends, (self.now_s + self._durations[request.cell.id], number, request.cell.id))

    def release(self, number: int) -> None:
        """Do nothing: no node refuses a cell."""

    def wait(self) -> Iterable[Event]:
        """Go to the next end of a cell."""
        self.now_s, number, cell = heapq.heappop(self._ends)
        yield Event(number, Arrived(machine=self._records[cell].machine, niceness=0), node="box")
        yield Event(number, Recorded(record=self._records[cell]))
        yield Event(number, CellEnded())


@pytest.mark.parametrize("nodes", [1, 8, 64, 512])
def test_the_head_is_fast_and_the_makespan_short(nodes: int, tmp_path: Path, benchmark: Any) -> None:
    """The head takes at most 2 ms of CPU a task, and the makespan at most 1.1 times the bound of any schedule."""
    dice = random.Random(nodes)
    tasks = [ready(f"net{index}", dice.lognormvariate(4, 1)) for index in range(CELLS)]
    durations = {each.task.cell.id: each.nominal_s for each in tasks}
    records = {each.task.cell.id: blank(each, "ok", "") for each in tasks}
    cluster = Simulated(nodes, durations, records)
    suite = parse({"datasets": ["mnist"], "models": ["mlp"], "threads": 1}, where="x.toml", name="x")
    work = SuiteWork(SuiteRequest(suite=suite, where="x.toml"), tuple(tasks))

    def head() -> int:
        with Run(tmp_path / "run") as run:
            return sum(1 for _ in distribute(work, run, UnwatchedMeasurement(), cluster))

    before, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert benchmark.pedantic(head, rounds=1) == CELLS
    head_s = (time.process_time() - before) / CELLS
    bound = max(*durations.values(), sum(durations.values()) / nodes)
    risen = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024 / CELLS
    benchmark.extra_info.update(head_s=head_s, makespan_over_bound=cluster.now_s / bound, bytes_per_record=risen)
    assert head_s <= LONGEST_HEAD_S
    assert cluster.now_s <= MOST_OVER_BOUND * bound


def ready(model: str, seconds: float) -> Ready:
    """Return a task of a network whose planned duration is given."""
    cell = Cell(dataset=Choice(name="mnist"), model=Choice(name=model), device=Choice(name="cpu"))
    task = Task(cell=cell, stage="train", seed=0, threads=1, timeout_s=9)
    return Ready(task=task, folder=None, skip=None, estimate_s=1, nominal_s=seconds, weight_bytes=0)
