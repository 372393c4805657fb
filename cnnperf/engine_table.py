"""The table of engines: a row a cell, engine and batch size, which engine is best, and which lie on the front."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from cnnperf._repeats import Repeats
from cnnperf.record import Record
from cnnperf.stats import SignedRanks, supports_quantile
from cnnperf.table import Column, Row, Table

BASELINE = "torch"
LEVEL = 0.025
"""Of either end of a speed-up's interval: 95 % in all, which six pairs of processes just support."""
LEAST_PAIRS = 6

CELL = ("dataset", "data", "data_fallback", "data_sha256", "model", "device", "device_label", "threads", "host", "cpu")
GROUP = (*(name for name in CELL if name != "data_fallback"), "budget")
FRONT = ("run", "dataset", "data", "data_sha256", "device", "threads", "host", "batch_size")
"""What rows have in common that lie on one front: it is of all networks and engines on the same images."""

COLUMNS = (
    *(Column(name) for name in CELL if name not in ("model", "threads")),
    Column("model", shown=0),
    Column("threads", unit="count"),
    Column("engine", shown=0),
    Column("batch_size", "batch", unit="count", shown=0),
    Column("status", shown=1),
    Column("reason"),
    Column("repeats", unit="count"),
    Column("latency_s", "latency", unit="s", shown=0),
    Column("latency_p50_s", unit="s"),
    Column("latency_p90_s", "p90", unit="s", shown=3),
    Column("latency_p99_s", "p99", unit="s", shown=3),
    Column("images_per_s", "images/s", unit="images/s", better="higher", shown=1),
    Column("speedup", "speed-up", unit="1", better="higher", shown=0, interval=("speedup_low", "speedup_high")),
    Column("speedup_low", unit="1"),
    Column("speedup_high", unit="1"),
    Column("speedup_pairs", "pairs", unit="count"),
    Column("speedup_pairing", "pairing", shown=2),
    Column("best", shown=1),
    Column("parity", shown=0),
    Column("error_to_float64", unit="1"),
    Column("torch_error_to_float64", unit="1"),
    Column("max_difference", unit="1"),
    Column("top1_agreement", "agreement", unit="fraction", shown=3),
    Column("test_accuracy", "test accuracy", unit="fraction", better="higher", shown=2),
    Column("accuracy_drop", "accuracy drop", unit="1", shown=2),
    Column("test_images", unit="count"),
    Column("mapped_share", unit="1"),
    Column("file_bytes", "size", unit="bytes", shown=3),
    Column("load_s", unit="s"),
    Column("first_run_s", unit="s"),
    Column("peak_bytes", "peak memory", unit="bytes", shown=4),
    Column("input"),
    Column("provider"),
    Column("pareto", shown=2),
    Column("budget"),
    Column("run"),
)
"""latency_s is the median of a call, of each repeat and then over them; speedup is torch's time over the engine's."""

ON_LEADERBOARD = (
    Column("best_engine", "best engine", shown=3),
    Column("best_engine_latency_s", "its latency", unit="s", better="lower", shown=4),
    Column("best_engine_images_per_s", "its images/s", unit="images/s", better="higher", shown=5),
    Column(
        "best_engine_speedup",
        "its speed-up",
        unit="1",
        better="higher",
        shown=4,
        interval=("best_engine_speedup_low", "best_engine_speedup_high"),
    ),
    Column("best_engine_speedup_low", unit="1"),
    Column("best_engine_speedup_high", unit="1"),
    Column("best_engine_parity", "its parity", shown=6),
    Column("best_engine_accuracy_drop", "its accuracy drop", unit="1", shown=6),
    Column("best_engine_file_bytes", "its size", unit="bytes", shown=6),
    Column("best_engine_pareto", "pareto", shown=6),
)
"""What the leaderboard says of the best engine of a cell: latency at the smallest batch, throughput at the best."""

