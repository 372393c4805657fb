"""Parity of an engine over its repeats: ok, failed or undecided, and the drop in accuracy behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cnnperf.inference.accuracy import AccuracyDrop
from cnnperf.inference.settings import allowed_drop
from cnnperf.record import PARITY, Record

DISAGREEMENTS = "infer.class_disagreements"
"""Images that an exact engine puts into another class although torch's logits are no tie; others have no such count."""


class ParityOfRepeats:
    """The parity of an engine over its repeats: the worst of them counts.

    An exact engine answers for its logits, layers and classes, which its task judged. One of another precision answers
    for its accuracy: failed and undecided go by the interval of its drop. Records of an older version have no counts of
    images, and what their task judged stands.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._drops = [(drop, _limit(record)) for record in records if (drop := _drop(record))]
        self._disagreements = [m.values[0] for r in records for m in r.find(DISAGREEMENTS)]
        self._worst = max(self._drops, key=lambda each: each[0].interval.high, default=None)
        outcomes = {_outcome(record) for record in records}
        self.outcome = next((each for each in ("failed", "undecided", "ok") if each in outcomes), None)

    @property
    def undecided(self) -> str | None:
        """Say between what the drop lies, and what would decide; None for a parity that is decided."""
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
        """Return what the table tells of the drop in the worst repeat; nothing where the images were not counted."""
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


def _outcome(record: Record) -> str | None:
    judged = record.find(PARITY)
    if not judged:
        return None
    if not all(m.values[0] for m in judged):
        return "failed"
    drop = _drop(record)
    return drop.outcome(_limit(record)) if drop and not record.find(DISAGREEMENTS) else "ok"


def _drop(record: Record) -> AccuracyDrop | None:
    lost, gained = (record.find(f"infer.right_in_{side}_only") for side in ("torch", "engine"))
    if not lost or not gained:
        return None
    return AccuracyDrop(int(lost[0].values[0]), int(gained[0].values[0]), int(lost[0].remarks["n"]))


def _limit(record: Record) -> float:
    return allowed_drop(record.task.settings)
