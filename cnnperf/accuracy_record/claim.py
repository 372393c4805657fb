"""The claim of an accuracy record, and its test over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cnnperf.accuracy_record import LEVEL
from cnnperf.stats import Student, Welch
from cnnperf.task import Frozen

FEWEST_SEEDS = 2
"""Fewest seeds that have a spread."""

Accuracy = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""Share of the test images."""


@dataclass(frozen=True, slots=True)
class ClaimTest:
    """The test of a claim on the accuracies of several seeds."""

    excess: float
    """Mean accuracy minus the one that it must exceed."""
    p: float
    """One-sided p-value of the hypothesis that the mean does not exceed it."""
    p_below: float
    """One-sided p-value of the hypothesis that the mean reaches it."""

    @property
    def outcome(self) -> Literal["holds", "fails", "undecided"]:
        """Whether the claim is shown, its contrary is, or neither."""
        if self.p < LEVEL:
            return "holds"
        return "fails" if self.p_below < LEVEL else "undecided"

    @property
    def exit_code(self) -> Literal[0, 1, 3]:
        """Exit status of a command with this result."""
        codes: dict[str, Literal[0, 1, 3]] = {"holds": 0, "fails": 1, "undecided": 3}
        return codes[self.outcome]


class StandingRecord(Frozen):
    """An earlier record with the same dataset, budget and device, which a new one must beat."""

    name: str
    """Name of its folder."""
    accuracies: tuple[Accuracy, ...] = Field(min_length=FEWEST_SEEDS)


class RecordClaim(Frozen):
    """The figure that the mean accuracy over seeds exceeds: a target, or the mean of the standing record."""

    target: Accuracy | None = None
    standing: StandingRecord | None = None

    @model_validator(mode="after")
    def _is_single(self) -> Self:
        if (self.target is None) == (self.standing is None):
            raise ValueError("a claim has either a target or a standing record")
        return self

    def tested(self, accuracies: Sequence[float], test_images: int) -> ClaimTest:
        """Test the claim on accuracies, one per seed, each of the same number of test images.

        The deviation of the seeds counts as one image at least, the resolution of an accuracy.
        """
        least = 1 / test_images
        test: Student | Welch
        if self.standing:
            test, value = Welch(self.standing.accuracies, accuracies, (least, least)), 0.0
        else:
            assert self.target is not None
            test, value = Student(accuracies, least), self.target
        return ClaimTest(test.estimate - value, test.p_above(value), test.p_below(value))

    @property
    def words(self) -> str:
        """Return the claim in words."""
        if self.standing:
            return f"above the standing record {self.standing.name} ({100 * fmean(self.standing.accuracies):.2f} %)"
        assert self.target is not None
        return f"above {100 * self.target:.6g} %"
