"""Intel's GPUs; not yet run on one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from cnnperf.devices._accelerator import torch_for
from cnnperf.errors import DeviceError

if TYPE_CHECKING:
    import torch


class Xpu:
    """One of Intel's GPUs; it computes asynchronously, so it is timed by events on its own clock."""

    name = "xpu"
    numerics = None
    has_tf32 = False
    is_asynchronous = True

    def __init__(self, torch: Any, index: int) -> None:
        self.label: str = torch.xpu.get_device_name(index)
        self.index = index
        self.torch_name = f"xpu:{index}"
        self._xpu = torch.xpu

    def ready_torch(self) -> None:
        """Make torch compute on this device."""
        self._xpu.set_device(self.index)

    def synchronize(self) -> None:
        """Wait until the device has completed all queued work."""
        self._xpu.synchronize(self.index)

    def mark(self) -> torch.xpu.Event:
        """Record an event in the device's current stream."""
        event: torch.xpu.Event = self._xpu.Event(enable_timing=True)
        event.record(self._xpu.current_stream(self.index))
        return event

    def elapsed_s(self, start: torch.xpu.Event, end: torch.xpu.Event) -> float:
        """Return the seconds between two marks; the device must have been synchronised since the second."""
        return float(start.elapsed_time(end)) / 1e3

    def reset_peak(self) -> bool:
        """Reset the peaks to the memory allocated now."""
        self._xpu.reset_peak_memory_stats(self.index)
        return True

    def returning_memory(self) -> AbstractContextManager[bool]:
        """Return a context that does nothing: the peaks are those of live tensors."""
        return nullcontext(True)

    def used_bytes(self) -> int:
        """Return the memory of all live tensors."""
        return int(self._xpu.memory_allocated(self.index))

    def available_bytes(self) -> None:
        """Return None: the allocator raises an exception when memory runs out."""

    def peak_bytes(self) -> dict[str, int]:
        """Return the peaks of live tensors and of the allocator's reserved memory."""
        return {
            "peak_bytes": int(self._xpu.max_memory_allocated(self.index)),
            "peak_reserved_bytes": int(self._xpu.max_memory_reserved(self.index)),
        }

    def held_bytes(self) -> None:
        """Return None: the driver's count of this process's memory is not asked."""


def count() -> int:
    """Return the number of Intel's GPUs that this process sees. Raises DeviceError if torch finds none."""
    return int(torch_for(Xpu.name).xpu.device_count())


def acquire(*, index: Annotated[int, Field(ge=0)] = 0) -> Xpu:
    """Return one of Intel's GPUs by its index. Raises DeviceError if torch finds none with this index."""
    torch, found = torch_for(Xpu.name), count()
    if index >= found:
        raise DeviceError(f"there is no xpu device {index}; give an index below {found}")
    return Xpu(torch, index)
