"""MNIST: 60,000 + 10,000 handwritten digits, 1×28×28 (LeCun, Cortes & Burges, http://yann.lecun.com/exdb/mnist/)."""

from __future__ import annotations

from pathlib import Path

from cnnperf.datasets import Dataset, Progress, Roots
from cnnperf.datasets._arrays import Arrays
from cnnperf.datasets._torchvision import Downloadable

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""md5 of the decompressed files; torchvision knows only those of the archives."""


def load(roots: Roots, progress: Progress | None) -> Dataset:
    """Return MNIST from the first root that contains it, else download it; `progress=None` forbids the download.

    Images are 1×28×28. Raises DataError if a file does not match its md5, DownloadError if the download fails.
    """
    return SOURCE.load(roots, progress)


def _decode(folder: Path) -> Arrays:
    # torchvision's MNIST class is not used: it prefers an unverified `processed/training.pt` if there is one.
    from torchvision.datasets.mnist import read_image_file, read_label_file

    return {
        "train_images": read_image_file(str(folder / "train-images-idx3-ubyte")).unsqueeze(1).numpy(),
        "train_labels": read_label_file(str(folder / "train-labels-idx1-ubyte")).numpy(),
        "test_images": read_image_file(str(folder / "t10k-images-idx3-ubyte")).unsqueeze(1).numpy(),
        "test_labels": read_label_file(str(folder / "t10k-labels-idx1-ubyte")).numpy(),
    }


SOURCE = Downloadable(
    name="mnist",
    torchvision_class="MNIST",
    folder=Path("MNIST/raw"),
    shape=(1, 28, 28),
    train_count=60_000,
    test_count=10_000,
    classes=tuple("0123456789"),
    download_bytes=11_594_722,
    checksums=lambda: MD5,
    decode=_decode,
)
