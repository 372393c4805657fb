"""The log of a worker: what it writes to its standard output and error, in a file of bounded size."""

from __future__ import annotations

from pathlib import Path
from typing import Self

LOG_BYTES = 2**24
"""Largest log; of more output, the first and the last half of this are kept."""
TAIL_BYTES = 2**13
"""Bytes at the end of a log that are read for its last lines."""


class Log:
    """A log file: its first half is on the disk at once, its second half when the log is closed."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by `close`
        self._size = 0
        self._end = bytearray()

    def write(self, output: bytes) -> None:
        """Add output."""
        room = max(0, LOG_BYTES // 2 - self._size)
        self._size += len(output)
        self._put(output[:room])
        self._end += output[room:]
        if len(self._end) > LOG_BYTES:  # Twice what is kept, so that little is moved.
            del self._end[: -LOG_BYTES // 2]

    @property
    def is_complete(self) -> bool:
        """Whether the log was closed."""
        return self._file.closed

    def close(self) -> None:
        """Add the end of the output, and say how much before it is missing."""
        if self.is_complete:
            return
        with self._file:
            del self._end[: -LOG_BYTES // 2]
            if missing := max(0, self._size - LOG_BYTES):
                self._put(f"\n[cnnperf: {missing:,} bytes of output are left out here]\n".encode())
            self._put(self._end)

    def _put(self, output: bytes | bytearray) -> None:
        left = memoryview(output)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._file.name)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tail(log: Path, lines: int = 12) -> tuple[str, ...]:
    """Return the last lines of a log, for the record of a task that failed; a line longer than 8 KiB is cut."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            return tuple(file.read(TAIL_BYTES).decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ()
