"""The drop in accuracy of an engine, judged against its limit by a confidence interval."""

from __future__ import annotations

import pytest

from cnnperf.inference.accuracy import AccuracyDrop


@pytest.mark.parametrize(
    ("lost", "gained", "images", "outcome"),
    [
        (33, 27, 2000, "ok"),  # A drop of 0.3 points, as of an 8-bit engine.
        (0, 0, 2000, "ok"),
        (30, 12, 1000, "undecided"),  # 1.8 points: below the limit, and so may be 3.
        (30, 4, 1000, "undecided"),  # 2.6 points: above the limit, and so may be 1.5.
        (0, 0, 64, "undecided"),
        (70, 4, 2000, "failed"),
    ],
)
def test_the_interval_is_held_to_the_limit(lost: int, gained: int, images: int, outcome: str) -> None:
    """With a limit of two points: ok if the interval is below, failed if above, undecided if the limit is inside."""
    drop = AccuracyDrop(lost, gained, images)
    assert drop.interval.low <= drop.estimate <= drop.interval.high
    assert drop.outcome(0.02) == outcome


@pytest.mark.parametrize(("lost", "gained", "images"), [(30, 12, 1000), (30, 4, 1000), (0, 0, 64), (7, 0, 300)])
def test_as_many_images_as_are_said_would_decide(lost: int, gained: int, images: int) -> None:
    """At the same rates, the stated number of images decides, and one image less does not."""
    needed = AccuracyDrop(lost, gained, images).images_to_decide(0.02)
    assert needed
    assert needed > images
    as_typical = AccuracyDrop(lost, gained, images)
    assert as_typical._outcome(needed, 0.02) != "undecided"
    assert as_typical._outcome(needed - 1, 0.02) == "undecided"


def test_what_is_decided_needs_no_more_images() -> None:
    """A decided drop needs no more images, and no number of images decides a drop that equals the limit."""
    assert AccuracyDrop(33, 27, 2000).images_to_decide(0.02) == 2000
    assert AccuracyDrop(40, 20, 1000).images_to_decide(0.02) is None
