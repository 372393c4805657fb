"""The cache of arrays: one folder per dataset with four `.npy` files, `meta.json` and `seal.json`, written atomically.

`meta.json` has the checksum of the arrays, `seal.json` that of `meta.json`. The seal is a separate file, since earlier
versions of cnnperf, which may be one side of a comparison, refuse a `meta.json` with further fields.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from cnnperf.datasets._atomic import locked, scratch
from cnnperf.errors import DataError, shorten
from cnnperf.task import Frozen, Provenance

NAMES = ("train_images", "train_labels", "test_images", "test_labels")
META, SEAL = "meta.json", "seal.json"
ROUNDING = 1e-9
"""Largest relative difference of mean and deviation between machines, whose libraries add in different orders."""
CURE = "the next run makes it again"

Arrays = dict[str, NDArray[Any]]
"""The four arrays, by name."""
SideLength = Annotated[int, Field(ge=1, le=4096)]
"""Height or width of an image in pixels, or its number of channels."""


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


class Seal(Frozen):
    """Checksum of `meta.json`, and the stamps of the arrays' files when the arrays last matched their checksum."""

    sha256: str
    stamps: Mapping[str, tuple[int, int, int]]
    """Size, modification time in ns and inode of each file; while unchanged, the arrays are not hashed again."""


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
        return Meta.model_validate_json(_read(folder / META))
    except (OSError, ValidationError):
        return None


def relabel(folder: Path, meta: Meta) -> None:
    """Replace the metadata of a folder's arrays, which match it. The caller holds the lock. Raises OSError."""
    # Without a seal a process that reads now hashes the arrays; with the old seal it would call the new file altered.
    (folder / SEAL).unlink(missing_ok=True)
    _write_sealed(folder, meta, _stamps(folder))


def opened(folder: Path, *, in_full: bool = False) -> tuple[Meta, Arrays]:
    """Map the four arrays copy-on-write, because torch warns of read-only memory, and check them and their metadata.

    in_full: whether to hash the arrays even if their stamps are unchanged. Raises DataError if there are no arrays, or
    if anything was altered.
    """
    meta = read_meta(folder)
    if meta is None:
        raise DataError(f"{folder}: contains no cached arrays; run again, which creates them")
    seal = _read_seal(folder)
    arrays = _mapped(folder, meta.provenance)
    if in_full or seal is None or seal.stamps != _stamps(folder):
        expected, found = meta.provenance.sha256, sha256_of(arrays)
        if found != expected:
            raise DataError(f"{folder}: cached arrays were altered, expected sha256 {expected}, found {found}; {CURE}")
    if seal is None and not _describes(meta, arrays):
        raise DataError(f"{folder / META}: was altered, its statistics are not those of the arrays; {CURE}")
    return meta, arrays


def checked(folder: Path, classes: tuple[str, ...]) -> Meta | None:
    """Return the metadata of a folder's arrays if the arrays, hashed in full, and all else are unaltered; else None."""
    try:
        meta, _ = opened(folder, in_full=True)
    except DataError:
        return None
    return meta if meta.classes == classes else None


def resealed(folder: Path, classes: tuple[str, ...]) -> Meta | None:
    """Check a folder as `checked` does, and, if possible, write a seal where it is missing or its stamps are outdated.

    Earlier versions wrote no seal, and a copied file has another stamp.
    """
    stamps = _stamps(folder)
    meta = checked(folder, classes)
    if meta and not _is_sealed(folder, stamps):
        with suppress(DataError), locked(folder):
            if read_meta(folder) == meta:
                _write_sealed(folder, meta, stamps)
    return meta


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


def ensured(folder: Path, maker: ArraysMaker) -> Path:
    """Return a folder of arrays, made if it is missing or altered. Raises DataError if it cannot be written."""
    if resealed(folder, maker.classes) is None:
        with locked(folder):
            if checked(folder, maker.classes) is None:
                build_arrays(folder, maker)
    return folder


def build_arrays(folder: Path, maker: ArraysMaker) -> None:
    """Make a folder of arrays, replacing an existing one; the caller holds its lock. Raises OSError."""
    with scratch(folder) as temporary:
        fresh = temporary / "new"
        fresh.mkdir()
        maker.write(fresh)
        stamps = _stamps(fresh)
        _write_sealed(fresh, _describe(fresh, maker), stamps)
        if folder.exists():
            folder.rename(temporary / "old")
        fresh.rename(folder)