NOTES = (
    "speed-up: torch's time over the engine's, in fresh pairs of processes that took turns [95 % interval];",
    "  unpaired: a ratio of two separate medians, which between processes may be off by 20 % and more.",
    "best: proved faster than torch and leading; parity failed: it computes something else, and is not ranked.",
)


def engine_table(records: Mapping[str, Sequence[Record]]) -> Table:
    """Lay out what the engines of each run's cells came to, by run."""
    rows = [row for run, of_run in records.items() for row in _rows(run, of_run)]
    _compare(rows)
    return Table("engines", COLUMNS, tuple({c.name: row.get(c.name) for c in COLUMNS} for row in rows), GROUP)


def best_engines(table: Table) -> dict[tuple[str, str, str, str], Row]:
    """Return the leaderboard's figures of each cell's best engine, by run, dataset, model and device."""
    found: dict[tuple[str, str, str, str], Row] = {}
    for key, rows in _grouped(table.rows, "run", "dataset", "model", "device").items():
        first = next((row for row in sorted(rows, key=lambda row: row["batch_size"] or 0) if row["best"]), None)
        if first:
            same = [row for row in rows if row["engine"] == first["engine"]]
            names = ("speedup", "speedup_low", "speedup_high", "parity", "accuracy_drop", "file_bytes", "pareto")
            found[key] = {
                "best_engine": first["engine"],
                "best_engine_latency_s": first["latency_s"],
                "best_engine_images_per_s": max(row["images_per_s"] for row in same if row["images_per_s"]),
                **{f"best_engine_{name}": first[name] for name in names},
            }
    return found


