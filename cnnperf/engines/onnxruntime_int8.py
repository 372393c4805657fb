"""ONNX Runtime in 8-bit integers: static quantisation in QDQ format, calibrated on training images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from cnnperf.engines import EngineSource
from cnnperf.engines.onnxruntime import Session
from cnnperf.errors import EngineError, StageError
from cnnperf.machine.fingerprint import cpu_flags
from cnnperf.onnx_file import first_line, require, signature_of
from cnnperf.record import Artifact

LOADS = "onnx"
PACKAGES: tuple[str, ...] = ("onnxruntime", "onnxruntime.quantization", "onnx")

BATCH = 32
"""Images in a batch of the calibration."""


def load(source: EngineSource, *, calibration_images: Annotated[int, Field(ge=1)] = 256) -> Session:
    """Quantise the exported network, unless the result of another process is to be reused, and load it."""
    require("onnxruntime_int8", "onnxruntime", "onnx")
    assert source.onnx is not None, "the export left a file"
    flags = cpu_flags("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
    file = source.folder / "model_int8.onnx"
    checksum = file.with_suffix(".json")
    if source.reuses and file.exists() and checksum.exists():
        _verify(checksum, file)
    else:
        _refuse_unsuited(source.onnx)
        quantise(source.onnx, file, source, calibration_images, has_vnni=any("vnni" in flag for flag in flags))
        checksum.write_text(Artifact.of(file.parent, file.name).model_dump_json(), encoding="utf-8")
    session = Session(file, source, "all", is_exact=False)
    session.facts = {**session.facts, "calibration_images": calibration_images, "cpu_flags": " ".join(flags)}
    return session


def _refuse_unsuited(file: Path) -> None:
    """Raise EngineError for a file that cannot be calibrated by normalised images."""
    import onnx

    found = signature_of(onnx.load(file, load_external_data=False))
    reason = found.unchecked or ("it takes uint8 pixels" if found.takes_pixels else None)
    if reason:
        raise EngineError(f"onnxruntime_int8 quantises files from float32 images to logits, and not this one: {reason}")


def _verify(checksum: Path, file: Path) -> None:
    """Raise StageError unless a file is as another process of the task wrote it."""
    try:
        written = Artifact.model_validate_json(checksum.read_bytes())
    except (OSError, ValidationError) as error:
        raise StageError(f"{checksum}: not the checksum of {file.name}; run the task again") from error
    if written.path != file.name or written.sha256 is None:
        raise StageError(f"{checksum}: not the checksum of {file.name}; run the task again")
    written.verified(file.parent)


def quantise(onnx: Path, file: Path, source: EngineSource, images: int, *, has_vnni: bool) -> None:
    """Write the quantised network: weights int8 per channel, activations uint8.

    Without VNNI, sums of 8-bit products saturate in 16 bits, so weights are limited to 7 bits. Raises StageError if the
    network cannot be quantised.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quant_pre_process, quantize_static

    root = logging.getLogger()
    level, part = root.level, file.with_suffix(".part")
    root.setLevel(logging.ERROR)
    try:
        quant_pre_process(str(onnx), str(part), skip_symbolic_shape=True)
        quantize_static(
            str(part),
            str(part),
            Calibration(source, images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=not has_vnni,
        )
        part.rename(file)
    except Exception as error:  # The exceptions of the quantiser, onnx and the runtime have no common base class.
        raise StageError(f"{onnx}: cannot be quantised ({first_line(error)}); leave onnxruntime_int8 out") from error
    finally:
        root.setLevel(level)
        part.unlink(missing_ok=True)


class Calibration:
    """Passes training images to the quantiser, batch by batch."""

    def __init__(self, source: EngineSource, count: int) -> None:
        import onnx

        assert source.onnx is not None
        found = signature_of(onnx.load(source.onnx, load_external_data=False))
        images, batch = source.calibration(count), found.batch or BATCH
        if found.batch:  # The last batch is filled up with the first images.
            images = images[np.arange(-(-len(images) // batch) * batch) % len(images)]
        self._batches: Iterator[dict[str, Any]] = iter(
            [{found.inputs[0].name: images[start : start + batch]} for start in range(0, len(images), batch)]
        )

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch; None after the last."""
        return next(self._batches, None)
