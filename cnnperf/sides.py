"""The two sides of a comparison, and a value for each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, NamedTuple, TypeVar

Side = Literal["baseline", "candidate"]
SIDES: tuple[Side, Side] = ("baseline", "candidate")
PAIRS = 12, 60
"""Minimum and maximum pairs of samples in a turn of two versions."""

T = TypeVar("T")


class Both(NamedTuple, Generic[T]):
    """One value for each side."""

    baseline: T
    candidate: T

    @classmethod
    def each(cls, make: Callable[[Side], T]) -> Both[T]:
        """Make the value of each side, the baseline's first."""
        return cls(*map(make, SIDES))

    def of(self, side: Side) -> T:
        """Return one side's value."""
        return self.baseline if side == "baseline" else self.candidate
