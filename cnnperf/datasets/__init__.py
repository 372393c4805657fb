"""Datasets. One file per dataset; `load(roots, progress, *, …) -> Dataset` maps arrays from disk, without torch.

A dataset that is read from files also defines `SOURCE`, used by `available` and `verify`. A dataset whose images may be
mirrored (photos, but not digits) defines `MIRRORED = True`, used by the models' recipes. One dataset defines
`stand_in(roots, name, reason) -> Dataset`, used where another's images are unavailable.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import platformdirs
from numpy.typing import NDArray

from cnnperf import registry
from cnnperf.errors import DataError
from cnnperf.task import Provenance

GIVEN = ("roots", "progress")
"""Parameters of `load` that the caller passes; all others are options."""

Progress = Callable[[str, int, int], None]
"""`progress(name, bytes_done, bytes_total)`: called about once a second while a download's bytes arrive."""


OPTION = "--data"
"""Origin of a folder that the user names; stored in records."""


class DownloadError(DataError):
    """Data is missing and could not be downloaded; `reason` is recorded with the task that runs without it."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Dataset:
    """A split dataset; images are uint8 N×C×H×W, labels int64 N."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    mean: tuple[float, ...]
    """Mean per channel of the training images scaled to [0, 1]."""
    std: tuple[float, ...]
    classes: tuple[str, ...]
    """Names of the classes, by label."""
    provenance: Provenance
    folder: Path
    """Folder of the arrays; `open_arrays(folder)` maps them again, in any process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Folders in which data is searched, and the cache for downloads and arrays."""

    data: Path | None = None
    """`--data`."""
    environment: Path | None = None
    """`$CNNPERF_DATA`."""
    cache: Path
    """The only folder that is written: `data/` for downloads, `arrays/` for decoded or generated arrays."""

    @classmethod
    def from_environment(cls, data: Path | None = None) -> Roots:
        """Return the roots that `--data`, `$CNNPERF_DATA`, `$CNNPERF_CACHE` and the platform's cache folder name.

        Raises DataError if one of them is in a home folder that does not exist.
        """
        environment, cache = os.environ.get("CNNPERF_DATA"), os.environ.get("CNNPERF_CACHE")
        try:
            return cls(
                data=data,
                environment=Path(environment).expanduser() if environment else None,
                cache=Path(cache).expanduser() if cache else platformdirs.user_cache_path("cnnperf"),
            )
        except RuntimeError as error:  # Python's for a user without a home folder, and for the name of no user.
            raise DataError(
                f"no cache folder: {error}; set HOME to a folder, or CNNPERF_CACHE and CNNPERF_DATA to absolute paths"
            ) from error

    @property
    def downloads(self) -> Path:
        """The last root: downloads in torchvision's layout."""
        return self.cache / "data"

    @property
    def arrays(self) -> Path:
        """Folder of the decoded and generated arrays, with a folder per dataset."""
        return self.cache / "arrays"

    def ordered(self) -> tuple[tuple[str, Path], ...]:
        """Return origin and path of each root, first choice first. Raises DataError if a named root does not exist."""
        named = [(OPTION, self.data), ("$CNNPERF_DATA", self.environment)]
        given = [(origin, path) for origin, path in named if path is not None]
        for origin, path in given:
            _require_folder(said(origin), path)
        return (*given, ("cache", self.downloads))


@dataclass(frozen=True, slots=True)
class Availability:
    """The source from which a dataset would be loaded now."""

    origin: str
    """`--data`, `$CNNPERF_DATA`, `cache`; `download` if the files are missing; `generated` if there are no files."""
    path: Path | None
    download_bytes: int


class Files(Protocol):
    """Facts about a dataset's files that `SOURCE` gives without reading them."""

    @property
    def name(self) -> str:
        """Name of the dataset."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """C×H×W."""

    @property
    def train_count(self) -> int:
        """Training images."""

    @property
    def test_count(self) -> int:
        """Test images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""

    def available(self, roots: Roots) -> Availability:
        """Return where the data would come from and the size of the download."""

    def verify(self, roots: Roots) -> str:
        """Check files and cached arrays against their checksums and describe the result. Raises DataError."""


def open_arrays(folder: Path, provenance: Provenance | None = None) -> Dataset:
    """Map the arrays of a loaded dataset in this process, copy-on-write; hash them only if their files have changed.

    provenance: the provenance from `load`, if the caller has it. Arrays with another sha256 are refused. The returned
    dataset has this provenance, which alone shows whether the images are substitutes. Raises DataError, also if arrays
    or metadata were altered since `load`.
    """
    from cnnperf.datasets import _arrays

    meta, arrays = _arrays.opened(folder)
    if provenance and provenance.sha256 != meta.provenance.sha256:
        change = f"expected sha256 {provenance.sha256}, found {meta.provenance.sha256}"
        raise DataError(f"{folder}: the arrays were replaced since the run began, {change}; run again")
    return Dataset(
        **arrays,
        mean=meta.mean,
        std=meta.std,
        classes=meta.classes,
        provenance=provenance or meta.provenance,
        folder=folder,
    )


def available(name: str, roots: Roots) -> Availability:
    """Return where a dataset would come from and the size of its download; loads nothing. Raises DataError."""
    has_files = ":" not in name and hasattr(registry.module("datasets", name), "SOURCE")
    return files_of(name).available(roots) if has_files else Availability("generated", None, 0)


def verify(name: str, roots: Roots) -> str:
    """Check a dataset's files and cached arrays against their checksums and describe the result.

    Raises DataError for the first mismatch, and for a dataset that is missing or has no files.
    """
    return files_of(name).verify(roots)


def files_of(name: str) -> Files:
    """Return a dataset's `SOURCE`. Raises DataError if the dataset has no files."""
    found: Files | None = getattr(registry.module("datasets", name), "SOURCE", None)
    if found is None:
        raise DataError(f"{name}: generated images have no files to fetch or verify; name another dataset")
    return found


def substitute(roots: Roots, name: str, reason: str) -> Dataset:
    """Return images in place of an unavailable dataset, from the dataset that can stand in for others.

    The provenance names that dataset, with the reason in `fallback`. Raises DataError if it cannot be loaded.
    """
    [able] = registry.having("datasets", "stand_in")
    found: Dataset = registry.module("datasets", able).stand_in(roots, name, reason)
    return found


def said(origin: str) -> str:
    """Return an origin as errors name it: the argument `data` of the library for the option of the command line."""
    return "`data`" if origin == OPTION else origin


def _require_folder(origin: str, path: Path) -> None:
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise DataError(f"{origin}: {path} cannot be read ({error.strerror}); name a folder that exists") from error
    if not is_folder:
        raise DataError(f"{origin}: {path} is a file; name the folder that contains MNIST/ or cifar-10-batches-py/")
