"""Copies of ONNX files: in one file, or with the weights beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from cnnperf.inference import exporting

WEIGHTS = np.arange(1024, dtype=np.float32)


def divided(path: Path) -> None:
    """Write a network of one addition, with its weights in a second file."""
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])],
        "add",
        [tensor("x", onnx.TensorProto.FLOAT, [1024])],
        [tensor("y", onnx.TensorProto.FLOAT, [1024])],
        [onnx.numpy_helper.from_array(WEIGHTS, "w")],
    )
    onnx.save(onnx.helper.make_model(graph), path, save_as_external_data=True, location="w.bin", size_threshold=0)


@pytest.mark.parametrize(
    ("most", "names"), [(WEIGHTS.nbytes + 1, {"b.onnx"}), (WEIGHTS.nbytes, {"b.onnx", "b.onnx.data"})]
)
def test_weights_that_fit_are_copied_into_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, names: set[str]
) -> None:
    """Weights below the limit are copied into the file, and larger ones into a second file beside it."""
    monkeypatch.setattr(exporting, "EXTERNAL_BYTES", most)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    divided(first / "a.onnx")
    exporting.copy(first / "a.onnx", second / "b.onnx")
    assert {file.name for file in second.iterdir()} == names
    [weights] = onnx.load(second / "b.onnx").graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(weights), WEIGHTS)
