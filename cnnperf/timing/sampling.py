"""Timing of a callable: warm-up until steady, then calls or samples, all kept.

A sample is a number of calls, much longer together than the clock's resolution, between two readings of the counters.
`take` waits for the device once, at the end of a sample; `sample` waits after each call, to time it. This module does
not import torch: the caller passes `synchronize`, for example that of a Device.
"""

from __future__ import annotations

import gc
import math
import resource
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from statistics import median
from time import perf_counter, perf_counter_ns, process_time_ns
from typing import Any, Literal, NamedTuple

from cnnperf.machine.disturbance import (
    WAITED,
    WORTH_SAYING,
    Disturbance,
    lost_in_words,
    read_counters,
    run_delay_s,
)
from cnnperf.record import Measurement
from cnnperf.task import Scalar

SAMPLE_S = 0.010
"""Minimum length of a sample: a thousand times the cost of reading the clocks and counters."""
SPAN = 5
STEADY = 0.10
"""Largest relative difference between the medians of the last SPAN samples and the SPAN before in a steady state."""
MARGIN = 1.05
"""Factor by which samples exceed the requested length, so that faster calls do not make them too short."""
LOST_S = 0.001
"""A sample whose main thread waited longer than this for a core counts as disturbed."""

Call = Callable[[], object]


class Sample(NamedTuple):
    """One sample, in seconds for all its calls together."""

    wall_s: float
    cpu_s: float
    """CPU time of the whole process, all threads."""
    switches: int
    """Involuntary context switches of the whole process."""
    waited_s: float | None
    """Time that the main thread waited for a core; None if the system does not report it."""
    faults: int | None = None
    """Minor page faults of the whole process; None in samples of versions that did not count them."""


class Usage(NamedTuple):
    """Counters of the resources and interruptions of this process."""

    cpu_ns: int
    switches: int
    waited_s: float | None
    faults: int

    def since(self, before: Usage, wall_s: float) -> Sample:
        """Return the difference from an earlier reading, with the given wall time."""
        known = self.waited_s is not None and before.waited_s is not None
        waited_s = self.waited_s - before.waited_s if known else None  # type: ignore[operator]
        cpu_s, switches = (self.cpu_ns - before.cpu_ns) / 1e9, self.switches - before.switches
        return Sample(wall_s, cpu_s, switches, waited_s, self.faults - before.faults)


def usage() -> Usage:
    """Read the counters.

    This takes some microseconds, in which the threads of an engine may fall asleep: do not read between short calls.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(process_time_ns(), used.ru_nivcsw, run_delay_s(), used.ru_minflt)


@dataclass(frozen=True, slots=True)
class Plan:
    """Limits of warm-up and measurement."""

    samples: int = 30
    """Minimum number of timed calls."""
    seconds: float = 1.0
    """Minimum measuring time."""
    sample_s: float = SAMPLE_S
    warmup_samples: int = 2 * SPAN
    """Minimum number of warm-up samples before the steadiness test."""
    warmup_s: float = 60.0
    """Maximum warm-up time, of one sample at least; then samples count even if `Samples.steady` is false."""


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of one callable, in order, none deleted."""

    calls: int
    """Calls in a sample."""
    values: tuple[Sample, ...]
    warmup: tuple[Sample, ...]
    steady: bool
    """Whether the warm-up ended in a steady state, not at its time limit; true if there is no warm-up."""
    disturbance: Disturbance
    times: tuple[float, ...] = ()
    """Wall seconds of each call, in order, if each was timed."""
    noun: str = "samples"
    """Name of the values in sentences."""
    better: Literal["lower"] | None = "lower"
    """Direction of the measurement; None if the length of a value is not a cost."""

    @property
    def call_s(self) -> tuple[float, ...]:
        """Wall seconds per call: of each call if each was timed, else one value per sample."""
        return self.times or tuple(each.wall_s / self.calls for each in self.values)

    @property
    def remark(self) -> str:
        """Description of the disturbances of the samples; empty if there were none."""
        words = list(self.disturbance.words)
        waited = self.disturbance.shares.get(WAITED, 0.0)
        if waited > WORTH_SAYING:
            words.insert(0, lost_in_words(WAITED, waited))
        lost = share_lost(self.values)
        if lost:
            share = f"{100 * lost:.0f} %" if lost >= 0.01 else "< 1 %"
            words.insert(0, f"the main thread lost the CPU for > 1 ms in {share} of {self.noun}")
        if not self.steady:
            words.insert(0, f"not steady after {sum(each.wall_s for each in self.warmup):.0f} s of warm-up")
        return "; ".join(words)

    @property
    def remarks(self) -> dict[str, Scalar]:
        """Remarks on the disturbances: in words, if there were any, and the shares of lost time that are known."""
        words: dict[str, Scalar] = {"disturbed": self.remark} if self.remark else {}
        return words | self.disturbance.shares

    def measurements(self, metric: str, **tags: Scalar) -> Iterator[Measurement]:
        """Yield the times per call as `metric`, and the other readings as `<metric>_…`.

        Times and page faults are per call and context switches per sample, one value per sample of the measurement or
        of the warm-up; where each call was timed, the times themselves are one value per call. Load, steal, throttling
        and frequency are one value each, of the whole measurement. All have `tags`; the calls per sample and the
        disturbances are remarks.
        """

        def measured(
            suffix: str, unit: str, values: Iterable[float], better: Any = None, **remarks: Scalar
        ) -> Measurement:
            return Measurement(
                metric=metric + suffix, unit=unit, better=better, values=tuple(values), tags=tags, remarks=remarks
            )

        calls = 1 if self.times else self.calls
        yield measured("", "s", self.call_s, self.better, calls=calls, **self.remarks)
        yield measured("_cpu", "s", [each.cpu_s / self.calls for each in self.values], calls=self.calls)
        yield measured("_switches", "count", [each.switches for each in self.values], calls=self.calls)
        faults = [each.faults / self.calls for each in self.values if each.faults is not None]
        if faults:
            yield measured("_faults", "count", faults, calls=self.calls)
        if self.warmup:
            warmup = [each.wall_s / self.calls for each in self.warmup]
            yield measured("_warmup", "s", warmup, calls=self.calls, steady=self.steady)
        machine = self.disturbance
        for suffix, unit, value in (
            ("_load", "1", machine.load),
            ("_steal", "s", machine.steal_s),
            ("_throttled", "s", machine.throttled_s),
            ("_frequency", "Hz", machine.frequency_hz),
        ):
            if value is not None:
                yield measured(suffix, unit, [value])


