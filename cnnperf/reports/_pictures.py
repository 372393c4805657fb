"""Test images for the page as data URIs: a few classified correctly and more classified incorrectly."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cnnperf.errors import CnnperfWarning, shorten
from cnnperf.record import Artifact
from cnnperf.tables.predictions import ExampleRow

RIGHT, WRONG = 4, 12
"""Number of images shown of each kind."""


def pictured(rows: Sequence[ExampleRow]) -> list[ExampleRow]:
    """Return the rows of one task's examples that are shown, the wrong ones first."""
    is_right = [row.label == row.prediction for row in rows]
    right = [row for row, yes in zip(rows, is_right, strict=True) if yes]
    wrong = [row for row, yes in zip(rows, is_right, strict=True) if not yes]
    return wrong[:WRONG] + right[:RIGHT]


def data_uris(rows: Sequence[ExampleRow], folder: Path) -> list[str]:
    """Encode the images of one task's rows, lossless; none, with a warning, if the artifact is not readable."""
    try:
        with np.load(Artifact(path=rows[0].artifact).verified(folder), allow_pickle=False) as file:
            images = file["image"]
        return [_data_uri(images[row.position]) for row in rows]
    except Exception as error:  # A damaged file has many exceptions, as in `read_examples`.
        reason = shorten(f"{type(error).__name__}: {error}")
        warnings.warn(f"test images are left out: {reason}", CnnperfWarning, stacklevel=2)
        return []


def _data_uri(image: Any) -> str:
    """Encode one image, uint8 C×H×W with one channel or three."""
    pixels = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1)
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "WEBP", lossless=True, method=0)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
