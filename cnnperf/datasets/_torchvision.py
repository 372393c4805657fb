"""Datasets in torchvision's layout: finding, verifying and converting them to cached arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cnnperf.datasets import Availability, Dataset, DownloadError, Progress, Roots, _arrays, open_arrays, said
from cnnperf.datasets._arrays import Arrays, ArraysMaker, Stamp
from cnnperf.datasets._atomic import locked
from cnnperf.errors import DataError


@dataclass(frozen=True, slots=True)
class Found:
    """The folder of a dataset's files and its root."""

    origin: str
    folder: Path

    def is_verified(self, stamps: tuple[Stamp, ...]) -> bool:
        """Return whether these stamps belong to this folder's files and the files are unchanged."""
        folder = self.folder.absolute()
        return bool(stamps) and all(stamp.path.parent == folder and stamp.holds() for stamp in stamps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloadable:
    """A dataset that torchvision can download: its files and facts known without reading them."""

    name: str
    torchvision_class: str
    """Name in `torchvision.datasets`, which is imported late because that takes seconds."""
    folder: Path
    """Folder of the dataset below a root, as in torchvision."""
    shape: tuple[int, int, int]
    """C×H×W."""
    train_count: int
    test_count: int
    classes: tuple[str, ...]
    download_bytes: int
    """Size of the archives."""
    checksums: Callable[[], Mapping[str, str]]
    """Returns the md5 of each file in the folder."""
    decode: Callable[[Path], Arrays]
    """Reads the folder; called only if every checksum matches."""

    def load(self, roots: Roots, progress: Progress | None) -> Dataset:
        """Return the dataset, its files verified and its arrays cached; without files, download them first.

        A file with unchanged size and time is not hashed again; cached arrays are hashed, and made again if altered.
        If no root contains the files, cached arrays made from them are used.
        """
        found, cached = self.locate(roots), self._cached(roots)
        meta = _arrays.resealed(cached, self.classes)
        if found is None and meta is None:
            found = self._fetch(roots, progress)
        if found and not (meta and found.is_verified(meta.verified) and found.origin == meta.provenance.source):
            self._cache(found, cached)
        return open_arrays(cached)

    def locate(self, roots: Roots) -> Found | None:
        """Return the files of the first root that has them, else None. Raises DataError for an unusable root."""
        for origin, root in roots.ordered():
            folder = root / self.folder
            try:
                folder.stat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise DataError(
                    f"{origin}: {folder} cannot be read ({error.strerror}); give read permission or name another folder"
                ) from error
            return Found(origin, folder)
        return None

    def check(self, folder: Path) -> tuple[Stamp, ...]:
        """Compare every file with its md5 and return their stamps. Raises DataError for the first that differs."""
        return tuple(self._check(folder / name, md5) for name, md5 in self.checksums().items())

    def available(self, roots: Roots) -> Availability:
        """Return where the data would come from and the size of the download."""
        if found := self.locate(roots):
            return Availability(found.origin, found.folder, 0)
        cached = self._cached(roots)
        if _arrays.read_meta(cached):
            return Availability("cache", cached, 0)
        return Availability("download", roots.downloads / self.folder, self.download_bytes)

    def verify(self, roots: Roots) -> str:
        """Check files and cached arrays against their checksums and describe the result. Raises DataError."""
        found, cached = self.locate(roots), self._cached(roots)
        held = []
        if found:
            count = len(self.check(found.folder))
            held.append(f"{count} files in {found.folder} ({found.origin}) match their md5")
        if (cached / _arrays.META).exists():
            meta, _ = _arrays.opened(cached, in_full=True)
            held.append(f"arrays in {cached} match sha256 {meta.provenance.sha256}")
        if not held:
            raise DataError(f"{self.name}: found in none of {_listed(roots)}; run `cnnperf data fetch {self.name}`")
        return f"{self.name}: {'; '.join(held)}"

    def _cached(self, roots: Roots) -> Path:
        return roots.arrays / self.name

    def _fetch(self, roots: Roots, progress: Progress | None) -> Found:
        if progress is None:
            raise DownloadError(
                f"{self.name}: found in none of {_listed(roots)}; run `cnnperf data fetch {self.name}`",
                reason="not found, and no download allowed",
            )
        from cnnperf.datasets._download import download

        download(self, roots.downloads, progress)
        return Found("cache", roots.downloads / self.folder)

    def _cache(self, found: Found, cached: Path) -> None:
        """Verify the files and make the arrays; if the arrays are valid, only record the verified files."""
        stamps = self.check(found.folder)
        with locked(cached):
            if meta := _arrays.checked(cached, self.classes):
                provenance = meta.provenance.model_copy(update={"source": found.origin})
                _arrays.relabel(cached, meta.model_copy(update={"provenance": provenance, "verified": stamps}))
                return
            _arrays.build_arrays(
                cached,
                ArraysMaker(
                    name=self.name,
                    source=found.origin,
                    classes=self.classes,
                    write=lambda fresh: _arrays.save(self.decode(found.folder), fresh),
                    verified=stamps,
                ),
            )

    def _check(self, path: Path, expected: str) -> Stamp:
        try:
            stamp = Stamp.of(path)
            with path.open("rb") as file:
                actual = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}), expected a file with md5 {expected}; {self._cure(path)}"
            ) from error
        if actual != expected:
            raise DataError(f"{path}: corrupted, expected md5 {expected}, found {actual}; {self._cure(path)}")
        return stamp

    def _cure(self, path: Path) -> str:
        return f"restore it, or move {path.parent} away and run `cnnperf data fetch {self.name}`"


def _listed(roots: Roots) -> str:
    return ", ".join(f"{path} ({said(origin)})" for origin, path in roots.ordered())
