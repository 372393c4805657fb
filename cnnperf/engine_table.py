"""The table of engines: a row a cell, engine and batch size, which engine is best, and which lie on the front."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from cnnperf._engine_parity import ParityOfRepeats
from cnnperf._engine_ranks import compare, grouped
from cnnperf._repeats import Repeats
from cnnperf.engines import baseline
from cnnperf.record import Record
from cnnperf.stats import supports_quantile
from cnnperf.table import Column, Report, Row, Table

CELL = ("dataset", "data", "data_fallback", "data_sha256", "model", "device", "device_label", "threads", "host", "cpu")
GROUP = (*(name for name in CELL if name != "data_fallback"), "budget")
FRONT = ("dataset", "data", "data_sha256", "device", "device_label", "threads", "host", "cpu")
"""What rows of different networks have in common that stand on one front of accuracy against latency."""

COLUMNS = (
    *(Column(name) for name in CELL if name not in ("model", "threads")),
    Column("model", shown=0),
    Column("threads", unit="count"),
    Column("engine", shown=0),
    Column("batch_size", "batch", unit="count", shown=0),
    Column("scenario", shown=2),
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
    Column("accuracy_drop", "accuracy drop", unit="1", shown=2, interval=("accuracy_drop_low", "accuracy_drop_high")),
    Column("test_images", unit="count"),
    Column("mapped_share", unit="1"),
    Column("file_bytes", "size", unit="bytes", shown=3),
    Column("load_s", unit="s"),
    Column("first_run_s", unit="s"),
    Column("peak_bytes", "peak memory", unit="bytes", shown=4),
    Column("interop_threads", unit="count"),
    Column("input"),
    Column("provider"),
    Column("pareto", shown=2),
    Column("budget"),
    Column("run"),
    Column("relative_difference", unit="1"),
    Column("max_error_to_float64", unit="1"),
    Column("accuracy_drop_low", unit="1"),
    Column("accuracy_drop_high", unit="1"),
    Column("right_in_torch_only", unit="count"),
    Column("right_in_engine_only", unit="count"),
    Column("images_to_decide", unit="count"),
    Column("class_disagreements", unit="count"),
    Column("layer_error_to_float64", unit="1"),
)
"""latency_s is the median of a call, of each repeat and then over them; speedup is torch's time over the engine's.

Differences are to torch's logits in float32, errors to those in float64; the error and the relative difference are in
units of the largest of the latter. The accuracy drop has its paired 95 % interval, of the repeat with the highest end.
"""

LOGITS = (
    *("error_to_float64", "torch_error_to_float64", "max_error_to_float64"),
    *("max_difference", "relative_difference", "layer_error_to_float64"),
)
"""How far an engine's logits, and the values before them, lie from torch's: the largest of batch sizes and repeats."""

ON_LEADERBOARD = (
    Column("best_engine", "best engine", shown=3),
    Column("best_engine_batch_size", "at batch", unit="count", shown=4),
    Column("best_engine_latency_s", "its latency", unit="s", better="lower", shown=4),
    Column("best_engine_images_per_s", "its images/s", unit="images/s", better="higher", shown=5),
    Column("best_engine_offline_batch_size", unit="count"),
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
"""What the leaderboard says of the best engine of a cell: all at the smallest batch size at which it is best, but for
its throughput, which is the largest of any and stands with a batch size of its own."""

NOTES = (
    "speed-up: torch's time over the engine's, in fresh pairs of processes that took turns [95 % interval];",
    "  unpaired: fewer than six pairs, no interval; without any, a ratio of two separate medians, off by 20 % or more.",
    "best: its speed-up's interval lies above every other's; parity failed: it computes something else, not ranked;",
    "  undecided: the interval of its accuracy drop holds the limit (max_accuracy_drop), not ranked either.",
    "single_stream: one image after another; offline: the batch size with the largest throughput.",
)


def engine_table(records: Mapping[str, Sequence[Record]]) -> Table:
    """Lay out what the engines of each run's cells came to, by run."""
    rows = [row for run, of_run in records.items() for row in _rows(run, of_run)]
    compare(rows, FRONT)
    return Table("engines", COLUMNS, tuple({c.name: row.get(c.name) for c in COLUMNS} for row in rows), GROUP)


def is_undecided(report: Report) -> bool:
    """Tell whether more test images are needed to tell the parity of any engine."""
    table = report.table("engines")
    return table is not None and any(row["parity"] == "undecided" for row in table.rows)


def best_engines(table: Table) -> dict[tuple[str, str, str, str], Row]:
    """Return the leaderboard's figures of each cell's best engine, by run, dataset, model and device."""
    found: dict[tuple[str, str, str, str], Row] = {}
    for key, rows in grouped(table.rows, "run", "dataset", "model", "device").items():
        first = next((row for row in sorted(rows, key=lambda row: row["batch_size"] or 0) if row["best"]), None)
        if first:
            same = [row for row in rows if row["engine"] == first["engine"]]
            offline = max((row for row in same if row["images_per_s"]), key=lambda row: row["images_per_s"])
            names = ("speedup", "speedup_low", "speedup_high", "parity", "accuracy_drop", "file_bytes", "pareto")
            found[key] = {
                "best_engine": first["engine"],
                "best_engine_batch_size": first["batch_size"],
                "best_engine_latency_s": first["latency_s"],
                "best_engine_images_per_s": offline["images_per_s"],
                "best_engine_offline_batch_size": offline["batch_size"],
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
    parity = ParityOfRepeats(repeats.records)
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
        "reason": repeats.reason or parity.undecided,
        "repeats": len(repeats.records),
        "latency_s": latency,
        "_baseline": baseline(task.cell.model),
        "_latencies": [median(each) for each in calls],
        **{f"latency_p{round(100 * q)}_s": _quantile(calls, q) for q in (0.5, 0.9, 0.99)},
        "images_per_s": batch_size / latency if latency else None,
        "_ratios": values("speedup", of_batch=True),
        "parity": parity.outcome,
        **{name: once(name, max) for name in LOGITS},
        "top1_agreement": once("top1_agreement"),
        "test_accuracy": once("test_accuracy"),
        "accuracy_drop": once("accuracy_drop"),
        **parity.columns(),
        "test_images": tested.get("n"),
        "mapped_share": once("mapped_share", min),
        **{name: None if found is None else int(found) for name, found in bytes_of.items()},
        "load_s": once("load_seconds"),
        "first_run_s": once("first_run_seconds"),
        **{name: facts.get(name) for name in ("interop_threads", "input")},
        "provider": facts.get("provider"),
        "budget": budget,
        "run": repeats.run,
    }


def _quantile(calls: Sequence[Sequence[float]], q: float) -> float | None:
    """Return the median over repeats of a quantile; None unless each has the samples for it."""
    if not calls or not all(supports_quantile(len(each), q) for each in calls):
        return None
    return median(float(np.quantile(each, q)) for each in calls)
