"""The standard streams of a command: closed, full, without a reader, or in an encoding that lacks characters."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import unicodedata
from typing import Any, TextIO

READER_GONE = 141
"""Exit status of a command whose output nobody reads any more: that of a shell for a process ended by SIGPIPE."""
NOT_WRITTEN = 1
"""Exit status of a command whose output could not be written."""
LIKENESSES = {
    **dict(zip("–—−─━×·µμ≈↑↓✓✗•│┃█▇“”‘’", "-----x*uu~^v+x*||##\"\"''", strict=True)),
    "…": "...",
    "±": "+-",
    "√": "sqrt",
    "†": "(!)",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "←": "<-",
}
"""ASCII text in place of a character that the encoding of a stream lacks."""
_LIKENESS = "cnnperf.likeness"


class Raw(io.FileIO):
    """A file descriptor that drops what cannot be written, and keeps the first error.

    A full disk or a reader that has gone thus ends no measurement; the command says so at its end.
    """

    fault: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write bytes, or drop them after an error."""
        if self.fault is None:
            try:
                return super().write(data)
            except OSError as error:
                self.fault = error
        return memoryview(data).nbytes


class Stream(io.TextIOWrapper):
    """A standard stream over a `Raw`; a character that its encoding lacks is written as similar ASCII text."""

    def __init__(self, descriptor: int, like: TextIO | None) -> None:
        """Open a descriptor. like: the stream of the interpreter, None if the descriptor was closed."""
        self.file = Raw(descriptor, "wb", closefd=False)
        is_eager = descriptor == 2 or self.file.isatty()
        super().__init__(
            io.BufferedWriter(self.file),
            encoding=like.encoding if like else "utf-8",
            errors=_LIKENESS,
            line_buffering=is_eager,
        )


def open_streams() -> None:
    """Replace stdout and stderr by streams that never raise, and open those that are closed."""
    codecs.register_error(_LIKENESS, _alike)
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # A file opened later would take the number, and be written to. Output stays unwritable, messages are lost.
            os.open(os.devnull, (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)[descriptor])
    sys.stdout, sys.stderr = Stream(1, sys.stdout), Stream(2, sys.stderr)


def end_streams(status: int) -> int:
    """Flush both streams and return the exit status: the given one unless a success could not be written to stdout."""
    out, err = sys.stdout, sys.stderr
    assert isinstance(out, Stream)
    out.flush()
    fault = out.file.fault
    if fault is None:
        pass
    elif fault.errno == errno.EPIPE:
        status = status or READER_GONE
    else:
        print(f"cnnperf: stdout: cannot be written ({fault.strerror}); send it elsewhere", file=err)
        status = status or NOT_WRITTEN
    err.flush()
    return status


def _alike(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII text for characters that an encoding lacks, as handlers of `codecs.register_error` do."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(map(_ascii, lacking)), error.end


def _ascii(character: str) -> str:
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return LIKENESSES.get(character) or plain or character.encode("ascii", "backslashreplace").decode()
