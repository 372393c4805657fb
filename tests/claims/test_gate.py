"""The claim about the gate, and the verdicts that it counts."""

from __future__ import annotations

import pytest
from stand_ins import verdicts

from cnnperf.claims.gate import ALL, MODELS, counted, slowdown
from cnnperf.regression.gate_test import GATE_SUITE
from cnnperf.regression.rule import Rule, power


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
    """A false alarm or a missed slowdown fails the claim, even if other cells are inconclusive."""
    assert verdicts(counted(unchanged, slowed)) == came_to


def test_its_cells_are_of_the_doctors() -> None:
    """The models of the claim are among those of the doctor's gate suite."""
    assert set(MODELS) <= {model["name"] for model in GATE_SUITE["models"]}


@pytest.mark.parametrize("deviation", [0.03, 0.05])
def test_the_bar_says_how_often_all_are_found(deviation: float) -> None:
    """The bar states the simulated rate at which all slowdowns are found, with its deviation and replicates."""
    rule, cells = Rule(), len(MODELS)
    looks = rule.scheduled(cells)
    both = power(rule, looks, cells, deviation) ** cells
    assert f"{looks[-1]} replicates" in ALL.reason
    assert f"{100 * deviation:g} %" in ALL.reason
    assert f"in {100 * both:.0f} " in ALL.reason


@pytest.mark.parametrize(("changes", "middle"), [((0.04, 0.07), 0.055), ((0.07, 0.01, 0.05), 0.05), ((0.06,), 0.06)])
def test_the_slowdown_is_the_median_over_cells(changes: tuple[float, ...], middle: float) -> None:
    """The slowdown is the median over cells; with two cells, it is their mean."""
    assert slowdown(changes, 0.05).figure == pytest.approx(middle)
