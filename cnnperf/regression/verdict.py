"""Verdicts: the results of a comparison of two versions."""

from __future__ import annotations

from collections import Counter
from typing import Literal, get_args

from pydantic import Field, SerializeAsAny, computed_field

from cnnperf.record import Finite
from cnnperf.task import Frozen
from cnnperf.units import scaled

Outcome = Literal["worse", "missing", "error", "inconclusive", "better", "same", "indicative"]

FAILING = ("worse", "missing", "error")


class Verdict(Frozen):
    """The result for one metric of one cell."""

    cell: str
    metric: str
    """With the tags that tell it apart, such as `infer.latency[engine=torch]`; a stage where all of it is meant."""
    outcome: Outcome
    unit: str | None = None
    baseline: Finite | None = None
    """In the metric's unit; None if there is none."""
    candidate: Finite | None = None
    change: Finite | None = None
    """Of a fraction candidate less baseline, of anything else candidate / baseline less 1."""
    low: Finite | None = None
    """The least change that is not excluded; None if none is."""
    high: Finite | None = None
    """The greatest change that is not excluded; None if none is."""
    p: Finite | None = None
    """One-sided, of the change's direction; None where nothing was tested."""
    p_holm: Finite | None = None
    """The same, adjusted for all that was tested; this is compared with the level."""
    n: int | None = None
    """Repeats, of a fraction trainings, on the side that has fewer."""
    remark: str = ""
    """Why, and what would decide it."""

    @property
    def evidence(self) -> str:
        """The evidence for the outcome, in words."""
        words = []
        if self.baseline is not None and self.candidate is not None:
            words.append(f"{scaled(self.baseline, self.unit)} → {scaled(self.candidate, self.unit)}")
        if self.change is not None:
            words.append(self._changed())
        if self.n is not None:
            words.append(f"n={self.n}")
        if self.p is not None and self.p_holm is not None:
            words.append(f"p={self.p:.2g} (Holm {self.p_holm:.2g})")
        return "  ".join([*words, self.remark] if self.remark else words)

    def _changed(self) -> str:
        unit = "points" if self.unit == "fraction" else "%"
        ends = ["" if end is None else f"{100 * end:+.1f}" for end in (self.low, self.high)]
        interval = f" [{', '.join(ends)}]" if any(ends) else ""
        return f"{100 * (self.change or 0):+.1f} {unit}{interval}"


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
        """How many of each outcome, and what the command ends with."""
        counts = Counter(verdict.outcome for verdict in self.verdicts)
        words = [f"{counts[outcome]} {outcome}" for outcome in get_args(Outcome) if counts[outcome]]
        return f"{', '.join(words) or 'nothing was compared'} → exit {self.exit_code}"
