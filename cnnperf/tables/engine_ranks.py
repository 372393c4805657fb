"""The best engine of a cell, and the speed-up of each over the baseline, as far as the rows prove them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from cnnperf.inference.outcome import speedup
from cnnperf.regression.rule import FLAGGED_SHARE
from cnnperf.sides import Both
from cnnperf.stats import INTERVAL_LEVEL, Interval, SignedRanks, predicted_difference, two_modes
from cnnperf.tables.engine_row import EngineRow

LEAST_PAIRS = 6
"""The fewest pairs of processes for a 95 % interval."""
LEAST_DISTANCE = math.log(1.05)
"""Smallest distance of two modes that is reported: 5 %."""
MOST_DIVIDED = 0.25
"""Largest share of the pairs whose samples may have two modes each."""

SINGLE_STREAM, OFFLINE = "single_stream", "offline"
"""MLPerf's scenarios: one image after another, judged by the 90th percentile; all images in the least time."""

PAIRED, FEW_PAIRS, SEPARATE = "paired", "few pairs", "separate"
"""Basis of a speed-up: six pairs of processes or more, one to five, or two processes measured separately."""

BIMODAL, DISAGREES, NOT_STEADY = "bimodal", "disagrees with separate latencies", "not steady"
BASELINE_DISTURBED = "baseline disturbed"
"""Reasons why a speed-up is not reliable; the last of one without pairs."""


def ranked(rows: Iterable[EngineRow]) -> tuple[EngineRow, ...]:
    """Add scenarios, speed-ups with their doubts, the best engine and the front of each cell and batch.

    Rows of one run are compared if they differ only in the engine: settings and training are the same.
    """
    found = list(rows)
    for indices in _indices(found, lambda row: (row.run, row.evidence.rivals, row.engine)):
        for index, row in zip(indices, _with_scenarios([found[index] for index in indices]), strict=True):
            found[index] = row
    measured: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for row in found:
        measured[row.run, row.evidence.rivals].add(row.engine)
    for indices in _indices(found, lambda row: (row.run, row.evidence.rivals, row.batch_size)):
        rivals = [found[index] for index in indices]
        is_complete = measured[rivals[0].run, rivals[0].evidence.rivals].issuperset(rivals[0].evidence.engines)
        for index, row in zip(indices, _ranked(rivals, is_complete=is_complete), strict=True):
            found[index] = row
    return tuple(found)


def _with_scenarios(rows: Sequence[EngineRow]) -> Iterator[EngineRow]:
    largest = max((row.total_images_per_s for row in rows if row.total_images_per_s), default=None)
    for row in rows:
        names = [SINGLE_STREAM] * (row.batch_size == 1 and row.latency_p90_s is not None)
        names += [OFFLINE] * (largest is not None and row.total_images_per_s == largest)
        yield replace(row, scenario=" ".join(names) or None)


def _ranked(rivals: Sequence[EngineRow], *, is_complete: bool) -> list[EngineRow]:
    """Return the engines of one network and batch with their speed-ups, the best and the front of them.

    is_complete: whether every requested engine has been measured; one that has not might be better than all of these.
    """
    base = next((row for row in rivals if row.engine == row.evidence.baseline and row.latency_s), None)
    timed = [_with_speedup(row, base) for row in rivals]
    timed = [replace(row, speedup_flags=", ".join(_flags(row, base)) or None) for row in timed]
    sound = [row for row in timed if row.is_sound and row.latency_s]
    leader = max((row for row in sound if _is_proved(row)), key=_speedup, default=None)
    others = [row for row in sound if row is not leader]
    beats = leader and others and all(_interval(leader).low > _most(other, base) for other in others)
    best = leader if beats and is_complete else None
    front = [row for row in sound if _is_proved(row) and row.test_accuracy_low is not None]
    return [
        replace(row, best="yes" if row is best else None, pareto=_on_front(row, front, "yes" if is_complete else None))
        for row in timed
    ]


def _is_proved(row: EngineRow) -> bool:
    """Return whether a row is undisturbed and its speed-up has an interval without a doubt; the baseline's is 1."""
    return row.speedup_low is not None and row.speedup_flags is None and not row.is_disturbed


def _with_speedup(row: EngineRow, base: EngineRow | None) -> EngineRow:
    ratios = row.evidence.ratios
    if ratios:
        ranks = SignedRanks(np.log(ratios))
        found = replace(row, speedup=speedup(ratios), speedup_pairs=len(ratios))
        if len(ratios) < LEAST_PAIRS:  # Too few for an interval, but better than separate processes.
            return replace(found, speedup_pairing=FEW_PAIRS)
        low, high = math.exp(ranks.lower(INTERVAL_LEVEL)), math.exp(ranks.upper(INTERVAL_LEVEL))
        return replace(found, speedup_low=low, speedup_high=high, speedup_pairing=PAIRED)
    if row is base:
        return replace(row, speedup=1.0, speedup_low=1.0, speedup_high=1.0)
    separate = _separate(row, base)
    return replace(row, speedup=separate, speedup_pairing=SEPARATE if separate else None)


