"""The exit code of several verdicts, and the evidence of each."""

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
    """The exit code is 1 with worse, missing or error, 3 with inconclusive or without verdicts, else 0."""
    assert Comparison(verdicts=tuple(map(verdict, outcomes)), notes=()).exit_code == code


NUMBERS = {"unit": "s", "baseline": 0.010, "candidate": 0.011, "change": 0.1, "n": 8, "p": 0.002, "p_holm": 0.02}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ""),
        ({"remark": "why"}, "why"),
        (NUMBERS, "10.0 ms → 11.0 ms  +10.0 %  n=8  p=0.002 (Holm 0.02)"),
        (NUMBERS | {"low": 0.05, "high": 0.15}, "10.0 ms → 11.0 ms  +10.0 % [+5.0, +15.0]  n=8  p=0.002 (Holm 0.02)"),
        ({"unit": "s", "baseline": 0.010, "n": 8}, "n=8"),
        ({"unit": "s", "candidate": 0.011, "change": 0.1, "high": 0.15}, "+10.0 % [, +15.0]"),
        ({"unit": "fraction", "change": -0.02, "p": 0.5}, "-2.0 points"),
        ({"change": 0.1, "p_holm": 0.5, "remark": "why"}, "+10.0 %  why"),
    ],
)
def test_the_evidence_has_what_was_measured(given: dict[str, object], words: str) -> None:
    """The evidence needs both values, and omits a p-value that is not adjusted."""
    made = Verdict.model_validate({"cell": "mnist/lenet/cpu", "metric": "m", "outcome": "same", **given})
    assert made.evidence == words
