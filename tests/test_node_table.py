"""Kernels of an engine beside torch's layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from furnished import m

from cnnperf.node_table import node_table
from cnnperf.record import Measurement, Record
from cnnperf.task import Task


@pytest.fixture
def staged(trained: Callable[..., Record]) -> Callable[..., Record]:
    """Return a maker of a stage's record."""

    def make(stage: str, *measured: Measurement) -> Record:
        base = trained()
        return base.model_copy(update={"task": _of_stage(base.task, stage), "measurements": measured})

    return make


def _of_stage(task: Task, stage: str) -> Task:
    return Task.model_validate(task.model_dump() | {"stage": stage})


def node(layer: str, operator: str, *seconds: float) -> Measurement:
    """Make the times of a kernel."""
    tags: dict[str, Any] = {"engine": "onnxruntime", "batch_size": 32, "layer": layer, "operator": operator}
    return m("infer.node_time", "s", *seconds, **tags, reorder=False)


NODES = (
    node("conv+act", "ReorderInput", 0.125),
    node("pool", "MaxPool", 0.25),
    node("conv+act", "Conv", 0.5, 1.0, 2.0),
    node("(unmapped)", "Cast", 0.25),
)


@pytest.mark.parametrize(
    ("mode", "batch_size", "torch_s"), [("infer", 32, 3.0), ("train", 32, None), ("infer", 1, None)]
)
def test_kernels_of_the_same_layers_make_a_row(
    staged: Callable[..., Record], mode: str, batch_size: int, torch_s: float | None
) -> None:
    """Medians add up, in the order of the first; beside them torch's layers from a forward profile of that batch."""
    on = {"mode": mode, "batch_size": batch_size}
    times = [m("profile.forward_seconds", "s", s, layer=layer, **on) for layer, s in (("conv", 1.0), ("act", 2.0))]
    profile = staged("profile", m("profile.step_seconds", "s", 4.0, **on), *times)
    rows = node_table({"suite/run": (profile, staged("infer", *NODES))}).rows
    assert [(row["layers"], row["operators"], row["seconds"], row["torch_seconds"]) for row in rows] == [
        ("conv+act", "ReorderInput, Conv", 1.125, torch_s),
        ("pool", "MaxPool", 0.25, None),
        ("(unmapped)", "Cast", 0.25, None),
    ]
