"""Image files of your own, in the layout of torchvision's ImageFolder: `train/<class>/` and `test/<class>/`."""

from __future__ import annotations

from typing import Literal

from cnnperf.datasets import Dataset, Progress, Roots, _own
from cnnperf.datasets._arrays import SideLength


def load(
    roots: Roots,
    progress: Progress | None,
    *,
    path: str,
    size: tuple[SideLength, SideLength] | None = None,
    channels: Literal[1, 3] = 3,
    train: str = "train",
    test: str = "test",
) -> Dataset:
    """Return the images of a folder, decoded once.

    path: absolute, or relative to one of the roots or, after them, to the working directory. Other
    options: as for `cnnperf.datasets.from_folder`. Raises DataError for a folder that is not of that form.
    """
    source, folder = _own.searched(path, roots)
    return _own.folder("folder", folder, _own.Form(size, channels), (train, test), source, roots)
