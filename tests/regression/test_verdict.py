"""What verdicts come to together."""

from __future__ import annotations

import pytest

from cnnperf.regression.verdict import Comparison, Verdict


def verdict(outcome: str) -> Verdict:
    """Make a verdict."""
    return Verdict.model_validate({"cell": "mnist/lenet/cpu", "metric": "m", "outcome": outcome})


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], 3),
        (["same", "better", "indicative"], 0),
        (["same", "inconclusive"], 3),
        (["inconclusive", "worse"], 1),
        (["inconclusive", "missing"], 1),
        (["inconclusive", "error"], 1),
    ],
)
def test_the_exit_code_is_that_of_the_worst(outcomes: list[str], code: int) -> None:
    """Worse, missing and error come before inconclusive, and that before all else."""
    assert Comparison(verdicts=tuple(map(verdict, outcomes)), notes=()).exit_code == code
