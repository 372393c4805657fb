"""The table of engines: one row per cell, engine and batch size, which engine is best, and which lie on the front."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np

from cnnperf.bench import trains
from cnnperf.engines import FILES, baseline, baseline_of
from cnnperf.inference.metrics import UNCHECKED
from cnnperf.inference.outcome import parity_of
from cnnperf.inference.settings import engines_of
from cnnperf.record import Measurement, Record
from cnnperf.sides import Both
from cnnperf.stats import binomial_interval, quartiles, supports_quantile
from cnnperf.tables.engine_parity import ParityOfRepeats
from cnnperf.tables.engine_ranks import BIMODAL, DISAGREES, NOT_STEADY, ranked
from cnnperf.tables.engine_row import BestEngine, EngineRow, Evidence
from cnnperf.tables.facts import row_of, without_sitting
from cnnperf.tables.repeats import (
    Repeats,
    Rivals,
    alike,
    by_chance,
    disturbance,
    engine_of,
    fewest_tested,
    machine_of,
    rivals,
)
from cnnperf.tables.table import DOUBT, MARKED, Table, Value, grouped
from cnnperf.task import Provenance, Task

ENGINE_GROUP = (
    *("dataset", "data", "data_sha256", "device", "device_label", "threads", "waiting", "allocator"),
    *("host", "cpu", "cpu_model", "instruction_sets"),
)
"""Columns that must be equal in two rows, of one network or of two, that share a table or a plot."""

LOGITS = (
    *("error_to_float64", "torch_error_to_float64", "max_error_to_float64"),
    *("max_difference", "relative_difference", "layer_error_to_float64"),
)
"""Distances of an engine's logits, and of values before them, from torch's: the largest of batch sizes and repeats."""

_NOTES = (
    f"{DOUBT} {BIMODAL}: ratios form two groups at least 5 % apart, either those of the pairs or, in several pairs and "
    f"over a quarter of them, those of the samples. {DOUBT} {DISAGREES}: the ratio of the separate latencies is "
    f"none that two further processes like those of the pairs would have (99 % prediction interval). {DOUBT} pairs "
    f"{NOT_STEADY}: in over a quarter of the pairs, the times of a side still changed when the longest warm-up ended. "
    f"A speed-up with {DOUBT} is never marked, best or on the front.",
    "best: its paired interval lies above what every other engine of the same network and batch may reach. No "
    "engine is best if no interval does, or if a requested engine has no record yet.",
    "parity failed: it computes something else; undecided: the interval of its accuracy drop holds the limit "
    "(max_accuracy_drop). Neither is ranked.",
    "pareto: 'no' if another engine of the same network and batch is proved better in speed or accuracy and proved "
    "worse in neither, else 'yes'; absent without a paired speed-up or without rivals.",
    "single_stream, offline: as MLPerf defines them, without its minimum durations: the 90th percentile of calls of "
    "one image (p90), and the batch size with the most images per second over all calls (total_images_per_s).",
    "p90, p99: where the calls support them; calls that depend on each other count as fewer.",
    MARKED,
    "A speed-up is marked among the engines of its network and batch, an accuracy among the rows of its budget.",
)


OF_FILES = (
    "accuracy of an ONNX file: on images normalised by the mean and standard deviation of the dataset; a file that "
    "expects other input shows too low an accuracy."
)
"""Meaning of the accuracy of an ONNX file, in the notes of a report that has one."""


def engine_notes(rows: Sequence[EngineRow]) -> tuple[str, ...]:
    """Return the notes on the rows of engines, in which the baseline is named that these rows have."""
    first, *others = sorted({row.evidence.baseline for row in rows}, reverse=True)
    time = f"the baseline's time ({', '.join((first, *others))})" if others else f"{first}'s time"
    speedup = (
        f"speed-up: {time} over the engine's. paired: in six fresh pairs of processes or more that took turns [95 % "
        "interval]; few pairs: one to five, no interval; separate: the ratio of two latencies, each measured by itself."
    )
    of_files = any(row.evidence.baseline == baseline_of(FILES) for row in rows)
    return speedup, *_NOTES, *([OF_FILES] if of_files else [])


def engine_table(records: Mapping[str, Sequence[Record]]) -> Table[EngineRow]:
    """Return the table of engines, in the order of the runs."""
    rows = ranked([row for run, of_run in records.items() for row in _rows(run, of_run)])
    return Table("engines", without_sitting(EngineRow.columns(), rows), rows, ENGINE_GROUP)


def is_undecided(records: Iterable[Record]) -> bool:
    """Return whether more test images are needed to decide the parity of any engine in these records of one run."""
    records = tuple(records)
    of_engines = (r for r in records if engine_of(r.task))
    return any(parity_of(repeats.records) == "undecided" for repeats in alike("", of_engines, records))


def best_engines(rows: Iterable[EngineRow]) -> dict[tuple[str, str | None, tuple[Value, ...]], BestEngine]:
    """Return the best engine of each training, by run, key and machine; of several settings the last that has one."""
    found: dict[tuple[str, str | None, tuple[Value, ...]], BestEngine] = {}
    for (run, compared), of_training in grouped(rows, lambda row: (row.run, row.evidence.rivals)).items():
        first = next((row for row in sorted(of_training, key=lambda row: row.batch_size or 0) if row.best), None)
        if first:
            same = (row for row in of_training if row.engine == first.engine and row.images_per_s)
            offline = max(same, key=lambda row: row.total_images_per_s or 0.0)
            found[run, compared.training, machine_of(compared.place)] = BestEngine(
                best_engine=first.engine,
                best_engine_batch_size=first.batch_size,
                best_engine_latency_s=first.latency_s,
                best_engine_images_per_s=offline.images_per_s,
                best_engine_offline_batch_size=offline.batch_size,
                best_engine_speedup=first.speedup,
                best_engine_speedup_low=first.speedup_low,
                best_engine_speedup_high=first.speedup_high,
                best_engine_parity=first.parity,
                best_engine_accuracy_drop=first.accuracy_drop,
                best_engine_file_bytes=first.file_bytes,
                repeats=first.repeats,
                offline_repeats=offline.repeats,
            )
    return found


def _rows(run: str, records: Sequence[Record]) -> Iterator[EngineRow]:
    budgets = {r.key: Repeats(run, (r,)).budget for r in records if trains(r.task.stage)}
    of_engines = (r for r in records if engine_of(r.task))
    for repeats in alike(run, of_engines, records):
        compared = rivals(repeats.task, budgets, repeats.place)
        sizes = dict.fromkeys(m.tags["batch_size"] for r in repeats.records for m in r.find("infer.latency"))
        for batch_size in sizes or (None,):
            yield _row(repeats, batch_size, compared, budgets.get(compared.training or ""))


@dataclass(frozen=True, slots=True)
class _Figures:
    """Measurements of an engine by all its repeats; `batch_size` is that of the row."""

    records: tuple[Record, ...]
    batch_size: Any

    def found(self, metric: str) -> list[Measurement]:
        return [m for r in self.records for m in r.find(f"infer.{metric}")]

    def of_batch(self, metric: str) -> list[Measurement]:
        return [m for r in self.records for m in r.find(f"infer.{metric}", batch_size=self.batch_size)]

    def once(self, metric: str, reduce: Callable[[list[float]], float] = median) -> float | None:
        values = [v for m in self.found(metric) for v in m.values]
        return reduce(values) if values else None


def _row(repeats: Repeats, batch_size: Any, compared: Rivals, budget: str | None) -> EngineRow:
    measured = _Figures(repeats.records, batch_size)
    calls = [m.values for m in measured.of_batch("latency")]
    times = _times(calls, batch_size)
    facts = next((m.remarks for m in measured.found("threads")), {})
    parity = ParityOfRepeats(repeats.records)
    unchecked = f"latency without parity: {facts[UNCHECKED]}" if UNCHECKED in facts else None
    bytes_of = {name: measured.once(name) for name in ("file_bytes", "peak_bytes")}
    return row_of(
        EngineRow,
        repeats,
        engine=engine_of(repeats.task),
        batch_size=batch_size,
        reason="; ".join(filter(None, (repeats.reason or parity.undecided or unchecked, repeats.unequal_code))) or None,
        disturbed=disturbance(measured.records, batch_size=batch_size),
        repeats=len(calls) or None,
        **times,
        parity=parity.outcome,
        **{name: measured.once(name, max) for name in LOGITS},
        top1_agreement=measured.once("top1_agreement", fmean),
        **_accuracy(measured, repeats.data),
        **{"accuracy_drop": measured.once("accuracy_drop", max), **parity.columns()},
        mapped_share=measured.once("mapped_share", min),
        **_layers(repeats.records, batch_size, times["latency_s"]),
        **{name: None if size is None else int(size) for name, size in bytes_of.items()},
        load_s=measured.once("load_seconds"),
        first_run_s=measured.once("first_run_seconds"),
        **{name: facts.get(name) for name in ("interop_threads", "waiting", "input", "provider")},
        budget=budget,
        evidence=_evidence(measured, repeats.task, compared),
    )


def _times(calls: Sequence[Sequence[float]], batch_size: Any) -> dict[str, float | None]:
    """Return the columns of latency and of throughput. calls: the seconds of each repeat's calls."""
    latencies = [median(each) for each in calls]
    latency = median(latencies) if calls else None
    pooled = [call for each in calls for call in each]
    spread = quartiles(pooled) if pooled else None
    least, most = (min(latencies), max(latencies)) if len(latencies) > 1 else (None, None)
    return {
        "latency_s": latency,
        "latency_q25_s": spread and spread.q25,
        "latency_q75_s": spread and spread.q75,
        "latency_min_s": least,
        "latency_max_s": most,
        **{f"latency_p{round(100 * q)}_s": _quantile(calls, q) for q in (0.5, 0.9, 0.99)},
        "images_per_s": batch_size / latency if latency else None,
        "images_per_s_min": batch_size / most if most else None,
        "images_per_s_max": batch_size / least if least else None,
        "total_images_per_s": batch_size * len(pooled) / sum(pooled) if pooled else None,
    }


