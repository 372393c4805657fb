"""Augmented batches: the effect of each option on the images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cnnperf.training.augment import WHOLE, Batches, Part, cut_out, turn_grey
from cnnperf.training.images import DeviceImages, Normalize
from cnnperf.training.recipe import Recipe

COUNT = 40
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 3, 8, 8), dtype=np.uint8)


def batches(seed: int = 0, channels_last: bool = False, part: Part = WHOLE, **settings: Any) -> Batches:
    """Return batches of 8 of 40 images, labelled by their indices and scaled to [0, 1]."""
    recipe = Recipe.resolve({}, {"batch_size": 8, "normalize": "unit"}, settings)
    images = DeviceImages.load(
        PIXELS, np.arange(COUNT), "cpu", channels_last=channels_last, padding=recipe.crop, padding_mode="reflect"
    )
    normalize = Normalize(recipe.normalize, (0,) * 3, (1,) * 3, images)
    return Batches(images, torch.arange(COUNT), recipe, normalize, seed, part)


def epoch(source: Batches, steps: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images of an epoch as 0 … 255, sorted by label, and the labels in their original order."""
    images, labels = (torch.cat(part) for part in zip(*(next(source) for _ in range(steps)), strict=True))
    return (images * 255).round().to(torch.uint8)[labels.argsort()], labels


def mirrored(images: torch.Tensor) -> list[bool]:
    """Return which images were mirrored; each must be unchanged or mirrored."""
    plain = torch.from_numpy(PIXELS)
    same, flipped = ((images == other).flatten(1).all(1) for other in (plain, plain.flip(3)))
    assert (same ^ flipped).all()
    return flipped.tolist()


@pytest.mark.parametrize("channels_last", [False, True])
def test_an_epoch_is_every_image_once(channels_last: bool) -> None:
    """Without augmentation an epoch has every image unchanged, in another order each time."""
    source = batches(channels_last=channels_last)
    orders = []
    for number in range(2):
        images, labels = epoch(source)
        assert source.epoch == number
        assert torch.equal(images, torch.from_numpy(PIXELS))
        assert sorted(labels.tolist()) == list(range(COUNT))
        orders.append(labels.tolist())
    assert orders[0] != orders[1]


def test_last_partial_batch_is_dropped() -> None:
    """40 images give two batches of 15, and the third batch is of the next epoch."""
    source = batches(batch_size=15)
    sizes = [len(next(source)[1]) for _ in range(3)]
    assert sizes == [15, 15, 15]
    assert source.epoch == 1


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("flip", ["random", "alternating"])
def test_the_parts_of_several_processes_are_disjoint_and_cover_each_batch(size: int, flip: str) -> None:
    """The parts of a batch have equal lengths, and together its images, each augmented as in the whole batch."""
    settings = {"flip": flip, "crop": 2, "cutout": 3, "grayscale": 0.5}
    whole = batches(3, **settings)
    parts = [batches(3, part=Part(rank, size), **settings) for rank in range(size)]
    for _ in range(7):  # More than an epoch.
        images, labels = next(whole)
        of_parts = [next(part) for part in parts]
        assert [len(part) for _, part in of_parts] == [8 // size] * size
        found = torch.cat([part for _, part in of_parts])
        assert sorted(found.tolist()) == sorted(labels.tolist())
        assert len(set(found.tolist())) == 8
        places = [labels.tolist().index(label) for label in found.tolist()]
        assert torch.equal(torch.cat([part for part, _ in of_parts]), images[places])


@pytest.mark.parametrize("channels_last", [False, True])
def test_random_flip_mirrors_about_half(channels_last: bool) -> None:
    """The random flip mirrors about half of the images, other ones in each epoch."""
    source = batches(flip="random", channels_last=channels_last)
    first, second = (mirrored(epoch(source)[0]) for _ in range(2))
    assert 8 < sum(first) < 32
    assert first != second


def test_alternating_flip_shows_every_image_both_ways() -> None:
    """The alternating flip mirrors each image in every other epoch, about half of them in the first."""
    source = batches(flip="alternating")
    first, second, third = (mirrored(epoch(source)[0]) for _ in range(3))
    assert 8 < sum(first) < 32
    assert second == [not flipped for flipped in first]
    assert third == first


def test_crops_are_windows() -> None:
    """Every crop is a window of the padded image, at varying places."""
    images, _ = epoch(batches(crop=2))
    padded = np.pad(PIXELS, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    corners = set()
    for image, around in zip(images.numpy(), padded, strict=True):
        found = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if (around[:, top : top + 8, left : left + 8] == image).all()
        ]
        assert found
        corners.add(found[0])
    assert {top for top, _ in corners} == {left for _, left in corners} == set(range(5))


def test_grayscale_is_as_frequent_as_asked() -> None:
    """About half of the images are grey at a probability of 0.5, and the others are unchanged."""
    images, _ = epoch(batches(grayscale=0.5))
    grey = (images == images[:, :1]).flatten(1).all(1)
    assert 8 < int(grey.sum()) < 32
    assert torch.equal(images[~grey], torch.from_numpy(PIXELS)[~grey])


def test_grey_is_the_luma() -> None:
    """A grey image is the luma of ITU-R BT.601, and the other images are unchanged."""
    images = torch.rand(4, 3, 5, 6).contiguous(memory_format=torch.channels_last)
    before = images.clone()
    turn_grey(images, torch.tensor([True, False, True, False]))
    luma = 0.299 * before[:, 0] + 0.587 * before[:, 1] + 0.114 * before[:, 2]
    for channel in range(3):
        assert torch.allclose(images[[0, 2], channel], luma[[0, 2]])
    assert torch.equal(images[[1, 3]], before[[1, 3]])


@given(row=st.integers(0, 7), column=st.integers(0, 9), side=st.integers(1, 12))
def test_cutout_blanks_a_clipped_square(row: int, column: int, side: int) -> None:
    """Cutout blanks the square around its centre in all channels, clipped at the border."""
    images = torch.ones(2, 3, 8, 10)
    cut_out(images, torch.tensor([[row, column], [0, 0]]), side)
    top, left = row - side // 2, column - side // 2
    want = torch.ones(8, 10)
    want[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
    assert torch.equal(images[0], want.expand(3, 8, 10))


def test_same_seed_gives_the_same_batches() -> None:
    """The seed alone decides the batches, and torch's random state is unchanged."""
    everything = {"flip": "random", "crop": 2, "cutout": 3, "grayscale": 0.3}
    first = next(batches(seed=1, **everything))[0]
    state = torch.random.get_rng_state()
    second, other = (next(batches(seed=seed, **everything))[0] for seed in (1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.random.get_rng_state())
