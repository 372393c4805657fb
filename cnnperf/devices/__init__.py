"""Devices that networks run on. One file per device; `acquire() -> Device` raises DeviceError if there is none.

A file of which a machine may have several devices defines `count() -> int`, the number that this process sees, and
`acquire` has the option `index`; a suite may then name one as `cuda:1`, and every one as `cuda:all`. A file that can
tell of others on a device defines `foreign_processes(device) -> tuple[str, ...] | None`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from cnnperf import registry


@dataclass(frozen=True, slots=True)
class Numerics:
    """Numerical settings of a GPU's libraries, the same for torch and ONNX Runtime."""

    tf32: bool = False
    """Whether float32 products and convolutions may use TF32, which has a 10-bit mantissa."""
    cudnn_benchmark: bool = True
    """Whether cuDNN chooses convolution algorithms by timing them; otherwise it uses its heuristic."""
    deterministic: bool = False
    """Whether equal inputs give bitwise equal results."""


class Device(Protocol):
    """A device as stages use it: synchronisation, timing and memory readings."""

    name: str
    """The file's stem: `cpu`, `cuda`."""
    label: str
    """Name of the hardware, as given by the vendor."""
    index: int
    """Index among several devices of this kind."""
    torch_name: str
    """Argument for `torch.device`, such as `cuda:1`."""
    numerics: Numerics | None
    """Numerical settings; None on the CPU, which has none."""
    has_tf32: bool
    is_asynchronous: bool
    """Whether calls only queue work, which is complete when `synchronize` returns."""

    def ready_torch(self) -> None:
        """Set torch's numerical settings; all later methods except `held_bytes` require this. Raises DeviceError."""

    def synchronize(self) -> None:
        """Wait until the device has completed all queued work."""

    def mark(self) -> Any:
        """Record a time mark on the device's own clock, without waiting for the device."""

    def elapsed_s(self, start: Any, end: Any) -> float:
        """Return the seconds between two marks; the device must have been synchronised since the second."""

    def reset_peak(self) -> bool:
        """Reset the peak memory counter; returns False if the system does not permit it."""

    def returning_memory(self) -> AbstractContextManager[bool]:
        """Return a context in which freed memory is returned to the system, so that peaks contain only memory in use.

        The context's value is False if the allocator does not support this or could not be restored afterwards; nothing
        is then changed.
        """

    def used_bytes(self) -> int:
        """Return the memory in use now (CPU: resident set; CUDA: allocated tensors)."""

    def available_bytes(self) -> int | None:
        """Return the memory left before the system kills a process; None if allocation fails with an error instead."""

    def peak_bytes(self) -> dict[str, int]:
        """Return the peaks since the start or the last reset: `peak_bytes`, on CUDA also `peak_reserved_bytes`.

        Empty on CUDA if torch does not compute there, because its allocator does not know others' allocations.
        """

    def held_bytes(self) -> int | None:
        """Return this process's device memory according to the driver; None if the driver does not report it."""


def others_on(name: str, device: Device) -> tuple[str, ...] | None:
    """Name the other processes that compute on a device, given the name of its choice; None if that is not known.

    It may be known on devices whose file defines `foreign_processes`, to a process that does not compute there itself.
    """
    if name not in registry.having("devices", "foreign_processes"):
        return None
    found: tuple[str, ...] | None = registry.module("devices", name).foreign_processes(device)
    return found
