"""The cores that this process may use, divided into parts."""

from __future__ import annotations

import os
from pathlib import Path

from cnnperf.machine.processor import read_text


def shares(count: int, sys: Path) -> tuple[tuple[int, ...], ...]:
    """Divide the cores that this process may use into parts of as many physical cores, neighbours together.

    The threads of a physical core are never in two parts. Parts are empty if there are more of them than physical
    cores, or if the system binds no process to cores.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    whole = list(dict.fromkeys(tuple(sorted(_threads_of(core, sys) & allowed)) for core in sorted(allowed)))
    each = len(whole) // count
    parts = (whole[place * each : (place + 1) * each] for place in range(count))
    return tuple(tuple(sorted(core for threads in part for core in threads)) for part in parts)


def _threads_of(core: int, sys: Path) -> set[int]:
    """Return the threads of a core's physical core, itself among them."""
    found = {core}
    listed = read_text(sys / f"devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    for run in listed.split(",") if listed else ():
        first, _, last = run.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found
