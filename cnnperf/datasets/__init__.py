"""Datasets. One file per dataset; `load(roots, progress, *, …) -> Dataset` maps arrays from disk, without torch.

A dataset that is read from files also defines `SOURCE`, used by `available` and `verify`. A dataset whose images may be
mirrored (photos, but not digits) defines `MIRRORED = True`, used by the models' recipes. One dataset defines
`stand_in(roots, name, reason) -> Dataset`, used where another's images are unavailable.

A dataset of another package, `pkg.module:load`, is a function of this kind: it takes `roots` and `progress` if it names
them, and returns what `from_arrays` or `from_folder` returns.
"""

from __future__ import annotations

import inspect
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import platformdirs
from numpy.typing import ArrayLike, NDArray

from cnnperf import registry
from cnnperf.errors import DataError, UsageError, shorten
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
    """`--data`, `$CNNPERF_DATA`, `cache`; `download` if the files are missing; `generated` if none can be fetched."""
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


def from_arrays(
    name: str,
    train_images: ArrayLike,
    train_labels: ArrayLike,
    test_images: ArrayLike,
    test_labels: ArrayLike,
    *,
    classes: Sequence[str] | None = None,
    source: str = "arrays",
    roots: Roots | None = None,
) -> Dataset:
    """Check the arrays of a dataset of your own, cache them, and return the dataset mapped from the cache.

        return from_arrays("fashion", train.data, train.targets, test.data, test.targets, classes=train.classes)

    name: letters, digits, `_`, `-` and `.`; not that of a dataset that ships. images: uint8, N×C×H×W with 1 or 3
    channels, or N×H×W. labels: whole numbers from 0, N. Tensors of the CPU are arrays too. classes: names by label;
    default: the labels. source: where the images come from, for the record. roots: default: those of the environment.
    The cache has a folder for each content, and its arrays a checksum; equal arrays are written once. Raises DataError
    for arrays that do not agree, or if the cache cannot be written.
    """
    from cnnperf.datasets import _own

    images = {"train_images": train_images, "test_images": test_images}
    labels = {"train_labels": train_labels, "test_labels": test_labels}
    return _own.arrays(_own.free_name(name), {**images, **labels}, classes, source, roots or Roots.from_environment())


def from_folder(
    name: str,
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    channels: Literal[1, 3] = 3,
    train: str = "train",
    test: str = "test",
    roots: Roots | None = None,
) -> Dataset:
    """Decode a folder of image files into the cache, and return the dataset mapped from the cache.

    path: contains a folder for each split, and this a folder for each class, as torchvision's ImageFolder reads them:
    `train/cat/1.png`. size: height and width to which each image is scaled and then cropped at its centre; None: all
    images have the same size. channels: 1 for grey, 3 for colour. train, test: names of the folders of the splits.
    name, roots: as for `from_arrays`.
    An unchanged folder (names, sizes and times of its files) is decoded once. Raises DataError for a folder that is not
    of this form, for a file that cannot be decoded, or if the cache cannot be written.
    """
    from cnnperf.datasets import _own

    form = _own.Form(size, channels)
    return _own.folder(
        _own.free_name(name), Path(path), form, (train, test), str(path), roots or Roots.from_environment()
    )


def load_named(name: str, roots: Roots, progress: Progress | None, options: Mapping[str, Any]) -> Dataset:
    """Load a dataset by its name in suites; the verb is given those of roots and progress that it names.

    Raises DataError, and UsageError for code of another package that fails or returns no dataset.
    """
    named = inspect.signature(registry.find("datasets", name)).parameters
    given = {key: value for key, value in zip(GIVEN, (roots, progress), strict=True) if key in named}
    dataset: Dataset = registry.make("datasets", name, **given, **options)
    if registry.place_of("datasets", name) is None:
        return dataset
    try:
        return open_arrays(dataset.folder, dataset.provenance)
    except (DataError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{shorten(name, 100)!r} returned a dataset without stored arrays ({shorten(error, 200)}); return what "
            "from_arrays or from_folder of cnnperf.datasets returns"
        ) from error


def has_files(name: str) -> bool:
    """Return whether a dataset has files that cnnperf can fetch and verify."""
    return name in registry.names("datasets") and hasattr(registry.module("datasets", name), "SOURCE")


def available(name: str, roots: Roots) -> Availability:
    """Return where a dataset would come from and the size of its download; loads nothing. Raises DataError."""
    return files_of(name).available(roots) if has_files(name) else Availability("generated", None, 0)


def verify(name: str, roots: Roots) -> str:
    """Check a dataset's files and cached arrays against their checksums and describe the result.

    Raises DataError for the first mismatch, and for a dataset that is missing or has no files.
    """
    return files_of(name).verify(roots)


def files_of(name: str) -> Files:
    """Return a dataset's `SOURCE`. Raises DataError if the dataset has no files."""
    found: Files | None = getattr(registry.module("datasets", name), "SOURCE", None)
    if found is None:
        raise DataError(f"{name}: there are no files to fetch or verify; name another dataset")
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
