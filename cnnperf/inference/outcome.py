"""Parity (ok, failed or undecided) and speed-up of an engine, from its stored records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from cnnperf.inference.accuracy import AccuracyDrop, ParityOutcome
from cnnperf.inference.metrics import DISAGREEMENTS, RIGHT_IN_ENGINE_ONLY, RIGHT_IN_TORCH_ONLY
from cnnperf.inference.settings import allowed_drop
from cnnperf.record import PARITY, Record
from cnnperf.stats import SignedRanks

WORST_FIRST: tuple[ParityOutcome, ...] = ("failed", "undecided", "ok")


def parity_of(records: Iterable[Record]) -> ParityOutcome | None:
    """Return the worst parity of an engine's repeats; None where no record tells it."""
    outcomes = {_outcome(record) for record in records}
    return next((each for each in WORST_FIRST if each in outcomes), None)


def speedup(ratios: Sequence[float]) -> float:
    """Return the speed-up over pairs of processes: the Hodges–Lehmann estimate of the ratios' logarithms, as a ratio.

    ratios: one per pair, in any order; those of all repeats together.
    """
    return math.exp(SignedRanks(np.log(ratios)).estimate)


def drop_of(record: Record) -> AccuracyDrop | None:
    """Return the drop in accuracy of a record's engine; None where its images or the permitted drop are not stated."""
    lost, gained = (record.find(metric) for metric in (RIGHT_IN_TORCH_ONLY, RIGHT_IN_ENGINE_ONLY))
    if not lost or not gained or allowed_drop(record.task.settings) is None:
        return None
    return AccuracyDrop(int(lost[0].values[0]), int(gained[0].values[0]), int(lost[0].remarks["n"]))


def limit_of(record: Record) -> float:
    """Return the drop in accuracy that a record's task allows."""
    limit = allowed_drop(record.task.settings)
    assert limit is not None, "a drop is judged by a stated limit only"
    return limit


def _outcome(record: Record) -> ParityOutcome | None:
    judged = record.find(PARITY)
    if not judged:
        return None
    if not all(m.values[0] for m in judged):
        return "failed"
    drop = drop_of(record)
    return drop.outcome(limit_of(record)) if drop and not record.find(DISAGREEMENTS) else "ok"
