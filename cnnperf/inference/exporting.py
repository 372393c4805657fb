"""From a trained network to an ONNX file, checked and proved to be the same network."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import shutil
import warnings
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from cnnperf import registry
from cnnperf.bench import Bench, Images, Pace, Settings
from cnnperf.errors import StageError
from cnnperf.inference.golden import rounding
from cnnperf.inference.inputs import (
    LAYER_IMAGES,
    QUICK_TEST_IMAGES,
    TEST_BATCH,
    TEST_IMAGES,
    Golden,
    golden_images,
)
from cnnperf.inference.parity import spread, verdict
from cnnperf.machine.fingerprint import fingerprint
from cnnperf.onnx_file import external, first_line, look
from cnnperf.record import Measurement, single
from cnnperf.task import Scalar

EXPORT_S = 10.0
"""Approximate seconds of the translation and the checks of a file; for estimates only."""
IN_FLOAT64, IN_REFERENCE = 2, 20
"""Approximate time of an image in float64, and in onnx's reference, as multiples of its time in float32."""
EXTERNAL_BYTES = 2 * 10**9
"""Maximum size of a protocol-buffer file; larger weights are stored in an external file."""

ROUNDING_FACTOR, ROUNDING_RESOLUTION = 5.0, 1e-7
"""Maximum distance of the file's logits from torch's, both in float64: relative to the effect of rounding every weight
to float32 once (the nine networks' exports reach 0.64 of it), or, for constants that are not weights, relative to the
spread between classes."""


class Export(Settings):
    """Export to ONNX: the operator set and the reference logits."""

    reads: ClassVar[tuple[str, ...]] = ("weights",)

    opset: int | None = Field(default=None, ge=18, le=25, description="ONNX operator set; absent: torch's own choice.")
    test_images: int = Field(
        default=TEST_IMAGES, ge=1, description="Test images whose logits are stored as the reference for engines."
    )

    def takes_onnx(self, variant: Mapping[str, Scalar]) -> bool:
        """Return True: an ONNX file is checked and passed on."""
        return True

    def reference_images(self) -> int:
        """Return the number of test images, unless the dataset has fewer."""
        return self.test_images

    def work_s(self, variant: Mapping[str, Scalar], pace: Pace, images: Images) -> float:
        """Return the seconds of the export, and of the logits and layers that are its reference."""
        count = min(self.test_images, images.test_count)
        count += IN_FLOAT64 * golden_images(images.shape) + IN_REFERENCE * LAYER_IMAGES
        return EXPORT_S + count * pace.forward(TEST_BATCH) / TEST_BATCH

    def quick(self) -> Export:
        """Return the settings with fewer test images."""
        return self.model_copy(update={"test_images": min(self.test_images, QUICK_TEST_IMAGES)})


def proved(
    model: nn.Module, of_torch: Golden, of_file: NDArray[np.float64], images: NDArray[np.float32], cure: str
) -> Iterator[Measurement]:
    """Yield the distance of the file's logits from torch's, both in float64, relative to the spread between classes.

    Also yields the verdict `export.parity`. cure: advice in the error if the file differs. Raises StageError if the
    distance exceeds the effect of rounding weights to float32, and thus for any different class that is not a tie.
    """
    fault = yield from _compared(model, of_torch.exact[: len(images)], of_file, images, cure)
    yield verdict("export.parity", fault)
    if fault:
        raise StageError(fault)


def _compared(
    model: nn.Module,
    exact: NDArray[np.float64],
    of_file: NDArray[np.float64],
    images: NDArray[np.float32],
    cure: str,
) -> Generator[Measurement, None, str | None]:
    """Yield the distance and its limit, and return the fault, if any."""
    if not np.isfinite(exact).all():
        return "torch's own output is not finite (NaN or infinite); train the network again"
    if not np.isfinite(of_file).all():
        return f"the exported network differs from torch's: its output is not finite (NaN or infinite); {cure}"
    unit = spread(exact)
    error = float(np.abs(of_file - exact).max()) / unit
    allowed = max(ROUNDING_FACTOR * rounding(model, images) / unit, ROUNDING_RESOLUTION)
    yield single("export.error_to_float64", "1", error, "lower", {"n": len(images)})
    yield single("export.allowed_error_to_float64", "1", allowed, None)
    if error <= allowed:
        return None
    return (
        f"the exported network differs from torch's: in float64 their logits differ by {error:.2g} of the spread "
        f"between classes, {allowed:.2g} is allowed; {cure}"
    )


