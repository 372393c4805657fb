"""The drop in accuracy of an engine against torch on the same images, with its interval and a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cnnperf.stats import Interval, paired_difference_interval

ParityOutcome = Literal["ok", "failed", "undecided"]

MOST_TEST_IMAGES = 10**7
"""Maximum number of images considered; a drop that they would not decide is at the limit."""


@dataclass(frozen=True, slots=True)
class AccuracyDrop:
    """Numbers of images that only one of two sides classified correctly; on all others both agree."""

    lost: int
    """Correct in torch only."""
    gained: int
    """Correct in the engine only."""
    images: int

    @property
    def estimate(self) -> float:
        """Torch's accuracy minus the engine's."""
        return (self.lost - self.gained) / self.images

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the drop over all images like these."""
        return self._interval(self.images)

    def outcome(self, limit: float) -> ParityOutcome:
        """Return whether the drop is proved to be within the limit, proved to be beyond it, or undecided."""
        return self._outcome(self.images, limit)

    def images_to_decide(self, limit: float) -> int | None:
        """Return the number of images that would decide if these are typical; None if the drop is at the limit."""
        enough = self.images
        while self._outcome(enough, limit) == "undecided":
            enough *= 2
            if enough > MOST_TEST_IMAGES:
                return None
        few = enough // 2
        while enough - few > 1:
            middle = (few + enough) // 2
            few, enough = (middle, enough) if self._outcome(middle, limit) == "undecided" else (few, middle)
        return max(enough, self.images)

    def _interval(self, images: int) -> Interval:
        share = images / self.images
        return paired_difference_interval(self.lost * share, self.gained * share, images)

    def _outcome(self, images: int, limit: float) -> ParityOutcome:
        low, high = self._interval(images)
        return "ok" if high <= limit else "failed" if low > limit else "undecided"
