"""The same input bytes for every engine, and torch's outputs for them; this module does not import torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cnnperf.training.recipe import mean_and_deviation, normalization_of

if TYPE_CHECKING:
    from cnnperf.bench import Bench
    from cnnperf.datasets import Dataset

TEST_SEED = 20_240_902
"""Seed of the choice of test images, the same for every engine, model and machine."""
TEST_IMAGES = 2000
"""Default number of test images that every engine classifies."""
QUICK_TEST_IMAGES = 500
TEST_BATCH = 100
"""Number of these images that are computed at once."""
GOLDEN_IMAGES, FEWEST_GOLDEN = 64, 8
"""Number of these images that are also computed in float64, and the fewest of large images."""
GOLDEN_PIXELS = GOLDEN_IMAGES * 3 * 64 * 64
"""Number of values in these images above which they are fewer, since float64 is slow."""
LAYER_IMAGES = 4
"""Number of these images whose intermediate values are stored."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """A dataset's images as network input: float32 N×C×H×W."""

    dataset: Dataset
    scale: NDArray[np.float32]
    """C×1×1, as is the shift: of pixels in 0 … 255."""
    shift: NDArray[np.float32]
    are_pixels: bool = False
    """Whether the network takes the pixels themselves, in uint8."""

    @classmethod
    def of(cls, bench: Bench) -> Inputs:
        """Normalise as in the training; without a training, by the dataset's mean and standard deviation."""
        data = bench.dataset
        trained = bench.maker("weights")
        kind = normalization_of(trained.task.settings if trained else {})
        mean, std = (np.array(each) for each in mean_and_deviation(kind, data.mean, data.std))
        scale, shift = 1 / (255 * std), -mean / std
        return cls(data, scale.astype(np.float32)[:, None, None], shift.astype(np.float32)[:, None, None])

    def test(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Return test images."""
        return self._taken(self.dataset.test_images[indices])

    def train(self, count: int) -> NDArray[Any]:
        """Return a fixed choice of training images."""
        chosen = np.random.default_rng(TEST_SEED).permutation(len(self.dataset.train_labels))[:count]
        return self._taken(self.dataset.train_images[np.sort(chosen)])

    def batch(self, size: int) -> NDArray[Any]:
        """Return a batch of test images, repeated if there are too few."""
        return self.test(np.arange(size) % len(self.dataset.test_labels))

    def _taken(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        return np.ascontiguousarray(images if self.are_pixels else images * self.scale + self.shift)


def golden_images(shape: Sequence[int]) -> int:
    """Return the number of images of a shape (C×H×W) that are computed in float64."""
    return max(FEWEST_GOLDEN, min(GOLDEN_IMAGES, GOLDEN_PIXELS // math.prod(shape)))


@dataclass(frozen=True, slots=True)
class Golden:
    """Torch's outputs for a fixed choice of test images, the first `golden_images` also in float64."""

    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    """N×classes."""
    exact: NDArray[np.float64]
    """Logits of the first images, one row each."""

    def first(self, count: int) -> Golden:
        """Return the reference of the first `count` images, or of all if there are fewer."""
        return Golden(self.indices[:count], self.labels[:count], self.logits[:count], self.exact[:count])

    def save(self, path: Path) -> None:
        """Write the reference to a file, for engines without torch."""
        np.savez(path, indices=self.indices, labels=self.labels, logits=self.logits, exact=self.exact)

    @classmethod
    def read(cls, path: Path) -> Golden:
        """Read a file written by `save`."""
        with np.load(path) as arrays:
            return cls(**arrays)


@dataclass(frozen=True, slots=True)
class LayerValue:
    """One value of the exported graph, such as a layer's output."""

    exact: NDArray[np.float32]
    """Value computed in float64 from the first LAYER_IMAGES images, then rounded by less than any reported error."""
    own_error: float
    """Largest error of the graph in float32 before any optimisation, relative to the largest entry of `exact`."""

    def error(self, found: NDArray[np.float32]) -> float:
        """Return the largest error of a value against this one, relative to this one's largest entry."""
        return float(np.abs(found - self.exact.astype(np.float64)).max() / np.abs(self.exact).max())


def save_values(values: Mapping[str, LayerValue], path: Path) -> None:
    """Write the values of a graph by their names, which may contain any character."""
    arrays = {f"value{i}": value.exact for i, value in enumerate(values.values())}
    errors = [value.own_error for value in values.values()]
    np.savez_compressed(path, names=np.array(list(values)), own_errors=np.array(errors), **arrays)  # type: ignore[arg-type]


def read_values(path: Path) -> dict[str, LayerValue]:
    """Read a file written by `save_values`."""
    with np.load(path) as arrays:
        known = zip(arrays["names"].tolist(), arrays["own_errors"].tolist(), strict=True)
        return {name: LayerValue(arrays[f"value{i}"], error) for i, (name, error) in enumerate(known)}


def chosen_images(count: int, of: int) -> NDArray[np.int64]:
    """Return the indices of the test images that engines classify; a larger choice begins with a smaller one."""
    return np.random.default_rng(TEST_SEED).permutation(of)[:count]
