"""The two sides of a comparison."""

from __future__ import annotations

from typing import get_args

from cnnperf.sides import SIDES, Both, Side


def test_each_side_has_its_value() -> None:
    """The baseline's value is made first and stored first."""
    made: list[str] = []
    both = Both.each(lambda side: made.append(side) or side.upper())  # type: ignore[func-returns-value]
    assert made == list(SIDES) == list(get_args(Side))
    assert both == Both(baseline="BASELINE", candidate="CANDIDATE")
    assert [both.of(side) for side in SIDES] == list(both)
