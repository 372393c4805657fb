"""The CPU; its memory readings are the resident set of this process, as counted by Linux."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import psutil

from cnnperf.machine.fingerprint import available_memory_bytes, cpu_name

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Value for clear_refs that resets the peak resident set (proc(5))."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameter numbers of mallopt (malloc.h)."""
TRIM_THRESHOLD, MMAP_THRESHOLD = "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"
"""Environment variables that set the same parameters at the start of a process (mallopt(3))."""
TRIMMED_BYTES = 2**17
"""glibc's default: a larger free end of the heap is returned."""
NEVER = -1
"""Trim threshold with which the heap is never trimmed (mallopt(3)); a larger one than an int has the same effect."""
MAPPED_BYTES = 2**16
"""Smaller blocks come from the heap, because a separate map is rounded up to pages of 4 KiB."""


class Cpu:
    """The CPU; its calls return when their work is done, so there is nothing to wait for."""

    name = "cpu"
    index = 0
    torch_name = "cpu"
    numerics = None
    has_tf32 = False
    is_asynchronous = False

    def __init__(self) -> None:
        self.label = cpu_name()

    def ready_torch(self) -> None:
        """Do nothing: the CPU has no numerical settings."""

    def synchronize(self) -> None:
        """Return at once."""

    def mark(self) -> float:
        """Read the clock, in seconds."""
        return perf_counter()

    def elapsed_s(self, start: float, end: float) -> float:
        """Return the seconds between two marks."""
        return end - start

    def reset_peak(self) -> bool:
        """Reset the peak to the memory in use now; returns False if the system does not permit it.

        First the C library returns its freed memory to the system, because reusing it would not raise the peak.
        """
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
            trim(0)
        try:
            CLEAR_REFS.write_text(RESET_PEAK)
        except OSError:
            return False
        return True

    @contextmanager
    def returning_memory(self) -> Iterator[bool]:
        """Make the C library map each larger block separately, unmap it when it is freed, and trim its heap.

        Otherwise it allocates blocks from a heap and keeps freed ones. Whether the next tensor fits into a freed block
        differs between processes and changes the resident set by up to a third. Mapping causes page faults, so nothing
        is timed inside this context.

        Nothing is changed unless the environment sets the threshold. Otherwise glibc adapts its thresholds to freed
        blocks, and mallopt ends this for the rest of the process: later times would not be those of glibc's defaults.
        """
        chosen = os.environ.get(MMAP_THRESHOLD)
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if not chosen or not mallopt or not mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES):
            yield False
            return
        mallopt(M_TRIM_THRESHOLD, TRIMMED_BYTES)
        try:
            yield True
        finally:
            trim = int(os.environ.get(TRIM_THRESHOLD, TRIMMED_BYTES))
            mallopt(M_TRIM_THRESHOLD, trim if trim < 2**31 else NEVER)
            mallopt(M_MMAP_THRESHOLD, int(chosen))

    def used_bytes(self) -> int:
        """Return the resident set."""
        return int(psutil.Process().memory_info().rss)

    def available_bytes(self) -> int:
        """Return the memory available on the machine, limited by the control groups of this process."""
        return available_memory_bytes()

    def peak_bytes(self) -> dict[str, int]:
        """Return the peak resident set; empty if the system does not count it.

        Reads VmHWM, not ru_maxrss, which a child inherits from its parent.
        """
        try:
            status = STATUS.read_text()
        except OSError:
            return {}
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
        return {"peak_bytes": 1024 * int(found[1])} if found else {}

    def held_bytes(self) -> None:
        """Return None: the resident set already contains this."""


def acquire() -> Cpu:
    """Return the CPU, which is always available."""
    return Cpu()
