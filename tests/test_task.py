"""The key of a task."""

from __future__ import annotations

from cnnperf.task import Cell, Choice, Task

CELL = Cell(dataset=Choice(name="mnist"), model=Choice(name="lenet"), device=Choice(name="cpu"))


def test_a_changed_copy_has_a_key_of_its_own() -> None:
    """A copy with a changed field has another key, even if the key of the original was computed before."""
    task, other = (Task(cell=CELL, stage="train", seed=seed, threads=1, timeout_s=1.0) for seed in (0, 1))
    assert task.key != other.key
    assert task.model_copy(update={"seed": 1}).key == other.key
    assert task.model_copy().key == task.key
