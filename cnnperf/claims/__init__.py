"""The project's claims, each compared with an independent reading on one device. One file per claim.

A file defines `CLAIM`, the claim in a sentence; `LIMIT_S`, its time limit in seconds (None: all remaining time, after
the other claims); and `check(context)`, which yields Readings. `check` runs in a fresh process. It raises NotApplicable
if this machine cannot test the claim; any other error means that the claim did not hold. Torch is imported only inside
`check`, so that the command lists the claims without torch.
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
"""Error probability on each side of an interval."""


class NotApplicable(Exception):  # noqa: N818 - a finding about the machine
    """The reason why a claim cannot be tested on this machine."""


class Bar(Frozen):
    """Permitted difference of the project's figure from the independent reading, both ends included."""

    low: Finite
    high: Finite | None
    """Upper end; None if there is no limit."""
    reason: str
    """Reason for these limits, in a sentence."""

    @classmethod
    def within(cls, most: float, reason: str) -> Self:
        """Allow the same difference on both sides."""
        return cls(low=-most, high=most, reason=reason)


class Reading(Frozen):
    """One figure of the project and the independent reading of the same quantity."""

    quantity: str
    unit: str
    """Unit, as in a Measurement."""
    figure: Finite
    """The project's figure."""
    reading: Finite
    source: str
    """Source of the independent reading."""
    relative: bool = True
    """Whether the difference is relative to the reading; otherwise it is in the unit."""
    bar: Bar | None
    """Permitted difference; None if the figure is only reported."""
    of_pairs: Finite | None = None
    """Difference estimated from pairs of values measured in turns; None for other readings."""
    interval: tuple[Finite, Finite] | None = None
    """95 % interval of the difference; None if there is only one pair of values or both are exact."""
    raw: Mapping[str, tuple[Finite, ...]] = {}
    """Raw values of figure and reading, in order."""

    @model_validator(mode="after")
    def _check_reading(self) -> Self:
        if self.relative and not self.reading:
            raise ValueError(f"{self.quantity}: the difference from a reading of 0 has no share")
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def difference(self) -> float:
        """Figure minus reading, relative to the reading or in the unit; in turns, the estimate over pairs."""
        if self.of_pairs is not None:
            return self.of_pairs
        return self.figure / self.reading - 1 if self.relative else self.figure - self.reading

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> ReadingVerdict:
        """Held if the whole interval is within the bar, failed if it is entirely outside, otherwise undecided."""
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

        Figure and reading are medians, which a drift affects; difference and interval come from the pairs' log ratios:
        Hodges–Lehmann estimate and exact signed-rank test.
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
    """The inputs of a claim."""

    device: str
    """Name of the device: `cpu`, `cuda`."""
    acquire: Callable[[], Device]
    """Returns the device; on CUDA this imports torch."""
    scratch: Path
    """Folder shared by all claims of a session; a claim reuses the finished tasks of earlier claims."""
    seconds: float
    """Time limit of the claim in seconds."""
    threads: int
    progress: Callable[[str], None] = lambda text: None
    """Shows the current work on the screen."""


class Order(Frozen):
    """The request to a child."""

    device: str
    claim: str = ""
    scratch: Path = Path()
    seconds: float = 0.0
    threads: int = 1
