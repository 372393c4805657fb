"""The table of engines: a row a cell, engine and batch size, which engine is best, and which lie on the front."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from cnnperf.engines import baseline
from cnnperf.record import Record
from cnnperf.stats import Interval, binomial_interval, supports_quantile
from cnnperf.tables.engine_parity import ParityOfRepeats
from cnnperf.tables.engine_ranks import BIMODAL, DISAGREES, compare, grouped
from cnnperf.tables.facts import facts
from cnnperf.tables.repeats import BETWEEN_REPEATS, Repeats, alike
from cnnperf.tables.table import DOUBT, LEAST_REPEATS, MARKED, Column, Report, Row, Table

MACHINE = ("host", "cpu", "cpu_model", "instruction_sets")
CELL = ("dataset", "data", "data_fallback", "data_sha256", "model", "device", "device_label", "threads", *MACHINE)
GROUP = (*(name for name in CELL if name != "data_fallback"), "budget", "allocator")
PLOT = ("dataset", "data", "data_sha256", "device", "device_label", "threads", "waiting", "allocator", *MACHINE)
"""What rows of different networks have in common that stand in one plot of accuracy against latency."""

COLUMNS = (
    *facts(*(name for name in CELL if name not in ("model", "threads"))),
    *facts("model", shown=0),
    *facts("threads"),
    Column("engine", shown=0, meaning="engine, with its options", source="task.variant"),
    Column("batch_size", "batch", unit="count", shown=0, meaning="images in a call", source="(tag batch_size)"),
    Column(
        "scenario",
        shown=2,
        meaning="`single_stream` (batch 1, if p90 is known), `offline` (the batch size with the most images per second "
        "in all), as MLPerf defines them without its least durations",
        source="infer.latency",
    ),
    *facts("status", shown=1),
    *facts("reason"),
    Column(
        "repeats",
        unit="count",
        meaning="repeats with a latency at this batch size, each a process of its own",
        source="infer.latency",
    ),
    Column(
        "latency_s",
        "latency",
        unit="s",
        shown=0,
        meaning="time of a call: median over calls, then over repeats",
        source="infer.latency",
    ),
    Column("latency_q25_s", unit="s", meaning="lower quartile of all calls of all repeats", source="infer.latency"),
    Column("latency_q75_s", unit="s", meaning="upper quartile of all calls of all repeats", source="infer.latency"),
    Column("latency_min_s", unit="s", meaning="lowest repeat's median; empty with one repeat", source="infer.latency"),
    Column("latency_max_s", unit="s", meaning="highest repeat's median; empty with one repeat", source="infer.latency"),
    Column(
        "latency_p50_s",
        unit="s",
        meaning="50th percentile of calls, median over repeats; empty where the calls do not support it",
        source="infer.latency",
    ),
    Column("latency_p90_s", "p90", unit="s", shown=3, meaning="90th percentile, likewise", source="infer.latency"),
    Column("latency_p99_s", "p99", unit="s", shown=3, meaning="99th percentile, likewise", source="infer.latency"),
    Column(
        "images_per_s",
        "images/s",
        unit="images/s",
        better="higher",
        shown=1,
        meaning="batch size over `latency_s`",
        source="infer.latency",
        spread=("images_per_s_min", "images_per_s_max"),
        least_repeats=LEAST_REPEATS,
        within=("run",),
    ),
    Column("images_per_s_min", unit="images/s", meaning="batch size over `latency_max_s`", source="infer.latency"),
    Column("images_per_s_max", unit="images/s", meaning="batch size over `latency_min_s`", source="infer.latency"),
    Column(
        "total_images_per_s",
        "images/s in all",
        unit="images/s",
        shown=4,
        meaning="images of all timed calls over the seconds of all timed calls",
        source="infer.latency",
    ),
    Column(
        "speedup",
        "speed-up",
        unit="1",
        better="higher",
        shown=0,
        meaning="time of torch (of plain ONNX Runtime for an ONNX file) over the engine's; `speedup_pairing` says how "
        "it was measured",
        source="infer.speedup, infer.latency",
        interval=("speedup_low", "speedup_high"),
        spread=("speedup_low", "speedup_high"),
        doubts="speedup_flags",
    ),
    Column(
        "speedup_low",
        unit="1",
        meaning="lower end of its exact 95 % interval over pairs of processes; empty below six pairs",
        source="infer.speedup",
    ),
    Column("speedup_high", unit="1", meaning="upper end of that interval", source="infer.speedup"),
    Column(
        "speedup_pairs", "pairs", unit="count", meaning="pairs of processes that took turns", source="infer.speedup"
    ),
    Column(
        "speedup_pairing",
        "pairing",
        shown=2,
        meaning="`paired`: six pairs or more; `few pairs`: one to five; `separate`: ratio of latencies of processes "
        "that never ran together",
        source="infer.speedup",
    ),
    Column(
        "speedup_flags",
        meaning="why a paired speed-up is not to be relied on: `bimodal`, `disagrees with separate latencies`",
        source="infer.pair_seconds, infer.latency",
    ),
    Column(
        "best",
        shown=1,
        meaning="`yes` if its paired interval lies above what every other engine of the network and batch may reach",
        source="infer.speedup",
    ),
    Column(
        "parity",
        shown=0,
        meaning="whether it computes what torch computes: `ok`, `failed`, `undecided`",
        source="infer.parity, infer.right_in_torch_only",
    ),
    Column(
        "error_to_float64",
        unit="1",
        meaning="largest distance of a logit from torch's in float64, over the largest of those; worst of the batch "
        "sizes and repeats, as are the next two",
        source="infer.error_to_float64",
    ),
    Column(
        "torch_error_to_float64",
        unit="1",
        meaning="the same of torch in float32",
        source="infer.torch_error_to_float64",
    ),
    Column(
        "max_difference",
        unit="1",
        meaning="largest distance of a logit from torch's in float32, in units of the logits",
        source="infer.max_difference",
    ),
    Column(
        "top1_agreement",
        "agreement",
        unit="fraction",
        shown=3,
        meaning="share of test images given the class that torch gives",
        source="infer.top1_agreement",
    ),
    Column(
        "test_accuracy",
        "test accuracy",
        unit="fraction",
        better="higher",
        shown=2,
        meaning="share of test images classified correctly by the engine, median over repeats",
        source="infer.test_accuracy",
        interval=("test_accuracy_low", "test_accuracy_high"),
        spread=("test_accuracy_low", "test_accuracy_high"),
    ),
    Column(
        "test_accuracy_low",
        unit="fraction",
        meaning="lower end of its 95 % binomial (Wilson) interval",
        source="infer.test_accuracy",
    ),
    Column("test_accuracy_high", unit="fraction", meaning="upper end of that interval", source="infer.test_accuracy"),
    Column(
        "accuracy_drop",
        "accuracy drop",
        unit="1",
        shown=2,
        meaning="torch's accuracy on the same images less the engine's, of the repeat whose interval ends highest; "
        "below 0: the engine's is higher",
        source="infer.accuracy_drop",
        interval=("accuracy_drop_low", "accuracy_drop_high"),
    ),
    Column("test_images", unit="count", meaning="test images classified", source="(remark n)"),
    Column(
        "mapped_share",
        unit="1",
        meaning="share of the kernels' time that is known to be some layer's; lowest of the repeats",
        source="infer.mapped_share",
    ),
    Column(
        "layers_share",
        "layers ÷ latency",
        unit="fraction",
        shown=5,
        meaning="sum of the layers' medians over `latency_s`, at the batch size at which layers were timed",
        source="infer.node_time, infer.latency",
        doubts="layers_flag",
    ),
    Column(
        "layers_flag",
        meaning="that this share differs from 1 by more than 15 %",
        source="infer.node_time, infer.latency",
    ),
    Column(
        "file_bytes",
        "size",
        unit="bytes",
        shown=3,
        meaning="size of the file that the engine loads",
        source="infer.file_bytes",
    ),
    Column(
        "load_s",
        unit="s",
        meaning="seconds to load the network once the engine's packages are imported, quantisation and calibration "
        "included",
        source="infer.load_seconds",
    ),
    Column("first_run_s", unit="s", meaning="seconds of the first call", source="infer.first_run_seconds"),
    Column(
        "peak_bytes",
        "peak memory",
        unit="bytes",
        shown=4,
        meaning="peak memory of the process (CPU), or of torch's allocator (CUDA)",
        source="infer.peak_bytes",
    ),
    Column(
        "interop_threads",
        unit="count",
        meaning="threads that run operators beside each other",
        source="(remark interop_threads)",
    ),
    Column("waiting", meaning="how the engine's threads wait, as the engine has it", source="(remark waiting)"),
    *facts("allocator"),
    Column(
        "input", meaning="where the input lies during a call: `host`, `bound on the device`", source="(remark input)"
    ),
    Column("provider", meaning="execution provider of ONNX Runtime", source="(remark provider)"),
    Column(
        "pareto",
        shown=2,
        meaning="`no` if another engine of the network and batch is proved faster or more accurate and proved worse in "
        "neither, else `yes`; empty without a paired speed-up or without rivals",
        source="infer.speedup, infer.test_accuracy",
    ),
    *facts("budget", "run"),
    Column(
        "relative_difference",
        unit="1",
        meaning="`max_difference` over the largest of torch's logits in float64",
        source="infer.relative_difference",
    ),
    Column(
        "max_error_to_float64",
        unit="1",
        meaning="`error_to_float64` in units of the logits",
        source="infer.max_error_to_float64",
    ),
    Column(
        "accuracy_drop_low",
        unit="1",
        meaning="lower end of the drop's paired 95 % interval (Tango), of the repeat with the highest upper end",
        source="infer.right_in_torch_only, infer.right_in_engine_only",
    ),
    Column(
        "accuracy_drop_high",
        unit="1",
        meaning="upper end of that interval",
        source="infer.right_in_torch_only, infer.right_in_engine_only",
    ),
    Column(
        "right_in_torch_only",
        unit="count",
        meaning="test images that torch alone classifies correctly, in that repeat",
        source="infer.right_in_torch_only",
    ),
    Column(
        "right_in_engine_only",
        unit="count",
        meaning="test images that the engine alone classifies correctly, in that repeat",
        source="infer.right_in_engine_only",
    ),
    Column(
        "images_to_decide",
        unit="count",
        meaning="test images that would decide an undecided parity, about",
        source="infer.right_in_torch_only, infer.right_in_engine_only",
    ),
    Column(
        "class_disagreements",
        unit="count",
        meaning="test images of another class than torch's although torch's two logits are no tie; most of the "
        "repeats; empty for an 8-bit engine",
        source="infer.class_disagreements",
    ),
    Column(
        "layer_error_to_float64",
        unit="1",
        meaning="largest distance of a value between images and logits from the exported network's in float64, over "
        "the largest of that value",
        source="infer.layer_error_to_float64",
    ),
)

LOGITS = (
    *("error_to_float64", "torch_error_to_float64", "max_error_to_float64"),
    *("max_difference", "relative_difference", "layer_error_to_float64"),
)
"""How far an engine's logits, and the values before them, lie from torch's: the largest of batch sizes and repeats."""

ON_LEADERBOARD = (
    Column(
        "best_engine",
        "best engine",
        shown=3,
        meaning="engine that is `best` in engines.csv, at the smallest batch size at which one is",
        source="infer.speedup",
    ),
    Column(
        "best_engine_batch_size",
        "at batch",
        unit="count",
        shown=4,
        meaning="that batch size, at which the other `best_engine_…` are, but for those of its offline scenario",
        source="infer.speedup",
    ),
    Column(
        "best_engine_latency_s",
        "its latency",
        unit="s",
        better="lower",
        shown=4,
        meaning="its `latency_s`",
        source="infer.latency",
    ),
    Column(
        "best_engine_images_per_s",
        "its images/s",
        unit="images/s",
        better="higher",
        shown=5,
        meaning="its `images_per_s` at the batch size of its offline scenario",
        source="infer.latency",
    ),
    Column(
        "best_engine_offline_batch_size",
        unit="count",
        meaning="batch size of its offline scenario",
        source="infer.latency",
    ),
    Column(
        "best_engine_speedup",
        "its speed-up",
        unit="1",
        better="higher",
        shown=4,
        meaning="its `speedup`",
        source="infer.speedup",
        interval=("best_engine_speedup_low", "best_engine_speedup_high"),
        spread=("best_engine_speedup_low", "best_engine_speedup_high"),
    ),
    Column("best_engine_speedup_low", unit="1", meaning="its `speedup_low`", source="infer.speedup"),
    Column("best_engine_speedup_high", unit="1", meaning="its `speedup_high`", source="infer.speedup"),
    Column(
        "best_engine_parity",
        "its parity",
        shown=6,
        meaning="its `parity`, which is `ok` in what can be best",
        source="infer.parity, infer.right_in_torch_only",
    ),
    Column(
        "best_engine_accuracy_drop",
        "its accuracy drop",
        unit="1",
        shown=6,
        meaning="its `accuracy_drop`",
        source="infer.accuracy_drop",
    ),
    Column(
        "best_engine_file_bytes",
        "its size",
        unit="bytes",
        shown=6,
        meaning="its `file_bytes`",
        source="infer.file_bytes",
    ),
)
"""What the leaderboard says of the best engine of a cell: all at the smallest batch size at which it is best, but for
its throughput, which is that at the batch size of its offline scenario."""

NOTES = (
    "speed-up: torch's time over the engine's. paired: in six fresh pairs of processes or more that took turns [95 % "
    "interval]; few pairs: one to five, no interval; separate: the ratio of two latencies, each measured by itself.",
    f"{DOUBT} {BIMODAL}: the ratios of the pairs, or of the samples in two pairs and more than a quarter of them, fall "
    f"into two groups 5 % apart or more; {DOUBT} {DISAGREES}: its interval does not hold their ratio. Such a speed-up "
    "is never marked, best or on the front.",
    "best: its paired interval lies above what every other engine of the same network and batch may reach; often none.",
    "parity failed: it computes something else; undecided: the interval of its accuracy drop holds the limit "
    "(max_accuracy_drop). Neither is ranked.",
    "pareto: yes where no engine of the same network and batch is proved faster or more accurate without being proved "
    "worse in the other, else no; absent for what has no paired speed-up, and without rivals.",
    "single_stream, offline: as MLPerf defines them, without its least durations: the 90th percentile of calls of one "
    "image (p90), and the batch size with the most images in all over seconds in all (total_images_per_s).",
    "p90, p99: where the calls support them; calls that depend on each other count as fewer.",
    MARKED,
)


def engine_table(records: Mapping[str, Sequence[Record]]) -> Table:
    """Return the table of engines, in the order of the runs."""
    rows = [row for run, of_run in records.items() for row in _rows(run, of_run)]
    compare(rows)
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
            offline = max((row for row in same if row["images_per_s"]), key=lambda row: row["total_images_per_s"])
            names = ("speedup", "speedup_low", "speedup_high", "parity", "accuracy_drop", "file_bytes")
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
    budgets = {r.key: Repeats(run, (r,)).budget for r in records if r.task.stage == "train"}
    for repeats in alike(run, (r for r in records if r.task.stage == "infer")):
        trained = tuple(key for key in repeats.task.needs if key in budgets)
        sizes = dict.fromkeys(m.tags["batch_size"] for r in repeats.records for m in r.find("infer.latency"))
        for batch_size in sizes or (None,):
            yield {
                **_row(repeats, str(repeats.task.variant["engine"]), batch_size),
                "budget": next((budgets[key] for key in trained), None),
                "_compared": (repeats.task.model_dump_json(exclude={*BETWEEN_REPEATS, "variant", "needs"}), trained),
            }


def _row(repeats: Repeats, engine: str, batch_size: Any) -> dict[str, Any]:
    task, machine, data = repeats.task, repeats.machine, repeats.data

    def values(metric: str, *, of_batch: bool = False) -> list[float]:
        tags = {"batch_size": batch_size} if of_batch else {}
        return [v for r in repeats.records for m in r.find(f"infer.{metric}", **tags) for v in m.values]

    def once(metric: str, reduce: Callable[[list[float]], float] = median) -> float | None:
        found = values(metric)
        return reduce(found) if found else None

    calls = [m.values for r in repeats.records for m in r.find("infer.latency", batch_size=batch_size)]
    latencies = [median(each) for each in calls]
    latency = median(latencies) if calls else None
    pooled = [call for each in calls for call in each]
    quartiles = np.quantile(pooled, (0.25, 0.75)).tolist() if pooled else (None, None)
    least, most = (min(latencies), max(latencies)) if len(latencies) > 1 else (None, None)
    facts = next((m.remarks for r in repeats.records for m in r.find("infer.threads")), {})
    tested = next((m.remarks for r in repeats.records for m in r.find("infer.test_accuracy")), {})
    parity = ParityOfRepeats(repeats.records)
    accuracy = once("test_accuracy")
    bounds = _accuracy_interval(accuracy, tested.get("n"))
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
        **{name: getattr(machine, name) for name in MACHINE},
        "engine": engine,
        "batch_size": batch_size,
        "status": repeats.status,
        "reason": repeats.reason or parity.undecided,
        "repeats": len(calls) or None,
        "latency_s": latency,
        "latency_q25_s": quartiles[0],
        "latency_q75_s": quartiles[1],
        "latency_min_s": least,
        "latency_max_s": most,
        **{f"latency_p{round(100 * q)}_s": _quantile(calls, q) for q in (0.5, 0.9, 0.99)},
        "images_per_s": batch_size / latency if latency else None,
        "images_per_s_min": batch_size / most if most else None,
        "images_per_s_max": batch_size / least if least else None,
        "total_images_per_s": batch_size * len(pooled) / sum(pooled) if pooled else None,
        "_baseline": baseline(task.cell.model),
        "_ratios": values("speedup", of_batch=True),
        "_pairs": [_pair_ratios(r, batch_size) for r in repeats.records],
        "parity": parity.outcome,
        **{name: once(name, max) for name in LOGITS},
        "top1_agreement": once("top1_agreement"),
        "test_accuracy": accuracy,
        "test_accuracy_low": bounds and bounds.low,
        "test_accuracy_high": bounds and bounds.high,
        "accuracy_drop": once("accuracy_drop"),
        **parity.columns(),
        "test_images": tested.get("n"),
        "mapped_share": once("mapped_share", min),
        **_layers(repeats.records, batch_size, latency),
        **{name: None if found is None else int(found) for name, found in bytes_of.items()},
        "load_s": once("load_seconds"),
        "first_run_s": once("first_run_seconds"),
        **{name: facts.get(name) for name in ("interop_threads", "waiting", "input")},
        "allocator": task.allocator,
        "provider": facts.get("provider"),
        "run": repeats.run,
    }


def _layers(records: Sequence[Record], batch_size: Any, latency: float | None) -> dict[str, Any]:
    """Return the layers' share of the latency, and a flag if it is far from 1."""
    sums = [sum(median(m.values) for m in r.find("infer.node_time", batch_size=batch_size)) for r in records]
    sums = [each for each in sums if each]
    if not sums or not latency:
        return {}
    share = median(sums) / latency
    return {"layers_share": share, "layers_flag": None if abs(share - 1) <= LAYERS_OFF else UNEQUAL}


