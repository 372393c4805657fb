"""The CPU; its memory is the resident set of this process, as Linux counts it."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from time import perf_counter

import psutil

from cnnperf.machine import available_memory_bytes, cpu_name

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What clear_refs takes for "begin the peak resident set anew" (proc(5))."""


class Cpu:
    """Computes as it is told, so there is nothing to wait for."""

    name = "cpu"
    index = 0
    torch_name = "cpu"
    numerics = None
    has_tf32 = False
    is_asynchronous = False

    def __init__(self) -> None:
        self.label = cpu_name()

    def ready_torch(self) -> None:
        """Do nothing: torch computes here by itself."""

    def synchronize(self) -> None:
        """Return at once."""

    def mark(self) -> float:
        """Read the clock, in seconds."""
        return perf_counter()

    def elapsed_s(self, start: float, end: float) -> float:
        """Return the seconds between two marks."""
        return end - start

    def reset_peak(self) -> bool:
        """Let the peak begin at what is in use now; False where the system does not permit it.

        First the C library gives back what it keeps of freed memory, which would hide as much of what is to come.
        """
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
            trim(0)
        try:
            CLEAR_REFS.write_text(RESET_PEAK)
        except OSError:
            return False
        return True

    def used_bytes(self) -> int:
        """Return the resident set."""
        return int(psutil.Process().memory_info().rss)

    def available_bytes(self) -> int:
        """Return what the machine can give, and the control groups around this process still allow."""
        return available_memory_bytes()

    def peak_bytes(self) -> dict[str, int]:
        """Return the peak resident set; empty where the system does not count it.

        VmHWM and not ru_maxrss, which a child inherits from the process that started it.
        """
        try:
            status = STATUS.read_text()
        except OSError:
            return {}
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
        return {"peak_bytes": 1024 * int(found[1])} if found else {}

    def held_bytes(self) -> None:
        """Return None: the resident set says it already."""


def acquire() -> Cpu:
    """Return the CPU, which is always there."""
    return Cpu()