def _accuracy(measured: _Figures, data: Provenance | None) -> dict[str, Any]:
    """Return the columns of the accuracy on test images, with its 95 % binomial interval.

    All repeats test one training on the same images.
    """
    accuracy, images = measured.once("test_accuracy", fmean), fewest_tested(measured.found("test_accuracy"))
    bounds = None if accuracy is None or images is None else binomial_interval(round(accuracy * images), images)
    return {
        "test_accuracy": accuracy,
        "test_accuracy_low": bounds and bounds.low,
        "test_accuracy_high": bounds and bounds.high,
        "test_images": images,
        "accuracy_flag": by_chance(bounds, data),
    }


def _evidence(measured: _Figures, task: Task, compared: Rivals) -> Evidence:
    speedups = measured.of_batch("speedup")
    return Evidence(
        rivals=compared,
        baseline=baseline(task.cell.model),
        waiting=task.waiting,
        ratios=tuple(v for m in speedups for v in m.values),
        pairs=tuple(_pairs(r, measured.batch_size) for r in measured.records),
        unsteady=sum(int(m.remarks.get("unsteady_pairs", 0)) for m in speedups),
        engines=engines_of(task.settings),
        settings=task.settings,
        peaks=tuple(v for m in measured.found("peak_bytes") for v in m.values),
    )


