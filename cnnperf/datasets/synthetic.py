"""Synthetic images: gratings whose direction and period depend on the class; phase, colour and contrast are random.

Integer arithmetic makes the bytes of a seed equal on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cnnperf.datasets import Dataset, Progress, Roots, _arrays, files_of, open_arrays
from cnnperf.datasets._arrays import SideLength

ImageCount = Annotated[int, Field(ge=1, le=10_000_000)]

VERSION = 1
"""Part of the cache key; to be incremented with every change of the generated images."""
TURN = 1024
"""Steps of phase in a full turn."""
PERIODS = (8, 4)
"""Periods in pixels; consecutive classes alternate between them, at the same direction."""
VARIANTS = 16
"""Slightly turned waves within a class."""
NOISE = 80
"""Maximum deviation of a pixel, out of 255."""


@dataclass(frozen=True, slots=True)
class SyntheticOptions:
    """Settings that determine every byte."""

    shape: tuple[int, int, int]
    train: int
    test: int
    num_classes: int
    seed: int

    @property
    def key(self) -> str:
        """Name of the cache folder."""
        shape = "x".join(map(str, self.shape))
        return f"synthetic-v{VERSION}-{shape}-{self.train}-{self.test}-{self.num_classes}-{self.seed}"


def load(
    roots: Roots,
    progress: Progress | None,
    *,
    shape: tuple[SideLength, SideLength, SideLength] = (3, 32, 32),
    train: ImageCount = 10_000,
    test: ImageCount = 2_000,
    num_classes: Annotated[int, Field(ge=2, le=1000)] = 10,
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0,
) -> Dataset:
    """Return generated images of any shape C×H×W, equal for equal options, from the cache if available.

    Classes are balanced to within one image. Raises DataError if the cache cannot be written.
    """
    settings = SyntheticOptions(shape, train, test, num_classes, seed)
    folder = roots.arrays / settings.key
    classes = tuple(f"texture {label}" for label in range(num_classes))
    maker = _arrays.ArraysMaker(
        name="synthetic",
        source=f"generated from seed {seed}",
        classes=classes,
        write=lambda fresh: _write(settings, fresh),
    )
    return open_arrays(_arrays.ensured(folder, maker))


def stand_in(roots: Roots, name: str, reason: str) -> Dataset:
    """Return synthetic images with the shape, counts and number of classes of an unavailable dataset.

    The provenance is named `synthetic`, with the reason in `fallback`. Raises DataError if the cache cannot be written.
    """
    like = files_of(name)
    dataset = load(
        roots,
        None,
        shape=like.shape,
        train=like.train_count,
        test=like.test_count,
        num_classes=len(like.classes),
    )
    return replace(dataset, provenance=dataset.provenance.model_copy(update={"fallback": reason}))


def _write(settings: SyntheticOptions, folder: Path) -> None:
    waves = _waves(settings.num_classes)
    for split, (name, count) in enumerate((("train", settings.train), ("test", settings.test))):
        random = np.random.Generator(np.random.PCG64([settings.seed, split]))
        labels = random.permutation(np.arange(count, dtype=np.int64) % settings.num_classes)
        np.save(folder / f"{name}_labels.npy", labels)
        chunks = _images(random, waves, labels, settings.shape)
        _arrays.save_images(folder / f"{name}_images.npy", count, settings.shape, chunks)


def _waves(num_classes: int) -> NDArray[np.int32]:
    """Return the wave vectors of each class's variants, class × variant × (y, x), in steps of phase per pixel."""
    spacing = math.pi / math.ceil(num_classes / len(PERIODS))
    waves = np.empty((num_classes, VARIANTS, 2), np.int32)
    for label in range(num_classes):
        direction, period = divmod(label, len(PERIODS))
        for variant in range(VARIANTS):
            angle = spacing * (direction + 0.6 * (variant / (VARIANTS - 1) - 0.5))
            steps = TURN / PERIODS[period]
            waves[label, variant] = round(steps * math.sin(angle)), round(steps * math.cos(angle))
    return waves


def _images(
    random: np.random.Generator, waves: NDArray[np.int32], labels: NDArray[np.int64], shape: tuple[int, int, int]
) -> Iterator[NDArray[np.uint8]]:
    """Yield the images of these labels, N×C×H×W, in chunks."""
    channels, height, width = shape
    cosine = np.array([round(127 * math.cos(2 * math.pi * step / TURN)) for step in range(TURN)], np.int16)
    y, x = np.arange(height, dtype=np.int32)[:, None], np.arange(width, dtype=np.int32)
    length = _arrays.chunk_length(shape)
    for start in range(0, len(labels), length):
        chunk = labels[start : start + length]
        count = len(chunk)
        wave = waves[chunk, random.integers(VARIANTS, size=count)][:, :, None, None]
        phase = wave[:, 0] * y + wave[:, 1] * x + random.integers(TURN, size=(count, 1, 1), dtype=np.int32)
        contrast = random.integers(16, 256, size=(count, 1, 1, 1), dtype=np.int16)
        tint = random.integers(64, 256, size=(count, channels, 1, 1), dtype=np.int16)
        brightness = random.integers(80, 176, size=(count, channels, 1, 1), dtype=np.int16)
        noise = random.integers(256, size=(count, *shape), dtype=np.uint8).astype(np.int16) - 128
        images = cosine[phase & (TURN - 1)][:, None] * (contrast.astype(np.int32) * tint >> 8).astype(np.int16) >> 8
        images += brightness
        images += noise * NOISE >> 7
        yield images.clip(0, 255).astype(np.uint8)