def _rows(run: str, records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    budgets = {r.task.cell.id: Repeats(run, (r,)).budget for r in records if r.task.stage == "train"}
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for r in records:
        if r.task.stage == "infer":
            groups[r.task.cell.id, str(r.task.variant["engine"])].append(r)
    for (cell, engine), members in groups.items():
        repeats = Repeats(run, tuple(members))
        sizes = dict.fromkeys(m.tags["batch_size"] for r in members for m in r.find("infer.latency"))
        for batch_size in sizes or (None,):
            yield _row(repeats, engine, batch_size, budgets.get(cell))


def _row(repeats: Repeats, engine: str, batch_size: Any, budget: str | None) -> dict[str, Any]:
    task, machine, data = repeats.task, repeats.machine, repeats.data
    failed = next((r.error for r in repeats.records if r.error and "parity failed" in r.error), None)

    def values(metric: str, *, of_batch: bool = False) -> list[float]:
        tags = {"batch_size": batch_size} if of_batch else {}
        return [v for r in repeats.records for m in r.find(f"infer.{metric}", **tags) for v in m.values]

    def once(metric: str, reduce: Callable[[list[float]], float] = median) -> float | None:
        found = values(metric)
        return reduce(found) if found else None

    calls = [m.values for r in repeats.records for m in r.find("infer.latency", batch_size=batch_size)]
    latency = median(median(each) for each in calls) if calls else None
    facts = next((m.tags for r in repeats.records for m in r.find("infer.threads")), {})
    tested = next((m.tags for r in repeats.records for m in r.find("infer.test_accuracy")), {})
    bytes_of = {name: once(name) for name in ("file_bytes", "peak_bytes")}
    return {
        "dataset": str(task.cell.dataset),
        "data": data.name if data else None,
        "data_fallback": data.fallback if data else None,
        "data_sha256": data.sha256 if data else None,
        "model": str(task.cell.model),
        "device": str(task.cell.device),
        "device_label": repeats.device_label,
        "threads": task.threads,
        "host": machine.host,
        "cpu": machine.cpu,
        "engine": engine,
        "batch_size": batch_size,
        "status": repeats.status,
        "reason": repeats.reason,
        "repeats": len(repeats.records),
        "latency_s": latency,
        "_latencies": [median(each) for each in calls],
        **{f"latency_p{round(100 * q)}_s": _quantile(calls, q) for q in (0.5, 0.9, 0.99)},
        "images_per_s": batch_size / latency if latency else None,
        "_ratios": values("speedup", of_batch=True),
        "parity": "failed" if failed else "ok" if values("error_to_float64") else None,
        "error_to_float64": once("error_to_float64", max),
        "torch_error_to_float64": once("torch_error_to_float64", max),
        "max_difference": once("max_difference", max),
        "top1_agreement": once("top1_agreement"),
        "test_accuracy": once("test_accuracy"),
        "accuracy_drop": once("accuracy_drop"),
        "test_images": tested.get("n"),
        "mapped_share": once("mapped_share", min),
        **{name: None if found is None else int(found) for name, found in bytes_of.items()},
        "load_s": once("load_seconds"),
        "first_run_s": once("first_run_seconds"),
        "input": facts.get("input"),
        "provider": facts.get("provider"),
        "budget": budget,
        "run": repeats.run,
    }


def _quantile(calls: Sequence[Sequence[float]], q: float) -> float | None:
    """Return the median over repeats of a quantile; None unless each has the samples for it."""
    if not calls or not all(supports_quantile(len(each), q) for each in calls):
        return None
    return median(float(np.quantile(each, q)) for each in calls)


def _compare(rows: Sequence[dict[str, Any]]) -> None:
    """Enter speed-ups, the best engine of each cell and batch, and the front of accuracy against latency."""
    for rivals in _grouped(rows, "run", "dataset", "model", "device", "batch_size").values():
        base = next((row for row in rivals if row["engine"] == BASELINE and row["latency_s"]), None)
        for row in rivals:
            row.update(_speedup(row, base))
        sound = [row for row in rivals if row["parity"] == "ok" and row["speedup"]]
        leader = max(sound, key=lambda row: row["speedup"], default=None)
        if leader and _leads(leader, sound):
            leader["best"] = "yes"
    for rivals in _grouped(rows, *FRONT).values():
        sound = [row for row in rivals if row["parity"] == "ok" and row["latency_s"]]
        for row in sound:
            row["pareto"] = "no" if any(_dominates(other, row) for other in sound) else "yes"


def _speedup(row: Mapping[str, Any], base: Mapping[str, Any] | None) -> dict[str, Any]:
    if base is None or not row["latency_s"]:
        return {"speedup": None}
    if row is base:
        return {"speedup": 1.0}
    ratios = row["_ratios"]
    if len(ratios) < LEAST_PAIRS:
        return {"speedup": base["latency_s"] / row["latency_s"], "speedup_pairing": "unpaired"}
    ranks = SignedRanks(np.log(ratios))
    return {
        "speedup": math.exp(ranks.estimate),
        "speedup_low": math.exp(ranks.lower(LEVEL)),
        "speedup_high": math.exp(ranks.upper(LEVEL)),
        "speedup_pairs": len(ratios),
        "speedup_pairing": "paired",
    }


def _leads(leader: Mapping[str, Any], rivals: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether a lead is proved: against torch by its interval, unpaired by every one of several repeats."""
    others = [row for row in rivals if row is not leader]
    if not others:
        return False
    if leader.get("speedup_pairing") == "paired":
        return bool(leader["speedup_low"] > 1)
    if leader["engine"] == BASELINE and all(row.get("speedup_pairing") == "paired" for row in others):
        return all(row["speedup_high"] < 1 for row in others)
    count = len(leader["_latencies"])
    return count > 1 and all(
        len(row["_latencies"]) == count
        and all(ours < theirs for ours, theirs in zip(leader["_latencies"], row["_latencies"], strict=True))
        for row in others
    )


def _dominates(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    better = one["test_accuracy"] >= other["test_accuracy"] and one["latency_s"] <= other["latency_s"]
    return better and (one["test_accuracy"], one["latency_s"]) != (other["test_accuracy"], other["latency_s"])


def _grouped(rows: Iterable[Any], *names: str) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return groups