LAYERS_OFF = 0.15
"""By how much of the latency the sum of the layers' times may differ from it."""
UNEQUAL = (
    f"layers and latency differ by over {100 * LAYERS_OFF:g} %: to time each layer costs time, or conditions differed"
)


def _accuracy_interval(accuracy: float | None, n: Any) -> Interval | None:
    """Return the 95 % binomial interval of an accuracy on n images; repeats are asked the same ones again."""
    return None if accuracy is None or n is None else binomial_interval(round(accuracy * n), n)


def _pair_ratios(r: Record, batch_size: Any) -> list[list[float]]:
    """Return for each pair of processes the ratios of its samples: the baseline's seconds over the engine's."""
    sides: dict[Any, dict[Any, tuple[float, ...]]] = defaultdict(dict)
    for m in r.find("infer.pair_seconds", batch_size=batch_size):
        sides[m.tags["pair"]][m.tags["side"]] = m.values
    return [[base / own for base, own in zip(of["baseline"], of["candidate"], strict=True)] for of in sides.values()]


def _quantile(calls: Sequence[Sequence[float]], q: float) -> float | None:
    """Return the median over repeats of a quantile; None unless each has the samples for it."""
    if not calls or not all(supports_quantile(each, q) for each in calls):
        return None
    return median(float(np.quantile(each, q)) for each in calls)
