"""CIFAR-10, decoded from its batches with channels first."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnnperf.datasets import Roots, cifar10


def test_images_and_labels_are_those_of_the_batches(roots: Roots, cifar_root: Path) -> None:
    """Images are 3×32×32 in the order of the batches, C-contiguous; labels are int64."""
    dataset = cifar10.load(replace(roots, data=cifar_root), None)

    with (cifar_root / "cifar-10-batches-py" / "data_batch_2").open("rb") as file:
        second = pickle.load(file)["data"].reshape(20, 3, 32, 32)
    assert np.array_equal(dataset.train_images[20:40], second)
    assert dataset.train_images.flags.c_contiguous
    assert dataset.train_images.shape == (100, 3, 32, 32)
    assert dataset.test_images.shape == (20, 3, 32, 32)
    assert dataset.test_labels.tolist() == [*range(10), *range(10)]
    assert dataset.train_labels.dtype == np.int64
    assert dataset.provenance.source == "--data"


@pytest.mark.realdata
def test_the_real_cifar10(real_roots: Roots) -> None:
    """The real CIFAR-10 has the published counts, class balance, labels and statistics, and the known sha256."""
    dataset = cifar10.load(real_roots, None)

    assert dataset.provenance.sha256 == "9048fcbac9c08a64d57a7c5a5a66750a974ad4eab380914df129f7e223d823df"
    assert dataset.train_images.shape == (50_000, 3, 32, 32)
    assert dataset.test_images.shape == (10_000, 3, 32, 32)
    assert np.bincount(dataset.train_labels).tolist() == [5_000] * 10
    assert np.bincount(dataset.test_labels).tolist() == [1_000] * 10
    assert [dataset.classes[label] for label in dataset.train_labels[:3]] == ["frog", "truck", "truck"]
    assert dataset.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=5e-5)
    assert dataset.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=5e-5)
    names = pickle.loads((real_roots.environment / "cifar-10-batches-py" / "batches.meta").read_bytes())
    assert dataset.classes == tuple(names["label_names"])
