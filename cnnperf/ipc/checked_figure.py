"""The content of a message about one figure of a claim: the figure, its independent reading, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import computed_field, model_validator

from cnnperf.record import Finite
from cnnperf.task import Frozen

FigureVerdict = Literal["held", "failed", "undecided", "reported"]


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


class CheckedFigure(Frozen):
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
    def verdict(self) -> FigureVerdict:
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

        from cnnperf.stats import INTERVAL_LEVEL, SignedRanks

        ranks = SignedRanks([math.log(ours / theirs) for ours, theirs in zip(figures, readings, strict=True)])
        return cls(
            quantity=quantity,
            unit=unit,
            figure=median(figures),
            reading=median(readings),
            source=source,
            bar=bar,
            of_pairs=math.expm1(float(ranks.estimate)),
            interval=(math.expm1(float(ranks.lower(INTERVAL_LEVEL))), math.expm1(float(ranks.upper(INTERVAL_LEVEL)))),
            raw={"figure": tuple(figures), "reading": tuple(readings)},
        )
