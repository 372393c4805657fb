"""The reference of an ONNX file without torch: its own results in float64 and without optimisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnperf.bench import Bench
from cnnperf.errors import StageError
from cnnperf.inference.exporting import Export
from cnnperf.inference.golden_file import golden_of_file
from cnnperf.inference.inputs import Golden, Inputs
from cnnperf.stages.export import measure as export
from cnnperf.task import Choice

onnx = pytest.importorskip("onnx")


@pytest.fixture
def file(bench: Callable[..., Bench], request: pytest.FixtureRequest) -> tuple[Bench, Path, Golden]:
    """Return a bench, a network's ONNX file, and torch's logits."""
    made = bench(getattr(request, "param", "convolutional"))
    list(export(made, Export()))
    return made, made.run / made.artifacts["onnx"], Golden.read(made.run / made.artifacts["golden"])


@pytest.mark.parametrize(
    ("file", "close"),
    [("dense", 1e-12), ("transposed", 1e-12), ("pooled", 1e-12), ("convolutional", 1e-5)],
    indirect=["file"],
)
def test_a_file_s_own_reference_is_torch_s(file: tuple[Bench, Path, Golden], close: float) -> None:
    """The file's own float64 logits equal torch's to 1e-12, or to 1e-5 with batch norm, on the same images."""
    made, path, of_torch = file
    found = golden_of_file(path, Inputs.of(made), test_images=150)
    assert (found.indices == of_torch.indices[:150]).all()
    assert (found.labels == of_torch.labels[:150]).all()
    np.testing.assert_allclose(found.exact, of_torch.exact, rtol=close, atol=close)
    np.testing.assert_allclose(found.logits, of_torch.logits[:150], rtol=1e-4, atol=1e-4)


def test_a_file_that_cnnperf_did_not_make_is_exported_as_it_stands(
    file: tuple[Bench, Path, Golden], tmp_path: Path
) -> None:
    """A foreign file is copied unchanged by the export, which measures its opset, nodes and size."""
    made, path, _ = file
    other = tmp_path / "foreign.onnx"
    other.write_bytes(path.read_bytes())
    cell = made.task.cell.model_copy(update={"model": Choice(name=str(other))})
    foreign = replace(made, task=made.task.model_copy(update={"cell": cell, "stage": "export"}), artifacts={})
    found = {m.metric for m in export(foreign, Export())}
    assert {"export.opset", "export.nodes", "export.file_bytes"} <= found
    assert (foreign.run / foreign.artifacts["onnx"]).read_bytes() == path.read_bytes()


def test_weights_that_lie_beside_a_file_are_taken_along(file: tuple[Bench, Path, Golden], tmp_path: Path) -> None:
    """Weights beside a foreign file are exported with it, so that the logits are the same."""
    made, path, _ = file
    other = tmp_path / "foreign.onnx"
    onnx.save(onnx.load(path), other, save_as_external_data=True, location="foreign.onnx.data", size_threshold=0)
    cell = made.task.cell.model_copy(update={"model": Choice(name=str(other))})
    foreign = replace(made, task=made.task.model_copy(update={"cell": cell, "stage": "export"}), artifacts={})
    list(export(foreign, Export()))
    found, expected = (
        golden_of_file(each, Inputs.of(made), 10) for each in (foreign.run / foreign.artifacts["onnx"], path)
    )
    np.testing.assert_array_equal(found.logits, expected.logits)


@pytest.mark.parametrize("constant", [{"value_float": 0.5}, {"value_floats": [0.5]}])
def test_constants_without_a_tensor_are_widened_too(file: tuple[Bench, Path, Golden], constant: dict[str, Any]) -> None:
    """Constants given as numbers are widened to float64 too, so that the logits are exactly halved."""
    made, path, _ = file
    before, model = golden_of_file(path, Inputs.of(made), 10), onnx.load(path)
    last = next(each for each in model.graph.node if "logits" in each.output)
    last.output[0] = "whole"
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["half"], **constant))
    model.graph.node.append(onnx.helper.make_node("Mul", ["whole", "half"], ["logits"]))
    onnx.save(model, path)
    np.testing.assert_allclose(golden_of_file(path, Inputs.of(made), 10).exact, before.exact / 2, rtol=1e-12)


def test_a_shape_filled_by_default_is_widened_too(file: tuple[Bench, Path, Golden]) -> None:
    """Zeros by default, which masks of attention begin with, are compared with float64 values; the logits stay."""
    made, path, _ = file
    before, model = golden_of_file(path, Inputs.of(made), 10), onnx.load(path)
    last = next(each for each in model.graph.node if "logits" in each.output)
    last.output[0] = "whole"
    for name, value in (("one", np.array([1])), ("nought", np.zeros(1, np.float32))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    model.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["one"], ["filled"]))
    model.graph.node.append(onnx.helper.make_node("Equal", ["filled", "nought"], ["same"]))
    model.graph.node.append(onnx.helper.make_node("Where", ["same", "whole", "filled"], ["logits"]))
    onnx.save(model, path)
    np.testing.assert_array_equal(golden_of_file(path, Inputs.of(made), 10).exact, before.exact)


def test_an_operator_without_a_reference_is_one_sentence(file: tuple[Bench, Path, Golden]) -> None:
    """An operator without a reference raises an error of one sentence that names the file and the operator."""
    made, path, _ = file
    model = onnx.load(path)
    model.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    node = next(each for each in model.graph.node if each.op_type == "Relu")
    node.op_type, node.domain = "Unheard", "elsewhere"
    onnx.save(model, path)
    with pytest.raises(StageError, match=r"model\.onnx: cannot be computed in this form \(.*Unheard") as caught:
        golden_of_file(path, Inputs.of(made), test_images=10)
    assert "\n" not in str(caught.value)
