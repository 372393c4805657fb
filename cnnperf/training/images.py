"""Images on the network's device: uint8, loaded once; batches are selected by index and normalised when used."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnnperf.training.recipe import mean_and_deviation

SPLIT_SEED = 20_240_901
"""Seed of the validation images and test subsets, the same for every repeat, model and machine."""


@dataclass(frozen=True, slots=True)
class DeviceImages:
    """A split of a dataset on the device."""

    windows: Tensor
    """View of the pixels: every window of an image's size (C×H×W; H×W×C if channels_last), by its first pixel."""
    labels: Tensor
    strides: tuple[int, int, int]
    """Strides of the images, rows and columns in the windows' first dimension."""
    padding: int
    """Padding around each image in pixels; a crop's corner lies between 0 and twice this."""
    channels_last: bool

    @classmethod
    def load(
        cls,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        device: str,
        *,
        channels_last: bool = False,
        padding: int = 0,
        padding_mode: str = "zeros",
    ) -> DeviceImages:
        """Put N×C×H×W images and N labels on the device, padded on all four sides.

        Arrays mapped from disk are read completely, so that no step waits for the disk.
        """
        _, channels, height, width = images.shape
        sides = ((0, 0), (padding, padding), (padding, padding))
        if channels_last:
            images = images.transpose(0, 2, 3, 1)
        if padding:
            around = (*sides, (0, 0)) if channels_last else ((0, 0), *sides)
            images = np.pad(images, around, mode="constant" if padding_mode == "zeros" else "reflect")
        images = np.ascontiguousarray(images)
        pixels = torch.from_numpy(images).to(device)
        pixels.view(-1)[:: mmap.PAGESIZE].sum()
        image, *inner = pixels.stride()
        row, column = inner[:2] if channels_last else inner[1:]
        shape = (height, width, channels) if channels_last else (channels, height, width)
        span = 1 + sum((size - 1) * stride for size, stride in zip(shape, inner, strict=True))
        return cls(
            windows=pixels.as_strided((pixels.numel() - span + 1, *shape), (1, *inner)),
            labels=torch.from_numpy(labels).to(device),
            strides=(image, row, column),
            padding=padding,
            channels_last=channels_last,
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """C×H×W of one image."""
        first, second, third = self.windows.shape[1:]
        return (third, first, second) if self.channels_last else (first, second, third)

    def positions(self, indices: Tensor, corners: Tensor | None = None) -> Tensor:
        """Return the first pixels of the windows of N images.

        corners: N×2, row and column in the padded image; default: the image without padding.
        """
        image, row, column = self.strides
        if corners is None:
            return indices * image + self.padding * (row + column)
        return indices * image + corners[:, 0] * row + corners[:, 1] * column

    def take(self, positions: Tensor) -> Tensor:
        """Copy windows as uint8 N×C×H×W, in the memory layout of the images."""
        # index_select copies row by row; indexing with brackets copies element by element, ten times slower.
        batch = self.windows.index_select(0, positions)
        return batch.permute(0, 3, 1, 2) if self.channels_last else batch


class Normalize:
    """Scales and shifts float images of 0 … 255 per channel to the network's input range."""

    def __init__(self, kind: str, mean: Sequence[float], std: Sequence[float], images: DeviceImages) -> None:
        """`mean` and `std` are the dataset's, of pixels in [0, 1]; `kind` is the recipe's `normalize`."""
        mean, std = mean_and_deviation(kind, mean, std)
        # Constants with the full image shape: broadcasting over three channels would take five times as long.
        like = images.take(torch.zeros(1, dtype=torch.int64, device=images.labels.device))
        self._scale = torch.empty_like(like, dtype=torch.float32)
        self._shift = torch.empty_like(self._scale)
        for channel, (center, width) in enumerate(zip(mean, std, strict=True)):
            self._scale[:, channel] = 1 / (255 * width)
            self._shift[:, channel] = -center / width
        self._shifted = any(mean)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise N×C×H×W images in place and return them."""
        if not self._shifted:
            return images.mul_(self._scale)
        # One pass over the pixels; a product and a sum would need two.
        return torch.addcmul(self._shift, images, self._scale, out=images)


def split(count: int, validation: int) -> tuple[Tensor, Tensor]:
    """Divide the indices of `count` images at random into training and validation indices, each sorted."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))
    return order[validation:].sort().values, order[:validation].sort().values


def subset(indices: Tensor, count: int) -> Tensor:
    """Return a fixed random choice of `count` of the indices, or all if there are fewer."""
    return indices if count >= len(indices) else indices[split(len(indices), count)[1]]
