"""Which engine of a cell is best, and how much faster each is than the baseline: what rows prove, and no more."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cnnperf.stats import Interval, SignedRanks

LEVEL = 0.025
"""Of either end of a speed-up's interval: 95 % in all, which six pairs of processes just support."""
LEAST_PAIRS = 6

SINGLE_STREAM, OFFLINE = "single_stream", "offline"
"""The scenarios, named as in MLPerf: one image after another, and the batch size with the largest throughput."""


def compare(rows: Sequence[dict[str, Any]], alike: Sequence[str]) -> None:
    """Enter speed-ups, scenarios, the best engine of each cell and batch, and the front of accuracy against latency.

    alike: the columns in which rows of different networks must agree to stand on one front.
    """
    for of_engine in grouped(rows, "run", "dataset", "model", "device", "engine").values():
        _name_scenarios(of_engine)
    for rivals in grouped(rows, "run", "dataset", "model", "device", "batch_size").values():
        base = next((row for row in rivals if row["engine"] == row["_baseline"] and row["latency_s"]), None)
        for row in rivals:
            row.update(_speedup(row, base))
        sound = [row for row in rivals if _is_sound(row) and row["speedup"]]
        leader = max(sound, key=lambda row: row["speedup"], default=None)
        others = [row for row in sound if row is not leader]
        if leader and others and all(_beats(leader, other) for other in others):
            leader["best"] = "yes"
    for rivals in grouped(rows, "run", *alike, "batch_size").values():
        sound = [row for row in rivals if _is_sound(row) and row["latency_s"]]
        for row in sound:
            row["pareto"] = "no" if any(_dominates(other, row) for other in sound) else "yes"


def _is_sound(row: Mapping[str, Any]) -> bool:
    """Tell whether a row may be ranked: what was asked for ran to its end, and computes the same."""
    return bool(row["parity"] == "ok" and row["status"] == "ok")


def grouped(rows: Iterable[Any], *names: str) -> dict[Any, list[Any]]:
    """Return rows by their values in some columns, in the order in which each combination first appears."""
    groups: dict[Any, list[Any]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return groups


def _name_scenarios(rows: Sequence[dict[str, Any]]) -> None:
    largest = max((row["images_per_s"] for row in rows if row["images_per_s"]), default=None)
    for row in rows:
        names = [SINGLE_STREAM] * (row["batch_size"] == 1)
        names += [OFFLINE] * (largest is not None and row["images_per_s"] == largest)
        row["scenario"] = " ".join(names) or None


def _speedup(row: Mapping[str, Any], base: Mapping[str, Any] | None) -> dict[str, Any]:
    ratios = row["_ratios"]
    if len(ratios) >= LEAST_PAIRS:
        ranks = SignedRanks(np.log(ratios))
        return {
            "speedup": math.exp(ranks.estimate),
            "speedup_low": math.exp(ranks.lower(LEVEL)),
            "speedup_high": math.exp(ranks.upper(LEVEL)),
            "speedup_pairs": len(ratios),
            "speedup_pairing": "paired",
        }
    if ratios:
        # Too few for an interval, and still better than two processes that never met.
        estimate = math.exp(SignedRanks(np.log(ratios)).estimate)
        return {"speedup": estimate, "speedup_pairs": len(ratios), "speedup_pairing": "unpaired"}
    if base is None or not row["latency_s"]:
        return {"speedup": None}
    if row is base:
        return {"speedup": 1.0}
    return {"speedup": base["latency_s"] / row["latency_s"], "speedup_pairing": "unpaired"}


def _beats(leader: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether a lead is proved: by intervals that lie apart, or without them by every one of several repeats."""
    ours, theirs = _interval(leader), _interval(other)
    if ours and theirs:
        return ours.low > theirs.high
    pairs = zip(leader["_latencies"], other["_latencies"], strict=False)
    count = len(leader["_latencies"])
    return count == len(other["_latencies"]) > 1 and all(mine < its for mine, its in pairs)


def _interval(row: Mapping[str, Any]) -> Interval | None:
    """Return the interval of a speed-up over the baseline, whose own is one by definition; None for unpaired."""
    if row["engine"] == row["_baseline"]:
        return Interval(1.0, 1.0)
    return Interval(row["speedup_low"], row["speedup_high"]) if row.get("speedup_pairing") == "paired" else None


def _dominates(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    better = one["test_accuracy"] >= other["test_accuracy"] and one["latency_s"] <= other["latency_s"]
    return better and (one["test_accuracy"], one["latency_s"]) != (other["test_accuracy"], other["latency_s"])