def _separate(row: EngineRow, base: EngineRow | None) -> float | None:
    """Return the ratio of the latencies of the baseline and an engine in separate processes of one sitting."""
    if base is None or base.sitting != row.sitting:
        return None
    return base.latency_s / row.latency_s if base.latency_s and row.latency_s else None


def _flags(row: EngineRow, base: EngineRow | None) -> Iterator[str]:
    if any(_has_two_modes(pairs) for pairs in row.evidence.pairs) or _is_bimodal(row.evidence.ratios):
        yield BIMODAL
    if row.evidence.unsteady > FLAGGED_SHARE * len(row.evidence.ratios):
        yield f"{row.evidence.unsteady} of {row.speedup_pairs} pairs {NOT_STEADY}"
    if row.speedup_pairing == PAIRED and _disagrees(row, base):
        yield DISAGREES
    if row.speedup_pairing == SEPARATE and base and base.is_disturbed:
        yield BASELINE_DISTURBED


def _disagrees(row: EngineRow, base: EngineRow | None) -> bool:
    """Return whether the ratio of the separate latencies is none of two further processes like those of the pairs.

    The interval of the speed-up is no measure for it: it is that of a centre, and each separate latency is of one
    process, which differs from the next by more.
    """
    separate, pairs = _separate(row, base), [both for of_repeat in row.evidence.pairs for both in of_repeat]
    if separate is None or len(pairs) < LEAST_PAIRS:
        return False
    base_s, own_s = (np.log([median(side) for side in of_side]).tolist() for of_side in zip(*pairs, strict=True))
    low, high = predicted_difference(base_s, own_s, row.repeats or 1)
    return not low <= math.log(separate) <= high


def _has_two_modes(pairs: Sequence[Both[tuple[float, ...]]]) -> bool:
    """Return whether the samples of several of a task's pairs, and of more than MOST_DIVIDED, fall into two groups."""
    divided = sum(_is_bimodal([base / own for base, own in zip(*both, strict=True)]) for both in pairs)
    return divided > max(1, MOST_DIVIDED * len(pairs))


def _is_bimodal(ratios: Sequence[float]) -> bool:
    modes = two_modes(np.log(ratios).tolist()) if ratios else None
    return modes is not None and modes[1] - modes[0] >= LEAST_DISTANCE


def _most(row: EngineRow, base: EngineRow | None) -> float:
    """Return the highest speed-up that a row permits; for a doubtful one the highest that either reading permits.

    Infinite without an interval, and where the pairs of the row were disturbed; the baseline needs none.
    """
    if row.speedup_high is None or (row.is_disturbed and row.evidence.ratios):
        return math.inf
    ratios = row.evidence.ratios if row.speedup_flags else ()
    return max(row.speedup_high, *ratios, _separate(row, base) or 0.0)


def _on_front(row: EngineRow, front: Sequence[EngineRow], unbeaten: str | None) -> str | None:
    """Return `no` if another engine of the front is proved to dominate the row, else `unbeaten`.

    None for a row that is not in `front`, or alone there.
    """
    if len(front) < 2 or not any(each is row for each in front):
        return None
    return "no" if any(_dominates(other, row) for other in front) else unbeaten


def _dominates(one: EngineRow, other: EngineRow) -> bool:
    """Return whether a row is proved better than another in speed or in accuracy, and proved worse in neither."""
    pairs = [(_interval(one), _interval(other)), (_accuracy(one), _accuracy(other))]
    is_worse = any(ours.high < its.low for ours, its in pairs)
    return not is_worse and any(ours.low > its.high for ours, its in pairs)


def _speedup(row: EngineRow) -> float:
    assert row.speedup is not None, "a speed-up that is proved is known"
    return row.speedup


def _interval(row: EngineRow) -> Interval:
    assert row.speedup_low is not None, "a speed-up that is proved, or of six pairs, has an interval"
    assert row.speedup_high is not None, "an interval has two ends"
    return Interval(row.speedup_low, row.speedup_high)


def _accuracy(row: EngineRow) -> Interval:
    assert row.test_accuracy_low is not None, "an engine without accuracy is on no front"
    assert row.test_accuracy_high is not None, "an interval has two ends"
    return Interval(row.test_accuracy_low, row.test_accuracy_high)


def _indices(rows: Sequence[EngineRow], key: Callable[[EngineRow], tuple[Any, ...]]) -> Iterable[list[int]]:
    """Return the indices of rows with one key, for each in turn."""
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[key(row)].append(index)
    return groups.values()
