"""Training batches, augmented batch by batch on the images' device; disabled augmentations cost nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cnnperf.training.images import DeviceImages, Normalize
from cnnperf.training.recipe import COLORS

if TYPE_CHECKING:
    from cnnperf.training.recipe import Recipe

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


@dataclass(frozen=True, slots=True)
class Part:
    """The part of every batch that one of several processes takes: every `size`-th image, from that of its rank on."""

    rank: int = 0
    size: int = 1
    """Number of processes."""


WHOLE = Part()


class Batches:
    """An endless sequence of augmented batches, in a new random order for each epoch.

    Random numbers come from a separate CPU generator, one epoch at a time: a seed gives the same batches on every
    device, independent of other random numbers, and no step waits for them. The last, partial batch of an epoch is
    dropped. Each of several processes draws the whole batches, and takes its part of them.
    """

    def __init__(
        self,
        images: DeviceImages,
        indices: Tensor,
        recipe: Recipe,
        normalize: Normalize,
        seed: int,
        part: Part = WHOLE,
    ) -> None:
        """indices: of the training images, on the CPU."""
        self.epoch = -1
        self._images = images
        self._indices = indices
        self._recipe = recipe
        self._normalize = normalize
        self._part = part
        self._generator = torch.Generator().manual_seed(seed)
        self._steps = len(indices) // recipe.batch_size
        self._step = self._steps
        self._parity = self._toss(0.5, len(indices)) if recipe.flip == "alternating" else None
        self._color = images.shape[0] == COLORS

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        """Return normalised float32 images N×C×H×W and their labels."""
        if self._step == self._steps:
            self._draw_epoch()
        step, recipe = self._step, self._recipe
        self._step += 1
        batch = self._images.take(self._positions[step])
        if recipe.flip != "none":
            mirrored = batch[: self._mirrored[step]]
            mirrored.copy_(mirrored.flip(3))
        batch = batch.float()
        if recipe.grayscale and self._color:
            turn_grey(batch, self._grey[step])
        batch = self._normalize(batch)
        if recipe.cutout:
            cut_out(batch, self._centers[step], recipe.cutout)
        return batch, self._labels[step]

    def _draw_epoch(self) -> None:
        self.epoch += 1
        self._step = 0
        recipe, device = self._recipe, self._images.labels.device
        count, size = self._steps * recipe.batch_size, recipe.batch_size
        order = torch.randperm(len(self._indices), generator=self._generator)[:count]
        if recipe.flip != "none":
            # Mirrored images come first in a batch, so that mirroring needs a slice instead of a mask or an index.
            coins = self._toss(0.5, count) if self._parity is None else self._parity[order] ^ bool(self.epoch % 2)
            coins, rank = coins.view(-1, size).sort(dim=1, descending=True, stable=True)
            order = order.view(-1, size).gather(1, rank).flatten()
            # Mirrored images come first in a part, too.
            self._mirrored = [len(range(self._part.rank, each, self._part.size)) for each in coins.sum(dim=1).tolist()]
        indices = self._indices[order]
        corner = self._draw(2 * recipe.crop + 1, 2 * recipe.crop + 1, count) if recipe.crop else None
        self._positions = self._divided(self._images.positions(indices, corner).to(device))
        self._labels = self._divided(self._images.labels[indices.to(device)])
        if recipe.grayscale and self._color:
            self._grey = self._divided(self._toss(recipe.grayscale, count).to(device))
        if recipe.cutout:
            self._centers = self._divided(self._draw(*self._images.shape[1:], count).to(device))

    def _divided(self, values: Tensor) -> tuple[Tensor, ...]:
        """Divide an epoch's values into those of each batch, of which this process takes its part."""
        of_batches = values.view(-1, self._recipe.batch_size, *values.shape[1:])
        return of_batches[:, self._part.rank :: self._part.size].contiguous().unbind()

    def _toss(self, probability: float, count: int) -> Tensor:
        return torch.rand(count, generator=self._generator) < probability

    def _draw(self, rows: int, columns: int, count: int) -> Tensor:
        """Draw `count` points on a grid, N×2."""
        return torch.stack([torch.randint(side, (count,), generator=self._generator) for side in (rows, columns)], 1)


def turn_grey(images: Tensor, chosen: Tensor) -> None:
    """Turn the chosen of N×3×H×W float images to grey, in place."""
    red, green, blue = images.unbind(1)
    grey = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    torch.where(chosen.view(-1, 1, 1, 1), grey.unsqueeze(1), images, out=images)


def cut_out(images: Tensor, centers: Tensor, side: int) -> None:
    """Blank a square in each of N×C×H×W normalised images, in place (DeVries & Taylor 2017).

    centers: N×2, row and column; parts of a square outside the image are ignored.
    """
    first = centers - side // 2
    rows, columns = (
        torch.arange(length, device=images.device) - first[:, axis, None]
        for axis, length in enumerate(images.shape[2:])
    )
    inside_rows, inside_columns = ((rows >= 0) & (rows < side)), ((columns >= 0) & (columns < side))
    images.masked_fill_(inside_rows[:, None, :, None] & inside_columns[:, None, None, :], 0.0)
