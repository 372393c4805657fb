"""Verdicts: the results of a comparison of two versions."""

from __future__ import annotations

from collections import Counter
from typing import Literal, get_args

from pydantic import Field, SerializeAsAny, computed_field

from cnnperf.inference.metrics import ACCURACY_DROP
from cnnperf.record import Finite
from cnnperf.task import Frozen
from cnnperf.units import scaled

Outcome = Literal["worse", "missing", "error", "inconclusive", "better", "same", "indicative"]

FAILING = ("worse", "missing", "error")


def is_of_fractions(metric: str, unit: str | None) -> bool:
    """Tell whether a metric is a fraction or a difference between fractions: readers see its change in points."""
    return unit == "fraction" or metric.partition("[")[0] == ACCURACY_DROP


def is_difference(metric: str, unit: str | None, baseline: float, candidate: float) -> bool:
    """Return whether a change is given as a difference instead of a ratio less 1.

    So it is for fractions, and if a value is 0 or negative.
    """
    return is_of_fractions(metric, unit) or min(baseline, candidate) <= 0


def unit_as_read(metric: str, unit: str | None) -> str | None:
    """Return the unit in which readers see both values: `fraction` for a difference between fractions too."""
    return "fraction" if is_of_fractions(metric, unit) else unit


def change_in_words(change: float, metric: str, unit: str | None, *, is_in_unit: bool) -> str:
    """Return a change, or an end of its interval, in readable form: points, percent, or its unit if `is_in_unit`."""
    if is_of_fractions(metric, unit):
        return f"{100 * change:+.1f} points"
    if is_in_unit:
        return f"{'-' if change < 0 else '+'}{scaled(abs(change), unit)}"
    return f"{100 * change:+.1f} %"


class Verdict(Frozen):
    """The result for one metric of one cell."""

    cell: str
    metric: str
    """With the tags and settings that distinguish it: `infer.latency[engine=torch]`; the name of a stage if the
    verdict is on the whole stage."""
    outcome: Outcome
    """`indicative`: shown, without effect on the exit status. For stored runs, these are times, speeds and other
    numbers without a rule of their own, memory of single processes, and an engine's accuracy if that of the trainings
    is tested."""
    unit: str | None = None
    """Unit of both values: that of the metric."""
    baseline: Finite | None = None
    """Value of the baseline in `unit`; None if it has none."""
    candidate: Finite | None = None
    """Value of the candidate, likewise."""
    change: Finite | None = None
    """candidate / baseline - 1; where `is_difference`, candidate - baseline in `unit`."""
    low: Finite | None = None
    """The least change that is not excluded; None if none is."""
    high: Finite | None = None
    """The greatest change that is not excluded; None if none is."""
    p: Finite | None = None
    """One-sided p-value; None if nothing was tested. For stored runs, it is that of a change in the direction of
    `change`; for versions measured in turns, that of a faster candidate if the outcome is `better`, else of a slower
    candidate."""
    p_holm: Finite | None = None
    """`p` adjusted for all tests of the comparison (Holm); this value is compared with the level."""
    n: int | None = None
    """Sample size of the smaller side: the number of repeats; for a fraction, of the seeds of trainings."""
    remark: str = ""
    """Reason for the outcome, and what would decide it."""
    better: Literal["lower", "higher"] | None = Field(default=None, exclude=True)
    """The metric's direction; None if the verdict has no values."""

    @property
    def read_as(self) -> str | None:
        """The unit in which readers see both values."""
        return unit_as_read(self.metric, self.unit)

    @property
    def evidence(self) -> str:
        """The evidence for the outcome, in words."""
        words = []
        if self.baseline is not None and self.candidate is not None:
            words.append(f"{scaled(self.baseline, self.read_as)} → {scaled(self.candidate, self.read_as)}")
        if self.change is not None:
            words.append(self._changed())
        if self.n is not None:
            words.append(f"n={self.n}")
        if self.p is not None and self.p_holm is not None:
            words.append(f"p={self.p:.2g} (Holm {self.p_holm:.2g})")
        return "  ".join([*words, self.remark] if self.remark else words)

    @property
    def is_in_unit(self) -> bool:
        """Whether the change is a difference in `unit` instead of a ratio less 1."""
        values = [value for value in (self.baseline, self.candidate) if value is not None]
        return is_of_fractions(self.metric, self.unit) or (
            len(values) == 2 and is_difference(self.metric, self.unit, *values)
        )

    def _changed(self) -> str:
        words = change_in_words(self.change or 0.0, self.metric, self.unit, is_in_unit=self.is_in_unit)
        if self.is_in_unit and not is_of_fractions(self.metric, self.unit):
            return words
        ends = ["" if end is None else f"{100 * end:+.1f}" for end in (self.low, self.high)]
        return f"{words} [{', '.join(ends)}]" if any(ends) else words


class Comparison(Frozen):
    """All verdicts of one comparison, and what must be known to read them."""

    verdicts: tuple[SerializeAsAny[Verdict], ...]
    notes: tuple[str, ...]
    interrupted: bool = Field(default=False, exclude=True)
    """Whether Ctrl-C ended it early, so that it was decided on what there was."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        """1 if anything is worse, missing or an error, else 3 if anything is inconclusive or nothing was compared."""
        outcomes = {verdict.outcome for verdict in self.verdicts}
        if not outcomes.isdisjoint(FAILING):
            return 1
        return 3 if "inconclusive" in outcomes or not outcomes else 0

    @property
    def summary(self) -> str:
        """Number of verdicts per outcome, and the exit status."""
        counts = Counter(verdict.outcome for verdict in self.verdicts)
        words = [f"{counts[outcome]} {outcome}" for outcome in get_args(Outcome) if counts[outcome]]
        return f"{', '.join(words) or 'nothing was compared'} → exit {self.exit_code}"
