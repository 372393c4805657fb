"""Downloads through torchvision: progress by file size, verified, then moved into place atomically."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Protocol

from cnnperf.datasets import DownloadError, Progress
from cnnperf.datasets._atomic import locked, scratch, scratches

STALL_S = 20
"""A connection that delivers no byte for this time is closed."""
REPORT_S = 1.0
"""Interval at which the downloaded bytes are counted."""


class Archives(Protocol):
    """A dataset that torchvision can download."""

    @property
    def name(self) -> str:
        """Name of the dataset."""

    @property
    def torchvision_class(self) -> str:
        """Name of the dataset's class in `torchvision.datasets`."""

    @property
    def folder(self) -> Path:
        """Folder of the dataset below a root, as in torchvision."""

    @property
    def download_bytes(self) -> int:
        """Size of the archives."""

    def check(self, folder: Path) -> object:
        """Compare every file with its checksum. Raises DataError for the first that differs."""


def download(source: Archives, root: Path, progress: Progress) -> None:
    """Download a dataset's archives, unpack and verify them in a temporary folder, and move that below `root`.

    `progress` is called at once with zero bytes, then from a separate thread, also while another process downloads the
    same dataset; its output to `sys.stderr` is lost. Raises DownloadError, and DataError if `root` cannot be written.
    """
    destination = root / source.folder
    lock = root / source.name
    with _reported(source, lock, progress), locked(lock):
        if destination.exists():
            return
        with scratch(lock) as temporary:
            _download(source, temporary)
            source.check(temporary / source.folder)
            destination.parent.mkdir(exist_ok=True)
            (temporary / source.folder).rename(destination)
    progress(source.name, source.download_bytes, source.download_bytes)


def _download(source: Archives, temporary: Path) -> None:
    import torchvision.datasets

    dataset = getattr(torchvision.datasets, source.torchvision_class)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_S)
    try:
        with redirect_stderr(io.StringIO()):  # Hide torchvision's own progress bar.
            dataset(temporary, download=True)
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        ConnectionError,
        TimeoutError,
        ssl.SSLError,
        RuntimeError,
    ) as error:
        reason = _reason(error)
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # The error keeps the connection open.
        raise DownloadError(
            f"{source.name}: cannot be downloaded ({reason}); connect to the network, or copy {source.folder} from "
            "another machine and name the folder that contains it with `data`",
            reason,
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _reason(error: Exception) -> str:
    match error:
        case urllib.error.HTTPError():
            return f"{error.url} answered HTTP {error.code} {error.reason}"
        case TimeoutError() | urllib.error.URLError(reason=TimeoutError()):
            return f"no byte for {STALL_S} s"
        case urllib.error.URLError():
            return f"no connection: {error.reason}"
        case RuntimeError():  # torchvision's own multi-line messages; only the checksum error has no text.
            text = str(error).replace("File not found or corrupted.", "checksum does not match")
            return " ".join(text.split())
        case _:
            return f"connection lost: {error or type(error).__name__}"


@contextmanager
def _reported(source: Archives, lock: Path, progress: Progress) -> Iterator[None]:
    """Report the start of a download to `progress`, then the archives' growth until the block ends."""
    ended = threading.Event()

    def watch() -> None:
        seen = 0
        while not ended.wait(REPORT_S):
            if (arrived := _arrived(lock)) not in (0, seen):
                seen = arrived
                progress(source.name, seen, source.download_bytes)

    progress(source.name, 0, source.download_bytes)
    watcher = threading.Thread(target=watch, name=f"download-{source.name}", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _arrived(lock: Path) -> int:
    """Sum the sizes of the archives in the temporary folders."""
    try:
        return sum(archive.stat().st_size for folder in scratches(lock) for archive in folder.rglob("*.gz"))
    except FileNotFoundError:  # The folder has just been removed.
        return 0
