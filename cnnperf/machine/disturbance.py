"""Disturbances of a measurement: waits for a core, stolen and throttled time, load, clock frequency; and their rule."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from time import monotonic
from typing import NamedTuple

import psutil

from cnnperf.machine.cgroup import Groups
from cnnperf.machine.processor import frequency_hz
from cnnperf.record import Measurement

PROC, SYS = Path("/proc"), Path("/sys")
RUN_DELAY = "/proc/self/schedstat"
"""Main thread's statistics: nanoseconds run, nanoseconds waited for a core, times scheduled (Linux sched-stats.rst)."""
WORTH_SAYING = 0.01
"""Smallest share of waiting, stolen or throttled time that is reported."""

TOLERATED = 0.05
"""Largest share of waiting, stolen or throttled time with which a measurement counts as undisturbed."""
UNDISTURBED = "no"
"""Answer for a measurement whose shares are known and tolerated."""
WAITED, STOLEN, THROTTLED = "waited_share", "stolen_share", "throttled_share"
"""Remarks of a timed measurement: shares of its time that were lost, absent where the system does not report them."""
SENTENCES = {
    WAITED: "a thread waited for a core for {} of the time",
    STOLEN: "the hypervisor took {} of the processor time",
    THROTTLED: "the cgroup's quota stopped it for {} of the time",
}
"""Each share in words."""
FOREIGN_PROCESSES = "foreign_processes"
"""Remark of the device that a task used: other processes that computed there when the task began."""


class Counters(NamedTuple):
    """Counters of the machine and of this process at one moment; None for counters that the system does not keep."""

    at_s: float
    steal_s: float | None
    """CPU time that the hypervisor gave to other guests, over all cores."""
    throttled_s: float | None
    """Time for which the quotas of its control groups stopped the process."""
    frequency_hz: float | None
    """Mean over the cores."""
    waited_s: Mapping[int, float] | None = None
    """Time that each thread of this process has waited for a core, by the thread's number."""


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
    waited_s: float | None = None
    """Longest time that a thread of this process waited for a core: threads that share their work wait for that one."""

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
            waited_s=_longest_wait_s(before.waited_s, after.waited_s),
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
            waited_s=sum(known("waited_s")) if known("waited_s") else None,
        )

    @property
    def shares(self) -> dict[str, float]:
        """The shares of the time that were lost, by the name of their remark; without those that are unknown."""
        cores = os.cpu_count() or 1
        lost = ((WAITED, self.waited_s, 1), (STOLEN, self.steal_s, cores), (THROTTLED, self.throttled_s, 1))
        # Counters of the kernel may run backwards.
        return {
            name: max(0.0, spent) / (among * self.seconds)
            for name, spent, among in lost
            if spent is not None and self.seconds
        }

    @property
    def words(self) -> tuple[str, ...]:
        """Disturbances by the machine that may have affected the times, as text; the waits of this process are not."""
        cores = os.cpu_count() or 1
        worth_saying = {name: share for name, share in self.shares.items() if share > WORTH_SAYING}
        words = [lost_in_words(name, share) for name, share in worth_saying.items() if name != WAITED]
        if self.load is not None and self.load > cores + 0.5:
            words.append(f"the load was {self.load:.1f} on {cores} cores")
        return tuple(words)


def lost_in_words(name: str, share: float) -> str:
    """Return a share of lost time in words."""
    return SENTENCES[name].format(f"{100 * share:.1f} %")


def disturbed(measured: Iterable[Measurement]) -> str | None:
    """Return in words what disturbed measurements, UNDISTURBED if nothing did, None if that was not measured.

    The rule: a measurement is disturbed if a thread of its process waited for a core, the hypervisor took the
    processor, or a quota stopped the process, for more than TOLERATED of the time, or if other processes computed on
    its device. The load average does not count: it covers a minute, and what the same run did before.
    """
    shares: dict[str, float] = {}
    others = 0
    for m in measured:
        others = max(others, int(m.remarks.get(FOREIGN_PROCESSES, 0)))
        for name in SENTENCES.keys() & m.remarks.keys():
            shares[name] = max(float(m.remarks[name]), shares.get(name, 0.0))
    words = [lost_in_words(name, shares[name]) for name in SENTENCES if shares.get(name, 0.0) > TOLERATED]
    if others:
        words.append(f"{others} other process{'es' * (others > 1)} computed on the device")
    return "; ".join(words) or (UNDISTURBED if WAITED in shares else None)


def is_disturbing(words: str | None) -> bool:
    """Return whether the answer of `disturbed` names a disturbance."""
    return words not in (None, UNDISTURBED)


def read_counters() -> Counters:
    """Read the machine's counters, and those of this process."""
    return Counters(monotonic(), _steal_s(), _throttled_s(), frequency_hz(), _waits_s())


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


def _waits_s() -> dict[int, float] | None:
    """Return the time that each thread of this process has waited for a core; None outside Linux."""
    waits: dict[int, float] = {}
    try:
        for thread in (PROC / "self/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # It has ended meanwhile.
                waits[int(thread.name)] = int((thread / "schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, LookupError):
        return None
    return waits or None


def _longest_wait_s(before: Mapping[int, float] | None, after: Mapping[int, float] | None) -> float | None:
    """Return the longest wait of a thread between two readings; a thread that is new has waited since its start."""
    if before is None or after is None:
        return None
    return max(total - before.get(thread, 0.0) for thread, total in after.items())


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
