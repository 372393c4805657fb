"""Where a network runs. One file a device; `acquire() -> Device` raises DeviceError where there is none."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol


class Device(Protocol):
    """What a stage needs to know of a device: how to wait for it, to time on it, and to read its memory."""

    name: str
    """The file's stem: `cpu`, `cuda`."""
    label: str
    """The hardware, as its maker calls it."""
    torch_name: str
    """What `torch.device` takes."""

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""

    def mark(self) -> Any:
        """Take a point in time on the device's own clock, without waiting for it."""

    def elapsed_s(self, start: Any, end: Any) -> float:
        """Return the seconds between two marks; the device must have been synchronised since the second."""

    def reset_peak(self) -> bool:
        """Begin the peak anew; returns False where the system does not permit it."""

    def returning_memory(self) -> AbstractContextManager[bool]:
        """Return a context in which freed memory is in use no longer, so that a peak is that of what is needed.

        The context's value is False where the system's allocator cannot be told so, and nothing is changed.
        """

    def used_bytes(self) -> int:
        """Return the memory in use now (CPU: resident set; CUDA: allocated tensors)."""

    def available_bytes(self) -> int | None:
        """Return how much more may be used before the system ends a process; None where none is ended for that."""

    def peak_bytes(self) -> dict[str, int]:
        """Return the peaks since the start or the last reset: `peak_bytes`, on CUDA also `peak_reserved_bytes`."""
