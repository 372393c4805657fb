"""Checks of an ONNX file before it is run: whether it is valid, and whether it takes a dataset's images."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from cnnperf.errors import EngineError, UsageError, shorten
from cnnperf.units import shape_in_words

IMAGE_KINDS = ("float", "uint8")
"""Types of an input of images: normalised, or pixels."""
RANK, RANK_OF_LOGITS = 4, 2
"""Dimensions of images (N×C×H×W, or another order of a file's own) and of logits (N×classes)."""
INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
NUMBERS = ("float", "double", "float16", "bool", *INTEGERS)
"""Types whose numbers can be generated."""
HOST_PROVIDER = "CPUExecutionProvider"
"""ONNX Runtime's execution provider on the processor, which every build of it has."""


class Facts(NamedTuple):
    """Facts of a valid file."""

    opset: int
    ir_version: int
    nodes: int
    size: int
    """Size in bytes, including external weight files."""


class Port(NamedTuple):
    """An input or output of a file."""

    name: str
    kind: str
    """Type of its numbers, as onnx names it: float, uint8, int64 …"""
    sizes: tuple[int | None, ...]
    """Shape; a free size is None."""

    def __str__(self) -> str:
        """Describe it in words."""
        return f"{shorten(self.name, 60)!r} ({self.kind} {_times(self.sizes)})"


class Signature(NamedTuple):
    """The inputs and outputs of a file."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def images(self) -> Port | None:
        """The input that takes images; None if there is none, and then every input gets generated numbers."""
        return next((port for port in self.inputs if port.kind in IMAGE_KINDS and len(port.sizes) == RANK), None)

    @property
    def takes_pixels(self) -> bool:
        """Whether the images are uint8 pixels."""
        return self.images is not None and self.images.kind == "uint8"

    @property
    def batch(self) -> int | None:
        """The only batch size that the file takes; None if it takes any."""
        sizes = (self.images or self.inputs[0]).sizes
        return sizes[0] if sizes else None

    @property
    def classes(self) -> int | None:
        """The number of classes; None if it is free or the file returns no logits."""
        return None if self.unchecked else self.outputs[0].sizes[1]

    @property
    def unchecked(self) -> str | None:
        """The reason why the file's output is not compared with a reference; None for a file from images to logits."""
        if len(self.inputs) != 1:
            return f"it takes {len(self.inputs)} inputs"
        if self.images is None:
            return f"it takes no images, but {self.inputs[0]}"
        if len(self.outputs) != 1:
            return f"it has {len(self.outputs)} outputs"
        if self.outputs[0].kind != "float" or len(self.outputs[0].sizes) != RANK_OF_LOGITS:
            return f"it returns no logits, but {self.outputs[0]}"
        return None


def signature_of(model: Any) -> Signature:
    """Return the inputs and outputs of a model that was read."""
    weights = {weight.name for weight in model.graph.initializer}
    inputs = tuple(_port(each) for each in model.graph.input if each.name not in weights)
    return Signature(inputs, tuple(map(_port, model.graph.output)))


def signature(path: Path) -> Signature:
    """Check a file and return its inputs and outputs.

    Raises UsageError as `look` does, and for a file that has no input, or one whose numbers cannot be generated.
    """
    require("export", "onnx")
    found = signature_of(_read(path))
    if not found.inputs:
        raise UsageError(f"{path}: has no input; export it with an input of images")
    if found.batch is not None and found.batch < 1:
        raise UsageError(f"{path}: takes batches of {found.batch}; export it with a batch of 1 or more")
    for port in found.inputs:
        if port.kind not in NUMBERS:
            raise UsageError(f"{path}: takes {port}, which cannot be generated; export it without this input")
        if port is not found.images and None in port.sizes[1:]:
            raise UsageError(f"{path}: takes {port}, with a free size besides the batch; export it with fixed sizes")
    return found


def look(path: Path) -> Facts:
    """Check a file in full with onnx's own checker and shape inference.

    Raises UsageError if the file is missing, truncated, invalid or has a newer opset than onnx knows; EngineError if
    onnx is not installed.
    """
    require("export", "onnx")
    model = _read(path)
    opset, newest = _opset(model)
    if opset > newest:
        raise UsageError(
            f"{path}: has opset {opset}, the newest readable opset is {newest}; export it with opset {newest}"
        )
    files = {path, *(path.parent / name for name in _external_names(model))}
    return Facts(opset, model.ir_version, len(model.graph.node), sum(file.stat().st_size for file in files))


def check_fit(path: Path, shape: tuple[int, int, int], num_classes: int) -> Facts:
    """Check a file that will run on images of C×H×W. Raises UsageError as `look` does, and if the shapes differ."""
    facts, found = look(path), signature(path)
    images = found.images
    if images and not _agree(images.sizes[1:], shape):
        raise UsageError(
            f"{path}: takes images of {_times(images.sizes[1:])}, got {_times(shape)}; choose a matching dataset or "
            "shape"
        )
    if not (found.unchecked or _agree(found.outputs[0].sizes[1:], (num_classes,))):
        raise UsageError(
            f"{path}: must return logits of {num_classes} classes, got {found.outputs[0]}; choose a matching dataset "
            "or export it again"
        )
    return facts


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


def _port(value: Any) -> Port:
    """Return an input or output by onnx's description; a value that is no tensor has the type `undefined`."""
    from onnx import TensorProto

    tensor = value.type.tensor_type
    sizes = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return Port(value.name, str(TensorProto.DataType.Name(tensor.elem_type)).lower(), sizes)


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
