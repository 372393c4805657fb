"""MNIST, decoded from its verified raw files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnnperf.datasets import Roots, mnist


def test_images_and_labels_are_those_of_the_files(roots: Roots, mnist_root: Path) -> None:
    """Images are 1×28×28 in the order of the file; labels are int64; the classes are the digits."""
    dataset = mnist.load(replace(roots, environment=mnist_root), None)

    raw = (mnist_root / "MNIST" / "raw" / "train-images-idx3-ubyte").read_bytes()
    assert dataset.train_images.tobytes() == raw[16:]
    assert dataset.train_images.shape == (20, 1, 28, 28)
    assert dataset.test_images.shape == (10, 1, 28, 28)
    assert dataset.test_labels.tolist() == list(range(10))
    assert dataset.train_labels.dtype == np.int64
    assert dataset.classes == tuple("0123456789")
    assert dataset.provenance.source == "$CNNPERF_DATA"


def test_an_unverified_processed_file_is_not_read(roots: Roots, mnist_root: Path) -> None:
    """The `processed/*.pt` files of old torchvision are not read."""
    processed = mnist_root / "MNIST" / "processed"
    processed.mkdir()
    (processed / "training.pt").write_bytes(b"not a tensor")
    (processed / "test.pt").write_bytes(b"not a tensor")

    assert len(mnist.load(replace(roots, data=mnist_root), None).train_images) == 20


@pytest.mark.realdata
def test_the_real_mnist(real_roots: Roots) -> None:
    """The real MNIST has the published counts, first labels and statistics, and the known sha256."""
    dataset = mnist.load(real_roots, None)

    assert dataset.provenance.sha256 == "1e35582d42a90940c55b956deb61875c020b567ed20e3c5b174f52bf7809ed9b"
    assert dataset.train_images.shape == (60_000, 1, 28, 28)
    assert dataset.test_images.shape == (10_000, 1, 28, 28)
    assert dataset.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert dataset.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert dataset.mean == pytest.approx((0.1307,), abs=5e-5)
    assert dataset.std == pytest.approx((0.3081,), abs=5e-5)
