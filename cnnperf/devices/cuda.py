"""The current CUDA device; its memory is what torch's allocator holds there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from cnnperf.errors import DeviceError

if TYPE_CHECKING:
    import torch


class Cuda:
    """Computes behind the caller's back, so it is timed by events on its own clock."""

    name = "cuda"
    torch_name = "cuda"

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda
        self.label = torch.cuda.get_device_name()

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""
        self._cuda.synchronize()

    def mark(self) -> torch.cuda.Event:
        """Record an event in the current stream."""
        event = self._cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def elapsed_s(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """Return the seconds between two marks; the device must have been synchronised since the second."""
        return float(start.elapsed_time(end)) / 1e3

    def reset_peak(self) -> bool:
        """Let the peaks begin at what is allocated now."""
        self._cuda.reset_peak_memory_stats()
        return True

    def returning_memory(self) -> AbstractContextManager[bool]:
        """Return a context that does nothing: the peaks are those of live tensors."""
        return nullcontext(True)

    def used_bytes(self) -> int:
        """Return the memory of all live tensors."""
        return int(self._cuda.memory_allocated())

    def available_bytes(self) -> None:
        """Return None: its allocator raises an exception where there is no more."""

    def peak_bytes(self) -> dict[str, int]:
        """Return the peaks of live tensors and of what the allocator had reserved for them."""
        return {
            "peak_bytes": int(self._cuda.max_memory_allocated()),
            "peak_reserved_bytes": int(self._cuda.max_memory_reserved()),
        }


def acquire() -> Cuda:
    """Return the current CUDA device. Raises DeviceError with the reason where there is none."""
    import torch

    if torch.version.cuda is None:
        raise DeviceError(f"this machine has no CUDA device (torch {torch.__version__} is built without CUDA)")
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition(". ")[0].strip()
        built = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"
        raise DeviceError(f"this machine has no CUDA device ({built}: {reason})") from error
    return Cuda()
