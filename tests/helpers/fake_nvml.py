"""A fake nvidia-ml-py with one GPU or MIG instance, on which processes run."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

UUID = "00112233-4455-6677-8899-aabbccddeeff"


class Nvml:
    """The module `pynvml`; `open` counts the calls that have opened the library and not closed it."""

    class NVMLError(Exception):
        """The exception of nvidia-ml-py."""

    def __init__(self, *running: tuple[int, int | None], kind: str = "GPU", uuids: Sequence[str] = (UUID,)) -> None:
        """running: number and memory of each process on the GPU. kind: prefix of the UUIDs."""
        self.open = 0
        self._running = [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in running]
        self._handles = {f"{kind}-{uuid}" for uuid in uuids}

    def nvmlInit(self) -> None:  # noqa: N802 - the library's name
        """Open the library."""
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Close the library."""
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, identity: str) -> str:  # noqa: N802
        """Return the handle of the GPU, or raise an error for another UUID."""
        if identity not in self._handles:
            raise self.NVMLError
        return identity

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:  # noqa: N802
        """Return the processes that run on the GPU."""
        assert self.open
        assert handle in self._handles
        return self._running

    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:  # noqa: N802
        """Return the limit in mW; a MIG instance has none."""
        if handle.startswith("MIG-"):
            raise self.NVMLError
        return 350_500

    def nvmlDeviceGetMaxClockInfo(self, handle: str, clock: int) -> int:  # noqa: N802
        """Return the highest clock in MHz."""
        return {self.NVML_CLOCK_SM: 1980, self.NVML_CLOCK_MEM: 2619}[clock]

    def nvmlDeviceGetApplicationsClock(self, handle: str, clock: int) -> int:  # noqa: N802
        """Return the multiprocessors' clock in MHz; that of the memory is not supported."""
        if clock != self.NVML_CLOCK_SM:
            raise self.NVMLError
        return 1500

    def nvmlSystemGetProcessName(self, pid: int) -> str | bytes:  # noqa: N802
        """Return the path of an odd process's program as text, of an even one's as bytes; 7 has none."""
        if pid == 7:
            raise self.NVMLError
        return "/usr/bin/python3" if pid % 2 else b"/opt/trainer"
