"""Checks of an ONNX file before it is run: whether it is valid, and whether it takes a dataset's images."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from cnnperf.errors import EngineError, UsageError, shorten
from cnnperf.units import shape_in_words

FLOAT = 1
"""TensorProto.FLOAT."""
HOST_PROVIDER = "CPUExecutionProvider"
"""ONNX Runtime's execution provider on the processor, which every build of it has."""


class Facts(NamedTuple):
    """Facts of a valid file."""

    opset: int
    ir_version: int
    nodes: int
    size: int
    """Size in bytes, including external weight files."""


def look(path: Path) -> Facts:
    """Check a file in full with onnx's own checker and shape inference.

    Raises UsageError if the file is missing, truncated, invalid, has a fixed batch size or a newer opset than onnx
    knows; EngineError if onnx is not installed.
    """
    require("export", "onnx")
    model = _read(path)
    shape = images_of(model, path).type.tensor_type.shape
    if not shape.dim or shape.dim[0].HasField("dim_value"):
        fixed = shape.dim[0].dim_value if shape.dim else "no size"
        raise UsageError(f"{path}: takes batches of {fixed} only; export it with a dynamic batch")
    opset, newest = _opset(model)
    if opset > newest:
        raise UsageError(
            f"{path}: has opset {opset}, the newest readable opset is {newest}; export it with opset {newest}"
        )
    files = {path, *(path.parent / name for name in _external_names(model))}
    return Facts(opset, model.ir_version, len(model.graph.node), sum(file.stat().st_size for file in files))


def check_fit(path: Path, shape: tuple[int, int, int], num_classes: int) -> Facts:
    """Check a file that will run on images of C×H×W. Raises UsageError as `look` does, and if the shapes differ."""
    facts, model = look(path), _read(path)
    wanted, classes = _sizes(images_of(model, path))[1:], _sizes(model.graph.output[0])[1:]
    if not _agree(wanted, shape):
        raise UsageError(f"{path}: takes images of {_times(wanted)}, got {_times(shape)}; choose a matching dataset")
    if len(model.graph.output) != 1 or not _agree(classes, (num_classes,)):
        raise UsageError(
            f"{path}: must return logits of {num_classes} classes and nothing else, got {len(model.graph.output)} "
            f"output(s), the first of shape {_times(classes)} per image; choose a matching dataset or export it again"
        )
    return facts


def images_of(model: Any, path: Path) -> Any:
    """Return the one input of a graph. Raises UsageError if there are more, or it is not float32."""
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type != FLOAT:
        got = ", ".join(f"{each.name} in {_kind(each)}" for each in inputs) or "none"
        raise UsageError(f"{path}: must take one input of float32 images, got {got}; export it with one float32 input")
    return inputs[0]


def external(path: Path) -> Path:
    """Return the path of the external weight file that `export` writes for a model too large for one file."""
    return path.with_name(f"{path.name}.data")


def stored_bytes(path: Path) -> int:
    """Return the size in bytes of an artifact, including its external weight file.

    Does not import onnx, because an engine's process must not load it.
    """
    return sum(file.stat().st_size for file in (path, external(path)) if file.exists())


def _read(path: Path) -> Any:
    import onnx

    if not path.is_file():
        raise UsageError(f"{path}: no such file; give the path of an ONNX file")
    try:
        onnx.checker.check_model(str(path), full_check=True)
        return onnx.load(path, load_external_data=False)
    except Exception as error:  # Exceptions of the checker, shape inference and the parser.
        raise UsageError(f"{path}: not a valid ONNX file ({first_line(error)}); export it again") from error


def _external_names(model: Any) -> set[str]:
    """Return the names of a model's external weight files."""
    return {each.value for weight in model.graph.initializer for each in weight.external_data if each.key == "location"}


def _opset(model: Any) -> tuple[int, int]:
    """Return the operator set of a file and the newest operator set that onnx knows."""
    from onnx import defs

    found = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    return found, defs.onnx_opset_version()


def _kind(value: Any) -> str:
    """Name the type of a value's numbers, as onnx does."""
    from onnx import TensorProto

    return str(TensorProto.DataType.Name(value.type.tensor_type.elem_type)).lower()


def _sizes(value: Any) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)


def _agree(found: tuple[int | None, ...], wanted: tuple[int, ...]) -> bool:
    return len(found) == len(wanted) and all(a in (None, b) for a, b in zip(found, wanted, strict=True))


def _times(sizes: tuple[int | None, ...]) -> str:
    return shape_in_words(sizes) or "no size"


def first_line(error: BaseException) -> str:
    """Return the type of an error's root cause and the first line of its message."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {shorten(error) or 'no message'}"


def require(engine: str, *packages: str) -> None:
    """Raise EngineError, naming the cure, unless the packages are installed."""
    for package in packages:
        if find_spec(package) is None:
            raise EngineError(f"{engine} needs {package}, which is not installed; pip install 'cnnperf[onnx]'")
