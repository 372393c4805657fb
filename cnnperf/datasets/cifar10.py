"""CIFAR-10: 50,000 + 10,000 photographs in ten classes, 3×32×32 (Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cnnperf.datasets import Dataset, Progress, Roots
from cnnperf.datasets._arrays import Arrays
from cnnperf.datasets._torchvision import Downloadable

MIRRORED = True
"""A mirrored image has the same class."""


def load(roots: Roots, progress: Progress | None) -> Dataset:
    """Return CIFAR-10 from the first root that contains it, else download it; `progress=None` forbids the download.

    Images are 3×32×32. Raises DataError if a file does not match its md5, DownloadError if the download fails.
    """
    return SOURCE.load(roots, progress)


def _checksums() -> Mapping[str, str]:
    from torchvision.datasets import CIFAR10

    return dict([*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])])


def _decode(folder: Path) -> Arrays:
    from torchvision.datasets import CIFAR10

    arrays: Arrays = {}
    for split in ("train", "test"):
        dataset = CIFAR10(folder.parent, train=split == "train")
        arrays[f"{split}_images"] = dataset.data.transpose(0, 3, 1, 2)
        arrays[f"{split}_labels"] = dataset.targets
    return arrays


SOURCE = Downloadable(
    name="cifar10",
    torchvision_class="CIFAR10",
    folder=Path("cifar-10-batches-py"),
    shape=(3, 32, 32),
    train_count=50_000,
    test_count=10_000,
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    download_bytes=170_498_071,
    checksums=_checksums,
    decode=_decode,
)
