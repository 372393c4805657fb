"""The faults that reach a user bare, each one sentence: where, what, got, cure."""

from __future__ import annotations

import re
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class CnnperfError(Exception):
    """An error that the user can correct; `exit_code` is the exit status of the command."""

    exit_code = 2


class UsageError(CnnperfError):
    """The request cannot be carried out as written; nothing was measured."""


class SuiteError(UsageError):
    """A suite file that is missing, malformed or contradictory."""


class DataError(UsageError):
    """A data file that is missing, unreadable or not what its checksum says."""


class StoreError(CnnperfError):
    """A run folder that cannot be read or written."""


class RunError(CnnperfError):
    """A fault in mid-run, such as a full disk; the records before it are kept."""

    exit_code = 1


class StageError(CnnperfError):
    """A stage that cannot give its result; it ends the task as failed, not the run."""

    exit_code = 1


class DeviceError(CnnperfError):
    """A device that this machine does not have; its tasks are skipped with this reason."""


class EngineError(DeviceError):
    """An engine that is not installed, or not for this device; its tasks are skipped with this reason."""


class CnnperfWarning(UserWarning):
    """A thing the user should know that did not stop the work."""


OUT_OF_MEMORY = re.compile(
    r"out ?of ?memory|bad[_ ]alloc|allocat\w* memory|"
    r"(failed|unable) to allocate|(cannot|can't|could not) allocate|_status_\w*alloc\w*_failed"
)
"""How Python's and C++'s exceptions, NumPy, torch, ONNX Runtime, CUDA, cuBLAS and cuDNN say it, in small letters."""


def is_out_of_memory(fault: Exception) -> bool:
    """Tell whether memory was lacking, the host's or a device's."""
    words = f"{type(fault).__name__}: {fault}".lower()
    return isinstance(fault, MemoryError) or OUT_OF_MEMORY.search(words) is not None


def first_error(error: ValidationError, *places: str) -> str:
    """Word the first fault that pydantic found: where (below `places`), what, got, and how many more there are."""
    faults = error.errors(include_url=False)
    fault = faults[0]
    # Unions put their branches' names into the location; a reader knows keys and positions only.
    branches = ("constrained-", "tuple[", "function-")
    inner = [str(part) for part in fault["loc"] if not str(part).startswith(branches)]
    place = ".".join([*places, *inner]).removeprefix("sections.")
    got = "" if fault["type"] == "missing" or not inner else f", got {_shorten(fault['input'])}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{place}: " * bool(place) + fault["msg"].removeprefix("Value error, ") + got + more


def _shorten(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def in_words(fault: Exception) -> str:
    """Put an error into words; one that is not meant for the user goes to the log with its traceback."""
    if isinstance(fault, CnnperfError):
        return str(fault)
    traceback.print_exception(fault)
    text = f"{type(fault).__name__}: {fault}"
    return f"out of memory: {text}" if is_out_of_memory(fault) else text
