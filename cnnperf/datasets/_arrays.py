"""The cache of arrays: one folder per dataset with four `.npy` files and `meta.json`, written atomically."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from cnnperf.datasets._atomic import scratch
from cnnperf.task import Frozen, Provenance

NAMES = ("train_images", "train_labels", "test_images", "test_labels")
META = "meta.json"

Arrays = dict[str, NDArray[Any]]
"""The four arrays, by name."""


class Stamp(Frozen):
    """Size and time of a file whose checksum matched; while both are unchanged, the file is not hashed again."""

    path: Path
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Take the stamp of a file. Raises OSError."""
        status = path.stat()
        return cls(path=path.absolute(), size=status.st_size, mtime_ns=status.st_mtime_ns)

    def holds(self) -> bool:
        """Return whether the file is unchanged."""
        try:
            return Stamp.of(self.path) == self
        except OSError:
            return False


class Meta(Frozen):
    """Metadata of the arrays."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    provenance: Provenance
    verified: tuple[Stamp, ...] = ()
    """The source files of the arrays, as last verified."""


@dataclass(frozen=True, slots=True)
class ArraysMaker:
    """Builder of a dataset's arrays; `write` writes the four files into the given folder."""

    name: str
    source: str
    classes: tuple[str, ...]
    write: Callable[[Path], None]
    verified: tuple[Stamp, ...] = ()


def read_meta(folder: Path) -> Meta | None:
    """Read the metadata of a folder's arrays; None if there is none, or none that this version can read."""
    try:
        return Meta.model_validate_json((folder / META).read_bytes())
    except (OSError, ValidationError):
        return None


def write_meta(folder: Path, meta: Meta) -> None:
    """Write the metadata of a folder's arrays atomically. Raises OSError."""
    fresh = folder / f"{META}.new"
    fresh.write_text(meta.model_dump_json(indent=2), encoding="utf-8")
    fresh.replace(folder / META)


def mapped(folder: Path) -> Arrays:
    """Map the four arrays copy-on-write, because torch warns of read-only memory. Raises OSError, ValueError."""
    return {name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in NAMES}


def save(arrays: Arrays, folder: Path) -> None:
    """Write the four arrays, C-contiguous: images uint8, labels int64. Raises OSError."""
    for name in NAMES:
        dtype = np.uint8 if name.endswith("images") else np.int64
        np.save(folder / f"{name}.npy", np.ascontiguousarray(arrays[name], dtype=dtype))


def save_images(file: Path, count: int, shape: tuple[int, ...], chunks: Iterable[NDArray[np.uint8]]) -> None:
    """Write count×C×H×W images chunk by chunk, so that they need not fit in memory. Raises OSError.

    Does not use a memory map, because a full disk would then cause a SIGBUS.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for chunk in chunks:
            stream.write(np.ascontiguousarray(chunk).data)


def chunk_length(shape: tuple[int, ...]) -> int:
    """Return the number of images of this shape per chunk that keeps a chunk within some tens of megabytes."""
    return max(1, 2**22 // math.prod(shape))


def digest(folder: Path) -> str | None:
    """Return the sha256 over the four arrays in order; None if they cannot be read."""
    try:
        return _sha256(mapped(folder))
    except (OSError, ValueError):
        return None


def checked(folder: Path) -> Meta | None:
    """Read the metadata of a folder's arrays if the arrays match their sha256."""
    meta = read_meta(folder)
    return meta if meta and meta.provenance.sha256 == digest(folder) else None


def build_arrays(folder: Path, maker: ArraysMaker) -> None:
    """Make a folder of arrays, replacing an existing one; the caller holds its lock. Raises OSError."""
    with scratch(folder) as temporary:
        fresh = temporary / "new"
        fresh.mkdir()
        maker.write(fresh)
        write_meta(fresh, _describe(fresh, maker))
        if folder.exists():
            folder.rename(temporary / "old")
        fresh.rename(folder)


def _describe(folder: Path, maker: ArraysMaker) -> Meta:
    arrays = mapped(folder)
    mean, std = _channel_statistics(arrays["train_images"])
    return Meta(
        mean=mean,
        std=std,
        classes=maker.classes,
        provenance=Provenance(
            name=maker.name,
            source=maker.source,
            sha256=_sha256(arrays),
            train_count=len(arrays["train_labels"]),
            test_count=len(arrays["test_labels"]),
            shape=arrays["train_images"].shape[1:],
            num_classes=len(maker.classes),
        ),
        verified=maker.verified,
    )


def _sha256(arrays: Arrays) -> str:
    total = hashlib.sha256()
    for name in NAMES:
        total.update(arrays[name].data.cast("B"))
    return total.hexdigest()


def _channel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, images scaled to [0, 1].

    Counts of the 256 values are exact and need little memory, unlike sums of floats over the whole array.
    """
    counts = np.zeros((images.shape[1], 256))
    length = chunk_length(images.shape[1:])
    for start in range(0, len(images), length):
        chunk = images[start : start + length]
        counts += [np.bincount(chunk[:, channel].ravel(), minlength=256) for channel in range(images.shape[1])]
    share = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256) / 255
    mean = share @ values
    std = np.sqrt(share @ values**2 - mean**2)
    return tuple(mean.tolist()), tuple(std.tolist())
