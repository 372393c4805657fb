"""Apple's GPU, through Metal; not yet run on one. Torch counts no peak of its memory."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from cnnperf.devices._accelerator import torch_for

if TYPE_CHECKING:
    import torch


class Mps:
    """Apple's GPU; it computes asynchronously, so it is timed by events on its own clock."""

    name = "mps"
    index = 0
    torch_name = "mps"
    numerics = None
    has_tf32 = False
    is_asynchronous = True

    def __init__(self, torch: Any) -> None:
        self.label: str = torch.backends.mps.get_name()
        self._mps = torch.mps

    def ready_torch(self) -> None:
        """Do nothing: torch is ready, and has no numerical settings for this device."""

    def synchronize(self) -> None:
        """Wait until the device has completed all queued work."""
        self._mps.synchronize()

    def mark(self) -> torch.mps.Event:
        """Record an event in the device's only stream."""
        event: torch.mps.Event = self._mps.Event(enable_timing=True)
        event.record()
        return event

    def elapsed_s(self, start: torch.mps.Event, end: torch.mps.Event) -> float:
        """Return the seconds between two marks; the device must have been synchronised since the second."""
        return float(start.elapsed_time(end)) / 1e3

    def reset_peak(self) -> bool:
        """Return False: torch counts no peak."""
        return False

    def returning_memory(self) -> AbstractContextManager[bool]:
        """Return a context that does nothing."""
        return nullcontext(False)

    def used_bytes(self) -> int:
        """Return the memory of all live tensors."""
        return int(self._mps.current_allocated_memory())

    def available_bytes(self) -> None:
        """Return None: the allocator raises an exception when memory runs out."""

    def peak_bytes(self) -> dict[str, int]:
        """Return nothing: torch counts no peak."""
        return {}

    def held_bytes(self) -> int:
        """Return the memory that Metal's driver has given to this process."""
        return int(self._mps.driver_allocated_memory())


def acquire() -> Mps:
    """Return Apple's GPU. Raises DeviceError if torch finds none."""
    return Mps(torch_for(Mps.name))
