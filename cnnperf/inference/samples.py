"""The same input bytes for every engine, and what torch computes from them; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnnperf.training.recipe import normalization_of

if TYPE_CHECKING:
    from cnnperf.bench import Bench
    from cnnperf.datasets import Dataset

TEST_SEED = 20_240_902
"""Draws the test images: the same for every engine, model and machine."""
TEST_IMAGES = 2000
"""Test images that every engine classifies, unless the suite says otherwise."""
QUICK_TEST_IMAGES = 500
GOLDEN_IMAGES = 64
"""Of them, those that torch computes in float64 too."""
LAYER_IMAGES = 4
"""Of them, those of which every value between images and logits is kept."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """A dataset's images as the network is given them: float32 N×C×H×W."""

    dataset: Dataset
    scale: NDArray[np.float32]
    """C×1×1, as is the shift: of pixels in 0 … 255."""
    shift: NDArray[np.float32]

    @classmethod
    def of(cls, bench: Bench) -> Inputs:
        """Normalise as the training did; to the dataset's mean and deviation where there was none."""
        data = bench.dataset
        trained = bench.maker("weights")
        kind = normalization_of(trained.task.settings if trained else {})
        same = {"half": 0.5, "unit": 0.0}.get(kind)
        mean = np.array(data.mean if same is None else [same] * len(data.mean))
        std = np.array(data.std if same is None else [same or 1.0] * len(data.std))
        scale, shift = 1 / (255 * std), -mean / std
        return cls(data, scale.astype(np.float32)[:, None, None], shift.astype(np.float32)[:, None, None])

    def test(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return test images."""
        return self._normalised(self.dataset.test_images[indices])

    def train(self, count: int) -> NDArray[np.float32]:
        """Return the same few training images each time."""
        chosen = np.random.default_rng(TEST_SEED).permutation(len(self.dataset.train_labels))[:count]
        return self._normalised(self.dataset.train_images[np.sort(chosen)])

    def batch(self, size: int) -> NDArray[np.float32]:
        """Return a batch of test images, repeated where there are not as many."""
        return self.test(np.arange(size) % len(self.dataset.test_labels))

    def _normalised(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.ascontiguousarray(images * self.scale + self.shift)


@dataclass(frozen=True, slots=True)
class Golden:
    """What torch computes from a fixed choice of test images, the first GOLDEN_IMAGES of them in float64 too."""

    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    """N×classes."""
    exact: NDArray[np.float64]
    """GOLDEN_IMAGES×classes."""

    def first(self, count: int) -> Golden:
        """Return what is known of the first so many images, or of all where there are no more."""
        return Golden(self.indices[:count], self.labels[:count], self.logits[:count], self.exact[:count])

    def save(self, path: Path) -> None:
        """Write it for the engines that are not torch's."""
        np.savez(path, indices=self.indices, labels=self.labels, logits=self.logits, exact=self.exact)

    @classmethod
    def read(cls, path: Path) -> Golden:
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            return cls(**arrays)


@dataclass(frozen=True, slots=True)
class LayerValue:
    """One value of the exported graph, such as a layer's output."""

    exact: NDArray[np.float32]
    """Computed in float64 from the first LAYER_IMAGES images, then rounded: to less than any error that is told."""
    own_error: float
    """The largest error of the graph's own run in float32, before any optimisation; of `exact`'s largest entry."""

    def error(self, found: NDArray[np.float32]) -> float:
        """Return how far a value lies from this one at most, as a share of this one's largest entry."""
        return float(np.abs(found - self.exact.astype(np.float64)).max() / np.abs(self.exact).max())


def save_values(values: Mapping[str, LayerValue], path: Path) -> None:
    """Write the values of a graph by their names, which may hold any character."""
    arrays = {f"value{i}": value.exact for i, value in enumerate(values.values())}
    errors = [value.own_error for value in values.values()]
    np.savez_compressed(path, names=np.array(list(values)), own_errors=np.array(errors), **arrays)  # type: ignore[arg-type]


def read_values(path: Path) -> dict[str, LayerValue]:
    """Read what `save_values` wrote."""
    with np.load(path) as arrays:
        known = zip(arrays["names"].tolist(), arrays["own_errors"].tolist(), strict=True)
        return {name: LayerValue(arrays[f"value{i}"], error) for i, (name, error) in enumerate(known)}


def chosen_images(count: int, of: int) -> NDArray[np.int64]:
    """Return the indices of the test images that engines classify; a larger choice begins with a smaller one."""
    return np.random.default_rng(TEST_SEED).permutation(of)[:count]
