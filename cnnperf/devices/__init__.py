"""Where a network runs. One file a device; `acquire() -> Device` raises DeviceError where there is none."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Numerics:
    """How a GPU's libraries compute, chosen once for torch and ONNX Runtime alike."""

    tf32: bool = False
    """Whether float32 products and convolutions may be computed in TF32, of 10 bits' precision."""
    cudnn_benchmark: bool = True
    """Whether the algorithm of each convolution is found by timing all of them, or taken by cuDNN's rule of thumb."""
    deterministic: bool = False
    """Whether the same input gives the same bits each time."""


class Device(Protocol):
    """What a stage needs to know of a device: how to wait for it, to time on it, and to read its memory."""

    name: str
    """The file's stem: `cpu`, `cuda`."""
    label: str
    """The hardware, as its maker calls it."""
    index: int
    """Which one, where there are several of a kind."""
    torch_name: str
    """What `torch.device` takes, such as `cuda:1`."""
    numerics: Numerics | None
    """None on the CPU, which has none of these settings."""
    has_tf32: bool
    is_asynchronous: bool
    """Whether work is only queued when a call returns, and done when `synchronize` does."""

    def ready_torch(self) -> None:
        """Make torch compute here as chosen; all that follows but `held_bytes` needs it. Raises DeviceError."""

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""

    def mark(self) -> Any:
        """Take a point in time on the device's own clock, without waiting for it."""

    def elapsed_s(self, start: Any, end: Any) -> float:
        """Return the seconds between two marks; the device must have been synchronised since the second."""

    def reset_peak(self) -> bool:
        """Reset the peak of memory; returns False where the system does not permit it."""

    def returning_memory(self) -> AbstractContextManager[bool]:
        """Return a context in which freed memory is in use no longer, so that a peak is that of what is needed.

        The context's value is False where the system's allocator cannot be told so, and nothing is changed.
        """

    def used_bytes(self) -> int:
        """Return the memory in use now (CPU: resident set; CUDA: allocated tensors)."""

    def available_bytes(self) -> int | None:
        """Return how much more may be used before the system ends a process; None where none is ended for that."""

    def peak_bytes(self) -> dict[str, int]:
        """Return the peaks since the start or the last reset: `peak_bytes`, on CUDA also `peak_reserved_bytes`.

        Empty on CUDA where torch does not compute there: what others allocate is unknown to its allocator.
        """

    def held_bytes(self) -> int | None:
        """Return what the driver says this process holds of the device's memory; None where it does not tell."""
