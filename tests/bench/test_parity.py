"""The sensitivity of parity to one random weight of LeNet's export that is increased by a share of itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from cnnperf.bench import Bench
from cnnperf.inference.inputs import Golden, Inputs, read_values
from cnnperf.inference.parity import Parity
from cnnperf.inference.settings import Infer
from cnnperf.inference.source import loaded, source_of
from cnnperf.task import Choice

onnx = pytest.importorskip("onnx")

TRIALS = 40


@pytest.mark.parametrize(("share", "least"), [(0.01, 36), (0.1, 40), (1.0, 40)])
def test_a_changed_weight_is_seen(
    benchmark: BenchmarkFixture, exported: Callable[[str], Bench], share: float, least: int
) -> None:
    """Parity detects the changed weight in at least `least` of 40 trials."""
    bench = exported("lenet")
    dice, seen = np.random.default_rng(0), []
    benchmark.group = f"one weight of LeNet changed: trials of {TRIALS} in which parity saw it"

    def trials() -> None:
        file, inputs = bench.found("onnx"), Inputs.of(bench)
        golden, layers = bench.found("golden"), bench.found("layers")
        assert file
        assert golden
        assert layers
        whole = file.read_bytes()
        for _ in range(TRIALS):
            change(file, share, dice)
            engine = loaded(source_of(bench), Choice(name="onnxruntime"))
            parity = Parity(engine, inputs, Golden.read(golden), read_values(layers), Infer().max_accuracy_drop)
            list(parity.measured((1, 2, 32)))
            seen.append(parity.fault is not None)
            file.write_bytes(whole)

    benchmark.pedantic(trials, rounds=1)
    benchmark.extra_info |= {"share": share, "seen": sum(seen)}
    assert sum(seen) >= least
    print(f"one weight changed by {share:.0%}: seen in {sum(seen)} of {TRIALS}")


def change(file: Path, share: float, dice: np.random.Generator) -> None:
    """Increase one random weight of an exported network by a share of itself."""
    model = onnx.load(file)
    weights = [each for each in model.graph.initializer if each.name.endswith("weight")]
    sizes = np.array([np.prod(each.dims) for each in weights])
    weight = weights[dice.choice(len(weights), p=sizes / sizes.sum())]
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[dice.integers(values.size)] *= 1 + share
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, file)
