"""Images and labels. One file a dataset; `load(roots, …) -> Dataset`, NumPy arrays mapped from disk, torch unseen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnperf.suite import Provenance


@dataclass(frozen=True, slots=True)
class Dataset:
    """A split dataset; images are uint8 N×C×H×W, labels int64 N."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    mean: tuple[float, ...]
    """Per channel, over the training images scaled to [0, 1]."""
    std: tuple[float, ...]
    classes: tuple[str, ...]
    """Names of the classes, by label."""
    provenance: Provenance
    folder: Path
    """Where the arrays lie; `open_arrays(folder)` maps them again, in any process."""
