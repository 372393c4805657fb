"""Atomic writes of cache folders: other processes and later runs see a folder complete or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from cnnperf.errors import DataError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a cache folder against other processes; a failed write inside becomes a DataError with its cure."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            yield
    except OSError as error:
        why = error.strerror or str(error)
        raise DataError(
            f"{folder}: cannot be written ({why}); free disk space or set CNNPERF_CACHE to another folder"
        ) from error


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`, to be filled and renamed; it is always removed afterwards.

    The caller holds the folder's lock, so leftovers of killed processes are removed too. Raises OSError.
    """
    for leftover in scratches(folder):
        shutil.rmtree(leftover)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def scratches(folder: Path) -> Iterator[Path]:
    """List the temporary folders beside `folder`."""
    return folder.parent.glob(f".{folder.name}-*")
