"""Parity of an engine over its repeats: ok, failed or undecided, and the drop in accuracy behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cnnperf.inference.metrics import DISAGREEMENTS
from cnnperf.inference.outcome import drop_of, limit_of, parity_of
from cnnperf.record import Record


class ParityOfRepeats:
    """The parity of an engine over its repeats: the worst of them counts.

    An exact engine is judged by its logits, layers and classes, in its task. An engine of another precision is judged
    by its accuracy: the interval of the drop decides between ok, failed and undecided. Records of an older version have
    no counts of images; for them the task's verdict is kept.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._drops = [(drop, limit_of(record)) for record in records if (drop := drop_of(record))]
        self._disagreements = [m.values[0] for r in records for m in r.find(DISAGREEMENTS)]
        self._worst = max(self._drops, key=lambda each: each[0].interval.high, default=None)
        self.outcome = parity_of(records)

    @property
    def undecided(self) -> str | None:
        """Return the interval of the drop and the cure as a sentence; None if the parity is decided."""
        if self.outcome != "undecided" or self._worst is None:
            return None
        drop, limit = self._worst
        low, high = drop.interval
        images = drop.images_to_decide(limit)
        cure = (
            f"about {images:,} would decide" if images else "no number of them would decide, since it is at the limit"
        )
        return (
            f"parity undecided: on {drop.images:,} test images the accuracy drops by {low:.1%} to {high:.1%} (95 % "
            f"interval), and {limit:.1%} is allowed (max_accuracy_drop); {cure} (test_images)"
        )

    def columns(self) -> dict[str, Any]:
        """Return the columns on the drop in the worst repeat; empty if the images were not counted."""
        if self._worst is None:
            return {}
        drop, limit = self._worst
        return {
            "accuracy_drop": drop.estimate,
            "accuracy_drop_low": drop.interval.low,
            "accuracy_drop_high": drop.interval.high,
            "right_in_torch_only": drop.lost,
            "right_in_engine_only": drop.gained,
            "class_disagreements": int(max(self._disagreements)) if self._disagreements else None,
            "images_to_decide": drop.images_to_decide(limit) if self.outcome == "undecided" else None,
        }