def _describe(folder: Path, maker: ArraysMaker) -> Meta:
    arrays = _loaded(folder)
    mean, std = _channel_statistics(arrays["train_images"])
    return Meta(
        mean=mean,
        std=std,
        classes=maker.classes,
        provenance=Provenance(
            name=maker.name,
            source=maker.source,
            sha256=sha256_of(arrays),
            train_count=len(arrays["train_labels"]),
            test_count=len(arrays["test_labels"]),
            shape=arrays["train_images"].shape[1:],
            num_classes=len(maker.classes),
        ),
        verified=maker.verified,
    )


def _read(path: Path) -> bytes:
    """Read a file. Raises OSError, also for what is not a regular file, such as a FIFO, whose reader would wait."""
    if not path.is_file():
        raise FileNotFoundError(path)
    return path.read_bytes()


def _read_seal(folder: Path) -> Seal | None:
    """Return the seal of a folder; None if there is none. Raises DataError if it is not that of the metadata."""
    if not (folder / SEAL).exists():
        return None
    try:
        seal = Seal.model_validate_json(_read(folder / SEAL))
        if seal.sha256 == hashlib.sha256(_read(folder / META)).hexdigest():
            return seal
    except (OSError, ValidationError):
        pass
    raise DataError(f"{folder}: {META} or {SEAL} was altered; {CURE}")


def _is_sealed(folder: Path, stamps: Mapping[str, tuple[int, int, int]]) -> bool:
    seal = _read_seal(folder)
    return seal is not None and seal.stamps == stamps


def _write_sealed(folder: Path, meta: Meta, stamps: Mapping[str, tuple[int, int, int]]) -> None:
    content = meta.model_dump_json(indent=2).encode()
    seal = Seal(sha256=hashlib.sha256(content).hexdigest(), stamps=stamps)
    for name, text in ((META, content), (SEAL, seal.model_dump_json(indent=2).encode())):
        fresh = folder / f"{name}.new"
        fresh.write_bytes(text)
        fresh.replace(folder / name)


def _stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return the stamps of the arrays' files, without those that are missing."""
    found = {}
    for name in NAMES:
        with suppress(OSError):
            status = (folder / f"{name}.npy").stat()
            found[name] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return found


def _loaded(folder: Path) -> Arrays:
    return {name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="c") for name in NAMES}


def _mapped(folder: Path, provenance: Provenance) -> Arrays:
    """Map the four arrays. Raises DataError if a file is unreadable or its array has not the recorded form."""
    try:
        if missing := [name for name in NAMES if not (folder / f"{name}.npy").is_file()]:
            raise FileNotFoundError(f"{missing[0]}.npy is missing or not a file")
        arrays = _loaded(folder)
    except Exception as error:  # A damaged header has many exceptions: numpy parses it as an expression of Python.
        raise DataError(f"{folder}: cached arrays cannot be read ({shorten(error)}); {CURE}") from error
    for name, array in arrays.items():
        count = provenance.train_count if name.startswith("train") else provenance.test_count
        shape, dtype = ((count, *provenance.shape), "|u1") if name.endswith("images") else ((count,), "<i8")
        if array.shape != shape or array.dtype != np.dtype(dtype) or not array.flags.c_contiguous:
            raise DataError(f"{folder}: {name}.npy was altered, it has not the recorded form; {CURE}")
    return arrays


def _describes(meta: Meta, arrays: Arrays) -> bool:
    """Return whether all that can be computed from the arrays agrees with the metadata."""
    statistics = _channel_statistics(arrays["train_images"])
    agree = all(
        len(found) == len(recorded) and np.allclose(found, recorded, rtol=ROUNDING, atol=ROUNDING)
        for found, recorded in zip(statistics, (meta.mean, meta.std), strict=True)
    )
    return agree and len(meta.classes) == meta.provenance.num_classes


def sha256_of(arrays: Arrays) -> str:
    """Hash the four arrays, C-contiguous, in order."""
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