def copy(file: Path, path: Path) -> None:
    """Copy an ONNX file with its external weights, if any; into one file if they fit."""
    import onnx

    model = onnx.load(file, load_external_data=False)
    if not any(onnx.external_data_helper.uses_external_data(each) for each in model.graph.initializer):
        shutil.copyfile(file, path)
        return
    onnx.load_external_data_for_model(model, str(file.parent))
    is_large = sum(len(each.raw_data) for each in model.graph.initializer) >= EXTERNAL_BYTES
    onnx.save(model, path, save_as_external_data=is_large, location=external(path).name)


def export(model: nn.Module, images: Any, path: Path, settings: Export) -> int:
    """Write the network as ONNX with a dynamic batch, and return the number of operations that torch traced."""
    batch = torch.export.Dim("batch")
    example = torch.from_numpy(images).to(next(model.parameters()).device)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: batch},),
                input_names=["images"],
                output_names=["logits"],
                opset_version=settings.opset,
                verbose=False,
            )
    except Exception as error:  # Any exception of torch.export, the translation or the network itself.
        raise StageError(
            f"{type(model).__name__} cannot be exported to ONNX: {first_line(error)}; leave out export and the "
            "engines that read ONNX"
        ) from error
    assert program is not None, "dynamo returns the program"
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    program.save(str(path), external_data=size >= EXTERNAL_BYTES)
    traced = program.exported_program
    return 0 if traced is None else sum(node.op == "call_function" for node in traced.graph.nodes)


def file_facts(path: Path) -> Iterator[Measurement]:
    """Check the file in full with onnx, and yield its facts. Raises UsageError if it is invalid."""
    facts = look(path)
    yield single("export.opset", "1", facts.opset)
    yield single("export.ir_version", "1", facts.ir_version)
    yield single("export.nodes", "count", facts.nodes, "lower")
    yield single("export.file_bytes", "bytes", facts.size, "lower", artifact="onnx")


def content_hash(bench: Bench, model: nn.Module, settings: Export) -> str:
    """Hash everything that determines the file: weights, architecture, versions, shape and settings."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + str(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    build = registry.find("models", bench.task.cell.model.name)
    packages = fingerprint().packages
    versions = [packages.get(name) for name in ("torch", "onnx", "onnxscript")]
    facts = (repr(model), str(bench.task.cell.model), versions, bench.dataset.test_images.shape[1:], settings.opset)
    digest.update(repr(facts).encode())
    for file in sources(build, *(type(module) for module in model.modules())):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def sources(*parts: Any) -> list[Path]:
    """Return the source files of a network's modules, except torch's own, whose version is hashed."""
    own = [part for part in parts if part.__module__.partition(".")[0] != "torch"]
    return sorted({Path(file) for part in own if (file := inspect.getsourcefile(part))})


class CachedExport:
    """An exported file in the cache, and beside it the number of operations that torch traced and a checksum of both.

    A file that was altered, or that an earlier version stored without a checksum, is ignored.
    """

    def __init__(self, path: Path) -> None:
        """Name the file in the cache."""
        self.path = path
        self._facts = path.with_suffix(".json")

    def read(self) -> tuple[bytes, int] | None:
        """Return the content of the file and the number of traced operations; None if they are absent or altered."""
        try:
            facts = json.loads(self._facts.read_bytes())
            content, nodes = self.path.read_bytes(), int(facts["torch_nodes"])
            return (content, nodes) if facts["sha256"] == _checksum(content, nodes) else None
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def write(self, content: bytes, nodes: int) -> None:
        """Store a file, each of its two parts atomically. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        facts = json.dumps({"torch_nodes": nodes, "sha256": _checksum(content, nodes)}).encode()
        for whole, place in ((facts, self._facts), (content, self.path)):
            part = place.with_name(f"{place.name}.{os.getpid()}.part")
            part.write_bytes(whole)
            part.rename(place)


def _checksum(content: bytes, nodes: int) -> str:
    return hashlib.sha256(content + str(nodes).encode()).hexdigest()
