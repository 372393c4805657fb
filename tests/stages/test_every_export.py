"""Every network, with and without batch norm, on images of both shapes: ONNX Runtime agrees with torch.

Each kernel of ONNX Runtime belongs to a layer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from benches import left_by

from cnnperf import registry
from cnnperf.bench import Bench
from cnnperf.datasets import Roots
from cnnperf.inference.exporting import Export
from cnnperf.inference.inputs import Golden, Inputs, read_values
from cnnperf.inference.parity import Parity
from cnnperf.inference.source import loaded, source_of
from cnnperf.record import Record
from cnnperf.stages.export import measure as export
from cnnperf.stages.infer import Infer
from cnnperf.stages.infer import measure as infer
from cnnperf.task import Choice

pytest.importorskip("onnx")

SETTINGS = Infer(samples=11, seconds=0.0, pairs=0, test_images=64)


def variants() -> Iterator[Choice]:
    """Yield every network with its defaults, and with batch norm inverted where it is an option."""
    for name in registry.names("models"):
        yield Choice(name=name)
        option = inspect.signature(registry.find("models", name)).parameters.get("batch_norm")
        if option:
            yield Choice.model_validate({"name": name, "batch_norm": not option.default})


SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
ALWAYS = (("lenet", "mnist"), ("tiny_networks:residual", "cifar10"))
"""Networks exported in every run of the tests: one without batch norm, and one with it and with shortcuts."""


def cases() -> Iterator[Any]:
    """Yield two networks at small batches, then every network on images of every shape."""
    for name, dataset in ALWAYS:
        yield pytest.param(Choice(name=name), SHAPES[dataset], 16, id=f"{name}-{dataset}-16")
    for model, (dataset, shape) in product(variants(), SHAPES.items()):
        yield pytest.param(model, shape, 64, id=f"{model}-{dataset}-64", marks=pytest.mark.slow)


@pytest.mark.parametrize(("model", "shape", "largest"), list(cases()))
def test_a_network_is_the_same_in_onnxruntime(
    bench: Callable[..., Bench],
    trained: Callable[..., Record],
    tmp_path: Any,
    model: Choice,
    shape: tuple[int, int, int],
    largest: int,
) -> None:
    """Parity holds at each batch size and optimisation level; at least 99 % of kernel time belongs to modules."""
    data = registry.find("datasets", "synthetic")(Roots(cache=tmp_path), None, shape=shape, train=64, test=64)
    first = bench(data=data)
    cell = first.task.cell.model_copy(update={"model": model})
    first = replace(first, task=first.task.model_copy(update={"cell": cell, "stage": "export"}))
    list(export(first, Export(test_images=64)))
    record = trained().model_copy(update={"task": first.task, "artifacts": left_by(first)})
    task = first.task.model_copy(update={"stage": "infer", "variant": {"engine": "onnxruntime"}})
    second = replace(first, task=task, artifacts={}, needs={"export": record})
    sizes = (1, 7, largest)
    found = list(infer(second, SETTINGS.model_copy(update={"batch_sizes": sizes})))
    assert [m.tags["batch_size"] for m in found if m.metric == "infer.latency"] == [*sizes]
    (share,) = [m.values[0] for m in found if m.metric == "infer.mapped_share"]
    assert share >= 0.99
    golden, layers = second.found("golden"), second.found("layers")
    assert golden
    assert layers
    for optimization in ("disabled", "basic", "extended", "all"):
        engine = loaded(source_of(second), Choice(name="onnxruntime", options={"optimization": optimization}))
        parity = Parity(engine, Inputs.of(second), Golden.read(golden), read_values(layers), 0.0)
        held = {m.metric: m for m in parity.measured(sizes)}
        assert parity.fault is None
        assert held["infer.class_disagreements"].values == (0,)
        assert held["infer.layer_error_to_float64"].remarks["n"] >= 3
