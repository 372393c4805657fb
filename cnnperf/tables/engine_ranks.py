"""Which engine of a cell is best, and how much faster each is than the baseline: what rows prove, and no more."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cnnperf.stats import Interval, SignedRanks, two_modes
from cnnperf.tables.table import Row

LEVEL = 0.025
"""Of either end of a speed-up's interval: 95 % in all, which six pairs of processes just support."""
LEAST_PAIRS = 6
APART = math.log(1.05)
"""Two modes that lie closer than 5 % are none worth a word."""
MOST_DIVIDED = 0.25
"""Share of the pairs whose samples may have two modes each."""

SINGLE_STREAM, OFFLINE = "single_stream", "offline"
"""MLPerf's scenarios: one image after another, judged by the 90th percentile; all images in the least time."""

PAIRED, FEW_PAIRS, SEPARATE = "paired", "few pairs", "separate"
"""What a speed-up stands on: six pairs of processes or more, one to five, or two processes that never met."""

BIMODAL, DISAGREES = "bimodal", "disagrees with separate latencies"
"""Why a paired speed-up is not to be relied on."""


def compare(rows: Sequence[dict[str, Any]]) -> None:
    """Enter scenarios, speed-ups, what is doubtful about them, the best engine and the front of each cell and batch.

    Compared are rows of one run that differ in the engine alone: settings and training are the same.
    """
    for of_engine in grouped(rows, "run", "_compared", "engine").values():
        _name_scenarios(of_engine)
    for rivals in grouped(rows, "run", "_compared", "batch_size").values():
        base = next((row for row in rivals if row["engine"] == row["_baseline"] and row["latency_s"]), None)
        for row in rivals:
            row.update(_speedup(row, base))
            row["speedup_flags"] = ", ".join(_flags(row, base)) or None
        sound = [row for row in rivals if _is_sound(row) and row["latency_s"]]
        leader = max((row for row in sound if _is_proved(row)), key=lambda row: row["speedup"], default=None)
        others = [row for row in sound if row is not leader]
        if leader and others and all(leader["speedup_low"] > _most(other, base) for other in others):
            leader["best"] = "yes"
        _draw_front([row for row in sound if _is_proved(row) and row["test_accuracy_low"] is not None])


def grouped(rows: Iterable[Any], *names: str) -> dict[Any, list[Any]]:
    """Return rows by their values in some columns, in the order in which each combination first appears."""
    groups: dict[Any, list[Any]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return groups


def _is_sound(row: Row) -> bool:
    """Tell whether a row may be ranked: what was asked for ran to its end, and computes the same."""
    return bool(row["parity"] == "ok" and row["status"] == "ok")


def _is_proved(row: Row) -> bool:
    """Tell whether a row's speed-up has an interval that nothing contradicts; the baseline's is 1 by definition."""
    return row.get("speedup_low") is not None and row["speedup_flags"] is None


def _name_scenarios(rows: Sequence[dict[str, Any]]) -> None:
    largest = max((row["total_images_per_s"] for row in rows if row["total_images_per_s"]), default=None)
    for row in rows:
        names = [SINGLE_STREAM] * (row["batch_size"] == 1 and row["latency_p90_s"] is not None)
        names += [OFFLINE] * (largest is not None and row["total_images_per_s"] == largest)
        row["scenario"] = " ".join(names) or None


def _speedup(row: Row, base: Row | None) -> dict[str, Any]:
    ratios = row["_ratios"]
    if ratios:
        ranks = SignedRanks(np.log(ratios))
        found = {"speedup": math.exp(ranks.estimate), "speedup_pairs": len(ratios)}
        if len(ratios) < LEAST_PAIRS:  # Too few for an interval, and still better than two processes that never met.
            return {**found, "speedup_pairing": FEW_PAIRS}
        ends = {"speedup_low": math.exp(ranks.lower(LEVEL)), "speedup_high": math.exp(ranks.upper(LEVEL))}
        return {**found, **ends, "speedup_pairing": PAIRED}
    if row is base:
        return dict.fromkeys(("speedup", "speedup_low", "speedup_high"), 1.0)
    separate = _separate(row, base)
    return {"speedup": separate, **({"speedup_pairing": SEPARATE} if separate else {})}


def _separate(row: Row, base: Row | None) -> float | None:
    """Return the ratio of the latencies that the baseline and an engine had in processes of their own."""
    return base["latency_s"] / row["latency_s"] if base and row["latency_s"] else None


def _flags(row: Row, base: Row | None) -> Iterator[str]:
    if any(_has_two_modes(pairs) for pairs in row["_pairs"]) or _is_bimodal(row["_ratios"]):
        yield BIMODAL
    separate = _separate(row, base)
    is_paired = row.get("speedup_pairing") == PAIRED
    if is_paired and separate and not row["speedup_low"] <= separate <= row["speedup_high"]:
        yield DISAGREES


def _has_two_modes(pairs: Sequence[Sequence[float]]) -> bool:
    """Tell whether the samples of too many of a task's pairs fall into two groups, one or more of one pair or few."""
    divided = sum(map(_is_bimodal, pairs))
    return divided > max(1, MOST_DIVIDED * len(pairs))


def _is_bimodal(ratios: Sequence[float]) -> bool:
    modes = two_modes(np.log(ratios).tolist()) if ratios else None
    return modes is not None and modes[1] - modes[0] >= APART


def _most(row: Row, base: Row | None) -> float:
    """Return the highest speed-up that a row leaves possible: of a doubtful one that which either reading allows."""
    if row.get("speedup_high") is None:
        return math.inf
    ratios = row["_ratios"] if row["speedup_flags"] else ()
    return float(max(row["speedup_high"], *ratios, _separate(row, base) or 0.0))


def _draw_front(rows: Sequence[dict[str, Any]]) -> None:
    """Mark the engines of one network that no other is proved to beat; one alone is on no front."""
    for row in rows if len(rows) > 1 else ():
        row["pareto"] = "no" if any(_dominates(other, row) for other in rows) else "yes"


def _dominates(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether a row is proved better than another in speed or in accuracy, and proved worse in neither."""
    pairs = [(_interval(one, name), _interval(other, name)) for name in ("speedup", "test_accuracy")]
    is_worse = any(ours.high < its.low for ours, its in pairs)
    return not is_worse and any(ours.low > its.high for ours, its in pairs)


def _interval(row: Row, name: str) -> Interval:
    return Interval(row[f"{name}_low"], row[f"{name}_high"])
