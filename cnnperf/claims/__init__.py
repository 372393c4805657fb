"""The project's claims, each compared with an independent reading on one device. One file per claim.

A file has three names: `CLAIM`, the claim in a sentence; `LIMIT_S`, the seconds that it may take (None: all that are
left, after the others); and `check(context)`, which yields Readings. `check` runs in a fresh process. It raises
NotApplicable where this machine cannot put the claim to the test; any other error means that the claim did not hold.
Torch is imported within `check` alone, so that the command can list the claims without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import computed_field, model_validator

from cnnperf.record import Finite
from cnnperf.task import Frozen

if TYPE_CHECKING:
    from cnnperf.devices import Device

ReadingVerdict = Literal["held", "failed", "undecided", "reported"]
LEVEL = 0.025
"""On either side of an interval."""


class NotApplicable(Exception):  # noqa: N818 - a finding about the machine
    """Why a claim cannot be put to the test on this machine."""


class Bar(Frozen):
    """How far the project's figure may lie from the independent reading, both ends included."""

    low: Finite
    high: Finite | None
    """None where it may be any larger."""
    reason: str
    """Why so far and no further, in a sentence."""

    @classmethod
    def within(cls, most: float, reason: str) -> Self:
        """Allow as much on either side."""
        return cls(low=-most, high=most, reason=reason)


class Reading(Frozen):
    """One figure of the project's beside the independent reading of the same quantity."""

    quantity: str
    unit: str
    """As of a Measurement."""
    figure: Finite
    """What the project says."""
    reading: Finite
    source: str
    """Where the independent reading comes from."""
    relative: bool = True
    """Whether the difference is a share of the reading; otherwise it is in the unit."""
    bar: Bar | None
    """None where the figure is reported and nothing is demanded of it."""
    of_pairs: Finite | None = None
    """The difference by pairs of values that were measured in turns, for which it is estimated; None elsewhere."""
    interval: tuple[Finite, Finite] | None = None
    """Of the difference, at 95 %; None where there is but one pair of values, or where both are exact."""
    raw: Mapping[str, tuple[Finite, ...]] = {}
    """The values behind both, in order."""

    @model_validator(mode="after")
    def _check_reading(self) -> Self:
        if self.relative and not self.reading:
            raise ValueError(f"{self.quantity}: the difference from a reading of 0 has no share")
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def difference(self) -> float:
        """The figure less the reading, as a share of the reading or in the unit; in turns, the estimate over pairs."""
        if self.of_pairs is not None:
            return self.of_pairs
        return self.figure / self.reading - 1 if self.relative else self.figure - self.reading

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> ReadingVerdict:
        """Held if the whole interval is within the bar, failed if none of it is, undecided in between."""
        if self.bar is None:
            return "reported"
        low, high = self.interval or (self.difference, self.difference)
        most = math.inf if self.bar.high is None else self.bar.high
        if self.bar.low <= low and high <= most:
            return "held"
        return "failed" if high < self.bar.low or low > most else "undecided"

    @classmethod
    def in_turns(
        cls, quantity: str, unit: str, figures: Sequence[float], readings: Sequence[float], *, source: str, bar: Bar
    ) -> Self:
        """Compare values that were measured in turns, pair by pair.

        Figure and reading are the medians, which a drift moves; difference and interval are those of the pairs' log
        ratios: Hodges–Lehmann, and the exact signed-rank test.
        """
        from statistics import median

        from cnnperf.stats import SignedRanks

        ranks = SignedRanks([math.log(ours / theirs) for ours, theirs in zip(figures, readings, strict=True)])
        return cls(
            quantity=quantity,
            unit=unit,
            figure=median(figures),
            reading=median(readings),
            source=source,
            bar=bar,
            of_pairs=math.expm1(float(ranks.estimate)),
            interval=(math.expm1(float(ranks.lower(LEVEL))), math.expm1(float(ranks.upper(LEVEL)))),
            raw={"figure": tuple(figures), "reading": tuple(readings)},
        )


@dataclass(frozen=True, slots=True)
class Context:
    """What a claim is given."""

    device: str
    """Its name: `cpu`, `cuda`."""
    acquire: Callable[[], Device]
    """Returns the device; on CUDA this imports torch."""
    scratch: Path
    """A folder that all claims of a session share. What the tasks of one left there, the next need not run again."""
    seconds: float
    """How long the claim may take."""
    threads: int
    progress: Callable[[str], None] = lambda text: None
    """Says on the screen what is under way."""


class Order(Frozen):
    """What a child is asked for."""

    device: str
    claim: str = ""
    scratch: Path = Path()
    seconds: float = 0.0
    threads: int = 1
