"""Reference outputs of an ONNX file without torch: the unoptimised file, and in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnperf.engines import in_batches
from cnnperf.errors import StageError
from cnnperf.inference.inputs import TEST_BATCH, Golden, Inputs, LayerValue, chosen_images, golden_images
from cnnperf.onnx_file import HOST_PROVIDER, external, first_line, signature_of


def golden_of_file(path: Path, inputs: Inputs, test_images: int, batch: int | None = None) -> Golden:
    """Compute the logits in ONNX Runtime without optimisation, and in float64 by onnx's reference.

    batch: the only batch size that the file takes; None if it takes any.
    Raises StageError if either lacks an operator.
    """
    indices = chosen_images(test_images, len(inputs.dataset.test_labels))
    parts = [inputs.test(each) for each in np.split(indices, range(TEST_BATCH, len(indices), TEST_BATCH))]
    few = inputs.test(indices[: golden_images(inputs.dataset.test_images.shape[1:])])
    with _worded(path):
        run, exact = _unoptimised(path), _in_float64(path, ())
        logits = np.concatenate([in_batches(run, images, batch) for images in parts])
        in_float64 = in_batches(lambda images: next(iter(exact(images).values())), few, batch)
    return Golden(indices, np.asarray(inputs.dataset.test_labels[indices]), logits, in_float64)


def in_float64(path: Path, images: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Compute the logits, which come first, and every intermediate value that has an entry per image.

    For a file with external weights only the logits, because it is too large to be modified. Raises StageError if an
    operator has no reference.
    """
    import onnx

    nodes = () if external(path).exists() else onnx.load(path).graph.node
    with _worded(path):
        found = _in_float64(path, [output for node in nodes for output in node.output if output])(images)
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, np.ndarray) and value.dtype == np.float64 and value.shape[:1] == (len(images),)
    }


def layer_values(
    path: Path, images: NDArray[np.float32], exact: Mapping[str, NDArray[np.float64]]
) -> dict[str, LayerValue]:
    """Return the values of `in_float64`, each with its float32 error before any optimisation.

    Values that are all zero or not finite are omitted, because their relative error is undefined. Empty for a file with
    external weights.
    """
    import onnx

    if external(path).exists():
        return {}
    model = onnx.load(path)
    last = model.graph.output[0].name
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in exact if name != last)
    with _worded(path):
        found = dict(
            zip(exact, _session(model.SerializeToString()).run(list(exact), _feed(model, images)), strict=True)
        )
    values = {}
    for name, value in exact.items():
        if np.isfinite(value).all() and value.any():
            rounded = LayerValue(value.astype(np.float32), 0.0)
            values[name] = LayerValue(rounded.exact, rounded.error(found[name]))
    return values


@contextmanager
def _worded(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # The exceptions of the runtime and the reference have no common base class.
        raise StageError(f"{path}: cannot be computed in this form ({first_line(error)}); export it again") from error


def _unoptimised(path: Path) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    session = _session(str(path))
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0])


def _session(file: str | bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(file, options, providers=[HOST_PROVIDER])


def _in_float64(path: Path, names: Sequence[str]) -> Callable[[NDArray[Any]], dict[str, Any]]:
    """Return the function from images to the graph's output, then the values of these names."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(path)
    for weight in model.graph.initializer:
        _widen(weight)
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape" and not node.attribute:  # Its default is a zero in float32.
            node.attribute.append(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(np.zeros(1))))
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                value = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                tensor = onnx.numpy_helper.from_array(np.asarray(value, np.float64))
                attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))
            if attribute.HasField("t"):
                _widen(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.DOUBLE
    wanted = list(dict.fromkeys([model.graph.output[0].name, *names]))
    evaluator = ReferenceEvaluator(model, new_ops=[_conv_transpose(), _max_pool()])

    def run(images: NDArray[Any]) -> dict[str, Any]:
        pixels = images.dtype == np.uint8
        found = evaluator.run(wanted, _feed(model, images if pixels else images.astype(np.float64)))
        return dict(zip(wanted, found, strict=True))

    return run


def _conv_transpose() -> Any:
    """Return the reference's transposed convolution, computed group by group.

    With several groups its own takes the wrong part of the weights, and the first group's bias for all.
    """
    from onnx.reference.ops import op_conv_transpose

    class ConvTranspose(op_conv_transpose.ConvTranspose):  # The evaluator finds it by this name.
        op_domain = ""

        def _run(self, *arrays: Any, **attributes: Any) -> Any:
            of_one_group: Any = super()._run
            images, *weights = (each for each in arrays if each is not None)
            group = attributes.pop("group")
            parts = zip(np.split(images, group, axis=1), *(np.split(each, group) for each in weights), strict=True)
            return (np.concatenate([of_one_group(*part, group=1, **attributes)[0] for part in parts], axis=1),)

    return ConvTranspose


def _max_pool() -> Any:
    """Return the reference's max pooling that it uses for strides above 1, for all strides.

    Its other one adds the padding twice if the size of the output is rounded up.
    """
    from onnx.reference.ops import op_max_pool

    class MaxPool(op_max_pool.MaxPool):  # The evaluator finds it by this name.
        op_domain = ""

        def _run(self, *images: Any, **attributes: Any) -> Any:
            pool: Any = super()._max_pool
            return pool(*images, **attributes)

    return MaxPool


def _feed(model: Any, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {signature_of(model).inputs[0].name: images}


def _widen(tensor: Any) -> None:
    from onnx import TensorProto, numpy_helper

    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