def _layers(records: Sequence[Record], batch_size: Any, latency: float | None) -> dict[str, Any]:
    """Return the time of all layers over the latency, and a flag if this ratio is far from 1."""
    sums = [sum(median(m.values) for m in r.find("infer.node_time", batch_size=batch_size)) for r in records]
    sums = [each for each in sums if each]
    if not sums or not latency:
        return {}
    share = median(sums) / latency
    return {"layers_share": share, "layers_flag": None if abs(share - 1) <= LAYERS_OFF else UNEQUAL}


LAYERS_OFF = 0.15
"""Largest difference between the layers' summed times and the latency, relative to the latency, without a flag."""
UNEQUAL = (
    f"sum of layers differs from latency by over {100 * LAYERS_OFF:g} % (timing each layer adds time, or conditions "
    "changed)"
)


def _pairs(r: Record, batch_size: Any) -> tuple[Both[tuple[float, ...]], ...]:
    """Return for each pair of processes the seconds per call of both sides' samples."""
    sides: dict[Any, dict[Any, tuple[float, ...]]] = defaultdict(dict)
    for m in r.find("infer.pair_seconds", batch_size=batch_size):
        sides[m.tags["pair"]][m.tags["side"]] = m.values
    return tuple(Both(of["baseline"], of["candidate"]) for of in sides.values())


def _quantile(calls: Sequence[Sequence[float]], q: float) -> float | None:
    """Return the median over repeats of a quantile; None unless each repeat has enough samples."""
    if not calls or not all(supports_quantile(each, q) for each in calls):
        return None
    return median(float(np.quantile(each, q)) for each in calls)
