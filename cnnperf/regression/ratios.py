"""The result of a replicate: the ratio of each pair of samples, their median, and their noise."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, stdev
from typing import Literal

from cnnperf.duet.schedule import Played
from cnnperf.regression.rule import Series
from cnnperf.stats import drifts
from cnnperf.timing.sampling import share_lost

SampleTime = Literal["wall_s", "cpu_s"]


def pairs(played: Played, clock: SampleTime = "wall_s") -> list[float]:
    """Return ln(candidate / baseline) of each pair of samples; NaN if a clock measured no time."""
    baseline, candidate = ([getattr(each, clock) for each in taken.samples] for taken in played.taken)
    return of_times(baseline, candidate)


def of_times(baseline: Sequence[float], candidate: Sequence[float]) -> list[float]:
    """Return ln(candidate / baseline) of each pair of times; NaN if one is 0."""
    # A difference of logarithms, which changes its sign and nothing else when the sides are swapped.
    return [
        math.log(other) - math.log(one) if one > 0 and other > 0 else math.nan
        for one, other in zip(baseline, candidate, strict=True)
    ]


def difference(played: Played, clock: SampleTime = "wall_s") -> float:
    """Return the replicate's result: the median over its pairs."""
    return middle(pairs(played, clock))


def middle(of_pairs: Sequence[float]) -> float:
    """Return the median of a replicate's pairs; NaN if one of them is NaN."""
    return math.nan if any(map(math.isnan, of_pairs)) else median(of_pairs)


def series(played: Sequence[Played], error: str | None = None) -> Series:
    """Return the replicates of a contest for the rule."""
    return Series(
        tuple(map(difference, played)), tuple(drifted(each) or not each.taken.baseline.steady for each in played), error
    )


def drifted(played: Played) -> bool:
    """Return whether the ratio drifted within the replicate."""
    return drifts(pairs(played))


@dataclass(frozen=True, slots=True)
class Noise:
    """The noise of a measurement; None for deviations of too few replicates."""

    replicates: int
    between_processes: float | None
    """Deviation of ln of the baseline's median time between processes, the largest of all contests."""
    between_replicates: float | None
    """Deviation of the replicates' differences, each the median of its pairs, the largest of all contests."""
    switched: float
    """Share of samples that were interrupted by another process."""
    lost: float
    """Share of samples whose main thread waited for a core for more than a millisecond."""
    steal: float | None
    """Share of processor time that the hypervisor took; None if the system does not report it."""
    drifted: int
    unsteady: int

    @classmethod
    def of(cls, contests: Iterable[Sequence[Played]]) -> Noise:
        """Return the noise over all contests."""
        contests = [played for played in contests if played]
        every = [each for played in contests for each in played]
        samples = [sample for each in every for taken in each.taken for sample in taken.samples]
        stolen = [each.disturbance.steal_s for each in every if each.disturbance.steal_s is not None]
        seconds = sum(each.disturbance.seconds for each in every)
        several = [played for played in contests if len(played) > 1]
        return cls(
            replicates=len(every),
            between_processes=max((stdev(map(_middle, played)) for played in several), default=None),
            between_replicates=max((stdev(map(difference, played)) for played in several), default=None),
            switched=sum(sample.switches > 0 for sample in samples) / max(1, len(samples)),
            lost=share_lost(samples) if samples else 0.0,
            steal=sum(stolen) / (seconds * (os.cpu_count() or 1)) if stolen and seconds else None,
            drifted=sum(map(drifted, every)),
            unsteady=sum(not each.taken.baseline.steady for each in every),
        )

    def __str__(self) -> str:
        words = [
            f"{name} {_percent(value)} %"
            for name, value in (
                ("between processes", self.between_processes),
                ("replicates", self.between_replicates),
                ("involuntary switches", self.switched),
                ("main thread lost the CPU for > 1 ms", self.lost),
                ("steal", self.steal),
            )
            if value is not None
        ]
        counts = f"drift {self.drifted}/{self.replicates}, not steady {self.unsteady}/{self.replicates}"
        return ", ".join([*words, counts])


def _percent(share: float) -> str:
    """Return a share in percent, with two digits or more, and never as a power of ten."""
    return f"{100 * share:.2g}" if share < 0.995 else f"{100 * share:.0f}"


def _middle(played: Played) -> float:
    return math.log(median(each.wall_s for each in played.taken.baseline.samples))
