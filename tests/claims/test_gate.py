"""The claim about the gate: what its verdicts come to."""

from __future__ import annotations

import pytest
from stand_ins import verdicts

from cnnperf.claims.gate import MODELS, counted, slowdown
from cnnperf.regression.gate_test import GATE_SUITE


@pytest.mark.parametrize(
    ("unchanged", "slowed", "came_to"),
    [
        (["same", "same"], ["worse", "worse"], ["held", "held"]),
        (["same", "inconclusive"], ["worse", "worse"], ["held", "held"]),
        (["better", "same"], ["worse", "inconclusive"], ["held", "undecided"]),
        (["inconclusive", "inconclusive"], ["worse", "worse"], ["undecided", "held"]),
        (["same", "worse"], ["worse", "worse"], ["failed", "held"]),
        (["same", "same"], ["worse", "same"], ["held", "failed"]),
        (["same", "same"], ["inconclusive", "better"], ["held", "failed"]),
    ],
)
def test_alarms_and_misses_fail_and_what_is_open_is_undecided(
    unchanged: list[str], slowed: list[str], came_to: list[str]
) -> None:
    """A false alarm or a miss is a failure, however many cells are undecided."""
    assert verdicts(counted(unchanged, slowed)) == came_to


def test_its_cells_are_of_the_doctors() -> None:
    """By name."""
    assert set(MODELS) <= {model["name"] for model in GATE_SUITE["models"]}


@pytest.mark.parametrize(("changes", "middle"), [((0.04, 0.07), 0.055), ((0.07, 0.01, 0.05), 0.05), ((0.06,), 0.06)])
def test_the_slowdown_is_the_median_over_cells(changes: tuple[float, ...], middle: float) -> None:
    """Of two cells it lies halfway between them."""
    assert slowdown(changes, 0.05).figure == pytest.approx(middle)
