"""Errors shown to the user without a traceback, each one sentence: where, what, got, cure."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterable
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class CnnperfError(Exception):
    """An error that the user can correct; `exit_code` is the exit status of the command.

    A message names an argument of the library in backquotes; the command line prints its option instead.
    """

    exit_code = 2


class UsageError(CnnperfError):
    """The request cannot be carried out as written; nothing was measured."""


class SuiteError(UsageError):
    """A suite file is missing, malformed or contradictory."""


class FaultsError(SuiteError):
    """Several faults of a suite, each in a line of its own."""


class DataError(UsageError):
    """A data file is missing, unreadable or does not match its checksum."""


class StoreError(CnnperfError):
    """A run folder cannot be read or written."""


class RunError(CnnperfError):
    """A run failed midway, for example on a full disk; earlier records are kept."""

    exit_code = 1


class StageError(CnnperfError):
    """A stage cannot give its result; the task fails and the run continues."""

    exit_code = 1


class DeviceError(CnnperfError):
    """A device that this machine does not have; its tasks are skipped with this reason."""


class EngineError(DeviceError):
    """An engine is not installed or does not support the device; its tasks are skipped with this reason."""


class CnnperfWarning(UserWarning):
    """A problem that the user should know of and that did not stop the work."""


CURES = {
    errno.EACCES: "give permission, or name another file or folder",
    errno.EPERM: "give permission, or name another file or folder",
    errno.EROFS: "name a file or folder that can be written",
    errno.ENOSPC: "free disk space",
    errno.EDQUOT: "free disk space",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs, or raise the system's limit on open files",
    errno.EAGAIN: "raise the limit on processes (ulimit -u)",
    errno.ENOMEM: "free memory, or raise the limit on it (ulimit -v)",
}
"""Cure for an error of the system."""
LONGEST_ERROR = 10_000
"""Most bytes of an error in a record."""
OUT_OF_MEMORY = re.compile(
    r"out ?of ?memory|bad[_ ]alloc|allocat\w* memory|"
    r"(failed|unable) to allocate|(cannot|can't|could not) allocate|_status_\w*alloc\w*_failed"
)
"""Out-of-memory messages of Python, C++, NumPy, torch, ONNX Runtime, CUDA, cuBLAS and cuDNN, in lower case."""

BOUNDS = {
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "above",
    "less than": "below",
}
"""Words for a limit of a number in place of pydantic's; a longer phrase comes before one that it begins with."""
OUT_OF_BOUNDS = re.compile(f"^Input should be ({'|'.join(BOUNDS)}) ")


def is_out_of_memory(fault: BaseException) -> bool:
    """Return whether an error means that the host or a device ran out of memory."""
    words = f"{type(fault).__name__}: {fault}".lower()
    return isinstance(fault, MemoryError) or OUT_OF_MEMORY.search(words) is not None


def first_error(error: ValidationError, *places: str) -> str:
    """Describe pydantic's first error: where (below `places`), what, got, and the number of further errors."""
    faults = _own_faults(error)
    fault = faults[0]
    # Unions add their branches' names to the location; the user knows only keys and positions.
    branches = ("constrained-", "tuple[", "function-")
    inner = [str(part) for part in fault["loc"] if not str(part).startswith(branches)]
    place = ".".join(shorten(part, 60) for part in (*places, *inner)).removeprefix("sections.")
    got = "" if fault["type"] == "missing" or not inner else f", got {shorten(repr(fault['input']), 60)}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    what = OUT_OF_BOUNDS.sub(lambda found: f"must be {BOUNDS[found[1]]} ", fault["msg"].removeprefix("Value error, "))
    return f"{place}: " * bool(place) + shorten(what, 300) + got + more


def absent_fields(error: ValidationError) -> tuple[str, ...]:
    """Return the names of the required fields that were not given."""
    return tuple(str(fault["loc"][-1]) for fault in error.errors(include_url=False) if fault["type"] == "missing")


def _own_faults(error: ValidationError) -> list[ErrorDetails]:
    """Return pydantic's errors without those that only follow from an invalid value elsewhere."""
    faults = error.errors(include_url=False)
    places = [fault["loc"] for fault in faults]

    def follows(fault: ErrorDetails) -> bool:
        # A default that is computed from other settings is not computed; a tuple is short of its invalid items.
        length = len(fault["loc"])
        is_short = fault["type"] == "too_short" and any(
            len(place) > length and place[:length] == fault["loc"] for place in places
        )
        return is_short or fault["type"] == "default_factory_not_called"

    return [fault for fault in faults if not follows(fault)]


def shorten(text: object, limit: int = 250) -> str:
    """Return the first line of other software's text, cut to `limit` characters; an error has at most 500."""
    first = str(text).strip().partition("\n")[0]
    return first if len(first) <= limit else first[: limit - 1] + "…"


def names_listed(names: Iterable[object], limit: int = 300) -> str:
    """Join names by commas, as many as `limit` characters hold, and say how many more there are."""
    words = [str(name) for name in names]
    ends = list(accumulate(len(word) + len(", ") for word in words))
    fitting = sum(end <= limit for end in ends)
    more = f"… and {len(words) - fitting:,} more" if fitting < len(words) else ""
    return ", ".join([*words[:fitting], *filter(None, [more])])


def capped(text: str) -> str:
    """Return a text of at most 10 kB as it is, and of a longer one the beginning, with its length."""
    written = text.encode(errors="replace")
    if len(written) <= LONGEST_ERROR:
        return text
    beginning = written[: LONGEST_ERROR - 100].decode(errors="ignore")
    return f"{beginning} … (the beginning of {len(written):,} bytes)"


def in_words(fault: Exception) -> str:
    """Describe an error in one line of 10 kB at most; write the traceback of an unexpected one to the log."""
    if isinstance(fault, CnnperfError):
        return capped(str(fault))
    traceback.print_exception(fault)
    text = f"{type(fault).__name__}: {fault}"
    return capped(f"out of memory: {text}" if is_out_of_memory(fault) else text)
