"""Images on the device: crops, memory layout, normalisation and the fixed split."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cnnperf.training.images import DeviceImages, Normalize, split, subset

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 9, 7), dtype=np.uint8)
LABELS = np.arange(6)

layouts = pytest.mark.parametrize("channels_last", [False, True])


@layouts
@pytest.mark.parametrize(("padding", "mode"), [(0, "zeros"), (2, "zeros"), (3, "reflect")])
def test_images_come_back_as_they_were(channels_last: bool, padding: int, mode: str) -> None:
    """The central windows are the images themselves, with any padding and memory layout."""
    images = DeviceImages.load(PIXELS, LABELS, "cpu", channels_last=channels_last, padding=padding, padding_mode=mode)
    batch = images.take(images.positions(torch.tensor([4, 0, 5])))
    assert torch.equal(batch, torch.from_numpy(PIXELS[[4, 0, 5]]))
    assert images.shape == (3, 9, 7)
    assert batch.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@given(
    index=st.integers(0, 5),
    top=st.integers(0, 4),
    left=st.integers(0, 4),
    channels_last=st.booleans(),
    mode=st.sampled_from(["zeros", "reflect"]),
)
def test_a_crop_is_a_window_of_the_padded_image(
    index: int, top: int, left: int, channels_last: bool, mode: str
) -> None:
    """A crop at any corner equals the window of the image padded by NumPy."""
    images = DeviceImages.load(PIXELS, LABELS, "cpu", channels_last=channels_last, padding=2, padding_mode=mode)
    padded = np.pad(PIXELS[index], ((0, 0), (2, 2), (2, 2)), mode="constant" if mode == "zeros" else "reflect")
    (crop,) = images.take(images.positions(torch.tensor([index]), torch.tensor([[top, left]])))
    assert crop.tolist() == padded[:, top : top + 9, left : left + 7].tolist()


@layouts
@pytest.mark.parametrize(
    ("kind", "low", "high"), [("unit", 0.0, 1.0), ("half", -1.0, 1.0), ("dataset", -0.5 / 0.2, 0.5 / 0.2)]
)
def test_normalising_maps_black_and_white(kind: str, low: float, high: float, channels_last: bool) -> None:
    """Normalisation maps 0 and 255 by mean and deviation."""
    images = DeviceImages.load(PIXELS, LABELS, "cpu", channels_last=channels_last)
    normalize = Normalize(kind, (0.5,) * 3, (0.2,) * 3, images)
    batch = torch.zeros(2, 3, 9, 7)
    batch[1] = 255
    dark, bright = normalize(batch)
    assert torch.allclose(dark, torch.tensor(low))
    assert torch.allclose(bright, torch.tensor(high))


def test_each_channel_has_its_own_mean_and_deviation() -> None:
    """Each channel is normalised by its own mean and deviation."""
    images = DeviceImages.load(PIXELS, LABELS, "cpu")
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    got = Normalize("dataset", mean, std, images)(torch.from_numpy(PIXELS).float())
    want = (PIXELS / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert np.allclose(got.numpy(), want, atol=1e-5)


def test_split_is_a_partition_that_does_not_change() -> None:
    """The split is a partition and the same at each call, whatever torch's seed."""
    train, validation = split(100, 30)
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(100))
    assert len(validation) == 30
    assert torch.equal(validation, split(100, 30)[1])
    torch.manual_seed(1)
    assert torch.equal(validation, split(100, 30)[1])


def test_subset_is_fixed_and_inside() -> None:
    """A subset has distinct indices of the given ones, the same each time, or all of them."""
    indices = torch.arange(50) * 2
    chosen = subset(indices, 20)
    assert len(set(chosen.tolist())) == 20
    assert set(chosen.tolist()) <= set(indices.tolist())
    assert torch.equal(chosen, subset(indices, 20))
    assert torch.equal(subset(indices, 50), indices)
