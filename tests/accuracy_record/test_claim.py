"""The claim of an accuracy record, and its test."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from scipy.stats import ttest_1samp, ttest_ind

from cnnperf.accuracy_record.claim import RecordClaim, StandingRecord

SEEDS = (0.852, 0.855, 0.849, 0.853, 0.851)
EARLIER = StandingRecord(name="20250102-net", accuracies=(0.84, 0.845, 0.842))


@pytest.mark.parametrize(
    ("target", "outcome", "exit_code"), [(0.845, "holds", 0), (0.851, "undecided", 3), (0.86, "fails", 1)]
)
def test_a_target_is_tested_one_sided(target: float, outcome: str, exit_code: int) -> None:
    """The p-value of a target is that of scipy's one-sided test, and three outcomes have three exit statuses."""
    test = RecordClaim(target=target).tested(SEEDS, 10_000)
    assert test.p == pytest.approx(ttest_1samp(SEEDS, target, alternative="greater").pvalue)
    assert test.p_below == pytest.approx(1 - test.p)
    assert (test.outcome, test.exit_code) == (outcome, exit_code)
    assert test.excess == pytest.approx(0.852 - target)


def test_a_standing_record_is_tested_by_its_seeds() -> None:
    """The p-value against a standing record is that of scipy's one-sided Welch test over the seeds of both."""
    test = RecordClaim(standing=EARLIER).tested(SEEDS, 10_000)
    theirs = ttest_ind(SEEDS, EARLIER.accuracies, equal_var=False, alternative="greater")
    assert test.p == pytest.approx(theirs.pvalue)
    assert test.outcome == "holds"


def test_equal_accuracies_deviate_by_an_image() -> None:
    """Two seeds of one accuracy do not show that the mean is above a target that is an image lower."""
    test = RecordClaim(target=0.8499).tested((0.85, 0.85), 10_000)
    assert test.outcome == "undecided"


@pytest.mark.parametrize("claim", [{}, {"target": 0.8, "standing": EARLIER}])
def test_a_claim_is_about_one_thing(claim: dict[str, object]) -> None:
    """A claim with neither a target nor a standing record, or with both, is refused."""
    with pytest.raises(ValidationError, match="either a target or a standing record"):
        RecordClaim.model_validate(claim)


def test_a_claim_in_words() -> None:
    """The words have the target in percent, or the standing record and its mean."""
    assert RecordClaim(target=0.855).words == "above 85.5 %"
    assert RecordClaim(standing=EARLIER).words == "above the standing record 20250102-net (84.23 %)"
