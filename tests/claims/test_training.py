"""The claim about accuracy, with a test by hand and with wrong accuracies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from stand_ins import verdicts

from cnnperf.claims import Context, training
from cnnperf.claims._stages import Made
from cnnperf.claims.training import by_hand, check, predicted

SEEDS = (-0.0008, -0.0004, 0.0, 0.0004, 0.0008)


@pytest.fixture
def said(engines: Made, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that sets the printed accuracy of a training whose weights are real."""

    def say(accuracy: float) -> None:
        monkeypatch.setattr(training, "ran", lambda *_: engines)
        monkeypatch.setattr(Made, "value", lambda *_: (accuracy,))

    return say


def test_by_hand_is_what_the_training_says(engines: Made) -> None:
    """The stored weights have the accuracy that the training printed, on the same images."""
    assert by_hand(engines) == pytest.approx(engines.value("train", "train.test_accuracy")[0], abs=1 / 64)


@pytest.mark.parametrize(
    ("off", "known", "came_to"),
    [
        (0.0, 0.0, ["held", "held"]),
        (0.0, 0.01, ["failed", "held"]),
        (0.01, 0.01, ["held", "failed"]),
    ],
)
def test_it_fails_for_another_accuracy(
    said: Callable[[float], None],
    engines: Made,
    context: Callable[..., Context],
    monkeypatch: pytest.MonkeyPatch,
    off: float,
    known: float,
    came_to: list[str],
) -> None:
    """A printed accuracy that is not the known one, or not that of the weights, fails the claim."""
    true = by_hand(engines)
    monkeypatch.setattr(training, "KNOWN", {"synthetic": [true + known + seed for seed in SEEDS]})
    said(true + off)
    assert verdicts(check(context())) == came_to


def test_another_training_may_lie_within_its_prediction_interval() -> None:
    """The prediction interval of five values, mean 3 and variance 2.5, is 3 ± 4.604 × √2.5 × √1.2 by Student's t."""
    mean, half_width = predicted([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0
    assert half_width == pytest.approx(4.604 * 1.5811 * 1.0954, rel=1e-4)
