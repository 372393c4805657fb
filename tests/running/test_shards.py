"""Shards: every cell is in one of them, they are equal in planned duration, and a missing one is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnperf.errors import UsageError
from cnnperf.ipc.messages import Ready
from cnnperf.record import Record
from cnnperf.running.shards import Shard, missing_shards
from cnnperf.task import Cell, Choice, Task


def ready(model: str, seconds: float, stage: str = "train") -> Ready:
    """Return a task of a network whose planned duration is given."""
    cell = Cell(dataset=Choice(name="mnist"), model=Choice(name=model), device=Choice(name="cpu"))
    task = Task(cell=cell, stage=stage, seed=0, threads=1, timeout_s=9)
    return Ready(task=task, folder=None, skip=None, estimate_s=1, nominal_s=seconds, weight_bytes=0)


def work(tasks: Sequence[Ready]) -> float:
    """Return the planned seconds of tasks."""
    return sum(each.nominal_s for each in tasks)


@given(st.lists(st.floats(1, 1e4), min_size=1, max_size=30), st.integers(1, 12))
def test_every_cell_is_in_one_part_and_the_parts_are_equal(durations: list[float], count: int) -> None:
    """Parts are disjoint, cover the suite and have work; no cell could be moved to a part that has less without it."""
    tasks = [ready(f"net{index}", seconds) for index, seconds in enumerate(durations)]
    if count > len(tasks):
        with pytest.raises(UsageError, match=f"only {len(tasks)} cells"):
            Shard(1, count).of(tasks)
        return
    parts = [Shard(number, count).of(tasks) for number in range(1, count + 1)]
    assert sorted(each.task.cell.id for part in parts for each in part) == sorted(each.task.cell.id for each in tasks)
    assert all(parts)
    least = min(map(work, parts))
    assert all(work(part) - min(each.nominal_s for each in part) <= least + 1e-6 for part in parts)


def test_the_stages_of_a_cell_stay_together_in_their_order() -> None:
    """A part has all tasks of its cells, in the order of the plan; the longest cell is alone."""
    cells = (("a", 9), ("b", 4), ("c", 4))
    tasks = [ready(model, seconds, stage) for stage in ("train", "infer") for model, seconds in cells]
    assert [(each.task.cell.model.name, each.task.stage) for each in Shard(2, 2).of(tasks)] == [
        ("b", "train"),
        ("c", "train"),
        ("b", "infer"),
        ("c", "infer"),
    ]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "1/2/3", "-1/2", "", "1 /2"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    """The sentence has what was given and what to give."""
    with pytest.raises(UsageError, match="give i/n with i from 1 to n"):
        Shard.parse(text)


def test_missing_shards_are_named(trained: Callable[..., Record]) -> None:
    """A shard of which there is no record is missing; a run of the whole suite has no shards."""
    whole = trained()
    assert missing_shards([whole]) == ()
    found = [whole.model_copy(update={"shard": shard}) for shard in ("1/3", "3/3")]
    assert missing_shards([whole, *found]) == (f"{whole.task.suite} 2/3",)
