"""Disturbances of a measurement: load, stolen and throttled time, clock frequency."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from time import monotonic
from typing import NamedTuple

import psutil

from cnnperf.machine.cgroup import Groups
from cnnperf.machine.processor import frequency_hz

PROC, SYS = Path("/proc"), Path("/sys")
RUN_DELAY = "/proc/self/schedstat"
"""Main thread's statistics: nanoseconds run, nanoseconds waited for a core, times scheduled (Linux sched-stats.rst)."""
WORTH_SAYING = 0.01
"""Smallest share of stolen or throttled time that is reported."""


class Counters(NamedTuple):
    """Counters of the machine at one moment; None for counters that the system does not keep."""

    at_s: float
    steal_s: float | None
    """CPU time that the hypervisor gave to other guests, over all cores."""
    throttled_s: float | None
    """Time for which the quotas of its control groups stopped the process."""
    frequency_hz: float | None
    """Mean over the cores."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Disturbances between two readings; None for those that the system does not report."""

    seconds: float
    load: float | None
    """One-minute load average at the end."""
    steal_s: float | None
    throttled_s: float | None
    frequency_hz: float | None
    """Mean of the two readings."""

    @classmethod
    def since(cls, before: Counters) -> Disturbance:
        """Return the disturbances since a reading."""
        after = read_counters()
        ends = [each for each in (before.frequency_hz, after.frequency_hz) if each is not None]
        return cls(
            seconds=after.at_s - before.at_s,
            load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            steal_s=_rise(before.steal_s, after.steal_s),
            throttled_s=_rise(before.throttled_s, after.throttled_s),
            frequency_hz=fmean(ends) if ends else None,
        )

    @classmethod
    def over(cls, several: Sequence[Disturbance]) -> Disturbance:
        """Combine several intervals: highest load, mean frequency, total lost time."""

        def known(name: str) -> list[float]:
            return [value for each in several if (value := getattr(each, name)) is not None]

        return cls(
            seconds=sum(known("seconds")),
            load=max(known("load"), default=None),
            steal_s=sum(known("steal_s")) if known("steal_s") else None,
            throttled_s=sum(known("throttled_s")) if known("throttled_s") else None,
            frequency_hz=fmean(known("frequency_hz")) if known("frequency_hz") else None,
        )

    @property
    def words(self) -> tuple[str, ...]:
        """Disturbances that may have affected the times, as text."""
        cores = os.cpu_count() or 1
        shares = (
            ("the hypervisor took {:.1%} of the processor time", self.steal_s, cores),
            ("the cgroup's quota stopped it for {:.1%} of the time", self.throttled_s, 1),
        )
        words = [
            text.format(spent / (among * self.seconds)).replace("%", " %")
            for text, spent, among in shares
            if spent is not None and self.seconds and spent > WORTH_SAYING * among * self.seconds
        ]
        if self.load is not None and self.load > cores + 0.5:
            words.append(f"the load was {self.load:.1f} on {cores} cores")
        return tuple(words)


def read_counters() -> Counters:
    """Read the machine's counters."""
    return Counters(monotonic(), _steal_s(), _throttled_s(), frequency_hz())


def run_delay_s() -> float | None:
    """Return the total time that the main thread has waited for a core; None outside Linux."""
    descriptor = _run_delay_descriptor()
    return None if descriptor is None else int(os.pread(descriptor, 100, 0).split()[1]) / 1e9


@cache
def _run_delay_descriptor() -> int | None:
    # Kept open, because it is read twice per sample.
    try:
        return os.open(RUN_DELAY, os.O_RDONLY)
    except OSError:
        return None


def _steal_s() -> float | None:
    try:
        return getattr(psutil.cpu_times(), "steal", None)
    except OSError:
        return None


def _throttled_s() -> float | None:
    try:
        return Groups(PROC, SYS, "cpu").throttled_s()
    except (OSError, ValueError, LookupError):
        return None


def _rise(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
