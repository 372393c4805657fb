"""Facts of a GPU from NVIDIA's management library, by nvidia-ml-py; none without that package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import PurePath
from typing import Any, NamedTuple, TypeVar

A = TypeVar("A")


class ComputeProcess(NamedTuple):
    """A process that computes on a GPU."""

    pid: int
    """Number outside containers."""
    used_bytes: int | None
    """Memory that it holds on the GPU; None if the driver does not report it."""
    name: str | None
    """Name of its program; None if the driver does not report it."""

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})" if self.name else f"process {self.pid}"


def compute_processes(uuid: str) -> tuple[ComputeProcess, ...] | None:
    """Return the processes that compute on the GPU or MIG instance of this UUID, which has no prefix.

    Processes that only draw are not among them. None without nvidia-ml-py, or if the driver does not answer.
    """

    def listed(pynvml: Any, handle: Any) -> tuple[ComputeProcess, ...]:
        found = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        return tuple(ComputeProcess(each.pid, each.usedGpuMemory, _name(pynvml, each.pid)) for each in found)

    return _asked(uuid, listed)


def settings(uuid: str) -> dict[str, float]:
    """Return the power limit and the clocks of the GPU of this UUID, by the names of `Gpu`'s fields, as far as known.

    NVML tells them of a whole GPU only, not of its MIG instances.
    """
    return _asked(uuid, lambda pynvml, handle: dict(_settings(pynvml, handle))) or {}


def _settings(pynvml: Any, handle: Any) -> Iterator[tuple[str, float]]:
    clocks = {"sm_clock_hz": pynvml.NVML_CLOCK_SM, "memory_clock_hz": pynvml.NVML_CLOCK_MEM}
    # Each is unknown to some GPUs and drivers.
    with suppress(pynvml.NVMLError):
        yield "power_limit_w", pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3
    for name, clock in clocks.items():
        with suppress(pynvml.NVMLError):
            yield f"max_{name}", 1e6 * pynvml.nvmlDeviceGetMaxClockInfo(handle, clock)
        with suppress(pynvml.NVMLError):
            yield name, 1e6 * pynvml.nvmlDeviceGetApplicationsClock(handle, clock)


def _name(pynvml: Any, pid: int) -> str | None:
    with suppress(pynvml.NVMLError):
        told = pynvml.nvmlSystemGetProcessName(pid)
        path = told.decode(errors="replace") if isinstance(told, bytes) else told
        return PurePath(path).name or None
    return None


def _asked(uuid: str, question: Callable[[Any, Any], A]) -> A | None:
    """Return the answer to a question, which is asked with nvidia-ml-py and the GPU's handle; None if there is none."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            return question(pynvml, _handle(pynvml, uuid))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


def _handle(pynvml: Any, uuid: str) -> Any:
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError:
        return pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
