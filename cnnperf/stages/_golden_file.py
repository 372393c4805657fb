"""What the engines of an ONNX file are held to, where there is no torch: the file unoptimised, and in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnperf.errors import StageError
from cnnperf.onnx_file import first_line, images_of
from cnnperf.stages._samples import GOLDEN_IMAGES, Golden, Inputs, chosen

BATCH = 100


def golden(path: Path, inputs: Inputs, test_images: int) -> Golden:
    """Compute the logits in ONNX Runtime without any optimisation, and in float64 by onnx's reference.

    Raises StageError for an operator that either lacks.
    """
    indices = chosen(test_images, len(inputs.dataset.test_labels))
    try:
        logits = _unoptimised(
            path, [inputs.test(each) for each in np.split(indices, range(BATCH, len(indices), BATCH))]
        )
        exact = _in_float64(path, inputs.test(indices[:GOLDEN_IMAGES]))
    except Exception as error:  # The runtime's and the reference's have no common base of their own.
        raise StageError(f"{path}: cannot be computed as it stands ({first_line(error)}); export it again") from error
    return Golden(indices, np.asarray(inputs.dataset.test_labels[indices]), logits, exact)


def _unoptimised(path: Path, batches: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: batch})[0] for batch in batches])


def _in_float64(path: Path, images: NDArray[np.float32]) -> NDArray[np.float64]:
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(path)
    for weight in model.graph.initializer:
        _widen(weight)
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                value = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                tensor = onnx.numpy_helper.from_array(np.asarray(value, np.float64))
                attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))
            if attribute.HasField("t"):
                _widen(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.DOUBLE
    (exact,) = ReferenceEvaluator(model).run(None, {images_of(model, path).name: images.astype(np.float64)})
    return np.asarray(exact, np.float64)


def _widen(tensor: Any) -> None:
    from onnx import TensorProto, numpy_helper

    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
