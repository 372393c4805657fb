"""Synthetic images: any shape, the same bytes on every machine, and classes that single pixels do not separate."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from cnnperf import datasets, registry
from cnnperf.datasets import Dataset, Roots, synthetic

SIDES = st.integers(1, 12)


@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 4), SIDES, SIDES),
    train=st.integers(1, 40),
    test=st.integers(1, 20),
    num_classes=st.integers(2, 12),
    seed=st.integers(0, 2**31 - 1),
)
def test_options_decide_every_byte(
    shape: tuple[int, int, int], train: int, test: int, num_classes: int, seed: int
) -> None:
    """Equal options give equal arrays in two caches, with the given shape and counts and balanced classes."""
    options = {"shape": shape, "train": train, "test": test, "num_classes": num_classes, "seed": seed}
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        dataset = synthetic.load(Roots(cache=Path(first)), None, **options)
        again = synthetic.load(Roots(cache=Path(second)), None, **options)

        assert dataset.provenance == again.provenance
        assert dataset.train_images.shape == (train, *shape)
        assert dataset.test_images.shape == (test, *shape)
        counts = np.bincount(dataset.train_labels, minlength=num_classes)
        assert counts.size == num_classes == len(dataset.classes)
        assert counts.max() - counts.min() <= 1


def test_bytes_are_the_same_on_every_machine(roots: Roots) -> None:
    """The sha256 of the images belongs to VERSION 1; a change of the data needs a new VERSION."""
    dataset = synthetic.load(roots, None, shape=(3, 16, 16), train=100, test=50)

    assert synthetic.VERSION == 1
    assert dataset.provenance.sha256 == "cfcbe8c3974c3d4f98436204f4e3a91801280f63fc99ad3c8f55379da217212b"


def test_another_seed_is_another_dataset(roots: Roots) -> None:
    """Training images, test images and the images of another seed are all different."""
    first = synthetic.load(roots, None, shape=(1, 16, 16), train=50, test=50)
    second = synthetic.load(roots, None, shape=(1, 16, 16), train=50, test=50, seed=1)

    images = np.concatenate([first.train_images, first.test_images, second.train_images, second.test_images])
    assert len(np.unique(images.reshape(200, -1), axis=0)) == 200


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_classes_are_textures_not_pixels(roots: Roots, shape: tuple[int, int, int]) -> None:
    """The nearest class mean is below 25 % accurate on pixels and above 50 % on spectra."""
    dataset = synthetic.load(roots, None, shape=shape, train=4000, test=1000)

    assert accuracy(dataset, lambda images: images) < 0.25
    assert 0.5 < accuracy(dataset, spectra) < 0.98


def test_chunks_bound_the_memory(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are generated and written in chunks, the last of which is shorter."""
    lengths: list[int] = []
    save = synthetic._arrays.save_images
    monkeypatch.setattr(synthetic._arrays, "chunk_length", lambda _: 8)

    def spy(file: Path, count: int, shape: tuple[int, ...], chunks: object) -> None:
        def counted() -> object:
            for chunk in chunks:
                lengths.append(len(chunk))
                yield chunk

        save(file, count, shape, counted())

    monkeypatch.setattr(synthetic._arrays, "save_images", spy)

    synthetic.load(roots, None, shape=(1, 8, 8), train=20, test=10)

    assert lengths == [8, 8, 4, 8, 2]


@pytest.mark.parametrize(
    "wrong",
    [{"shape": [3, 0, 32]}, {"shape": [3, 32]}, {"train": 0}, {"num_classes": 1}, {"seed": -1}, {"count": 5}],
)
def test_options_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    """Options out of range are refused when they are validated."""
    options = registry.options(synthetic.load, datasets.GIVEN)

    assert options(shape=[1, 28, 28]).shape == (1, 28, 28)
    with pytest.raises(ValidationError):
        options(**wrong)


def test_a_stand_in_says_so(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replacement of a dataset has its counts, shape and number of classes, and stores the reason."""
    asked: dict[str, object] = {}
    load = synthetic.load

    def small(roots: Roots, progress: None, **options: int) -> Dataset:
        asked.update(options)
        return load(roots, progress, **options | {"train": 20, "test": 10})

    monkeypatch.setattr(synthetic, "load", small)

    dataset = synthetic.stand_in(roots, "mnist", "no connection")

    assert asked == {"shape": (1, 28, 28), "train": 60_000, "test": 10_000, "num_classes": 10}
    assert dataset.provenance.name == "synthetic"
    assert dataset.provenance.fallback == "no connection"
    assert datasets.open_arrays(dataset.folder, dataset.provenance).provenance.fallback == "no connection"


def accuracy(dataset: Dataset, features: object) -> float:
    """Return the test accuracy of the nearest class mean on features of images scaled to [0, 1]."""
    train, test = features(dataset.train_images / 255), features(dataset.test_images / 255)
    train, test = train.reshape(len(train), -1), test.reshape(len(test), -1)
    means = np.stack([train[dataset.train_labels == label].mean(axis=0) for label in range(len(dataset.classes))])
    distances = (means**2).sum(axis=1) - 2 * test @ means.T
    return float((distances.argmin(axis=1) == dataset.test_labels).mean())


def spectra(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the amplitude spectra of images without their brightness, each scaled to length one."""
    gray = images.mean(axis=1)
    amplitude = np.abs(np.fft.rfft2(gray - gray.mean(axis=(1, 2), keepdims=True)))
    return amplitude / np.linalg.norm(amplitude, axis=(1, 2), keepdims=True)