@dataclass(slots=True)
class Warmup:
    """Warm-up samples, which do not count, and their steadiness."""

    least: int = 2 * SPAN
    most_s: float = 60.0
    samples: list[Sample] = field(default_factory=list)
    _begun: float = field(default_factory=perf_counter)

    @property
    def steady(self) -> bool:
        """Whether there are enough samples and the last ones are as long as those before."""
        return len(self.samples) >= self.least and is_steady([each.wall_s for each in self.samples])

    @property
    def exhausted(self) -> bool:
        """Whether the time limit is reached."""
        return perf_counter() - self._begun > self.most_s


def sample(call: Call, synchronize: Callable[[], object], plan: Plan | None = None) -> Samples:
    """Time each call of a callable: warm up, then time calls until the minimum is reached.

    The counters are read between samples, not between calls. The garbage collector is disabled during the measurement
    and restored afterwards.
    """
    plan = plan or Plan()
    with collector_off():
        calls, warmup = settle(call, synchronize, plan)
        before = read_counters()
        values: list[Sample] = []
        times: list[float] = []
        spent_s = 0.0
        while len(times) < plan.samples or spent_s < plan.seconds:
            values.append(_timed(call, calls, synchronize, times))
            spent_s += values[-1].wall_s
        disturbance = Disturbance.since(before)
    return Samples(calls, tuple(values), tuple(warmup.samples), warmup.steady, disturbance, tuple(times))


def _timed(call: Call, calls: int, synchronize: Callable[[], object], times: list[float]) -> Sample:
    """Take one sample, and append the seconds of each of its calls."""
    before = usage()
    for _ in repeat(None, calls):
        start = perf_counter_ns()
        call()
        synchronize()
        times.append((perf_counter_ns() - start) / 1e9)
    return usage().since(before, sum(times[-calls:]))


def settle(call: Call, synchronize: Callable[[], object], plan: Plan) -> tuple[int, Warmup]:
    """Warm up until steady; return the number of calls per sample and the warm-up with that number.

    The first calls are slower than later ones, so the number is checked again in the steady state.
    """
    calls = 1
    while True:
        calls = calibrated(call, synchronize, plan.sample_s, calls)
        warmup = Warmup(plan.warmup_samples, plan.warmup_s)
        # One sample at least, since its length is needed also where no time is given to warm up.
        while not warmup.samples or not (warmup.steady or warmup.exhausted):
            warmup.samples.append(take(call, calls, synchronize))
        short = [each.wall_s for each in warmup.samples[-SPAN:]]
        if median(short) >= plan.sample_s:
            return calls, warmup
        calls = max(calls + 1, math.ceil(MARGIN * calls * plan.sample_s / median(short)))


def calibrated(call: Call, synchronize: Callable[[], object], sample_s: float, calls: int = 1) -> int:
    """Return the number of calls that make a sample of this length, at least the given number."""
    while (wall_s := take(call, calls, synchronize).wall_s) < sample_s:
        # At most tenfold, because times near the clock's resolution are inaccurate.
        calls = max(calls + 1, min(10 * calls, math.ceil(calls * sample_s / max(wall_s, 1e-9))))
    return calls


def take(call: Call, calls: int, synchronize: Callable[[], object]) -> Sample:
    """Take one sample; the device must be idle before and is idle afterwards."""
    before, start = usage(), perf_counter_ns()
    for _ in repeat(None, calls):
        call()
    synchronize()
    wall_s = (perf_counter_ns() - start) / 1e9
    return usage().since(before, wall_s)


def is_steady(times: Sequence[float]) -> bool:
    """Return whether the last SPAN times are about as long as the SPAN before them."""
    if len(times) < 2 * SPAN:
        return False
    ratio = median(times[-SPAN:]) / median(times[-2 * SPAN : -SPAN])
    return 1 / (1 + STEADY) <= ratio <= 1 + STEADY


def share_lost(samples: Sequence[Sample]) -> float:
    """Return the share of samples whose main thread waited for a core; 0 if the system does not report it."""
    return sum((each.waited_s or 0.0) > LOST_S for each in samples) / max(1, len(samples))


@contextmanager
def collector_off() -> Iterator[None]:
    """Disable the garbage collector within the block."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
