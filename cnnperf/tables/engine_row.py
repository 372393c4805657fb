"""A row of the table of engines, and the leaderboard's columns on the best engine of a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cnnperf.sides import Both
from cnnperf.tables.facts import fact
from cnnperf.tables.repeats import Rivals
from cnnperf.tables.table import LEAST_REPEATS, Row, column, row_type


@dataclass(frozen=True, slots=True)
class Evidence:
    """The basis of a row's speed-up, and the rows that it is compared with."""

    rivals: Rivals
    baseline: str
    """Engine whose time is divided by this engine's."""
    ratios: tuple[float, ...]
    """Speed-up of each pair of processes: the baseline's time over the engine's."""
    waiting: str | None
    """Waiting policy that the task asked for; an engine without it uses another and is compared all the same."""
    pairs: tuple[tuple[Both[tuple[float, ...]], ...], ...]
    """Seconds per call of both sides' samples, by repeat and pair."""
    unsteady: int
    """Number of those pairs in which a side was not steady when its warm-up ended."""
    engines: tuple[str, ...]
    """All engines that were asked for, measured or not yet."""
    settings: Mapping[str, Any]
    """The settings of its task."""
    peaks: tuple[float, ...] = ()
    """Peak memory of each repeat, in bytes."""


@row_type
class EngineRow(Row):
    """An engine of a cell at one batch size."""

    dataset: str = fact()
    data: str | None = fact()
    data_fallback: str | None = fact()
    data_sha256: str | None = fact()
    device: str = fact()
    device_label: str | None = fact()
    host: str = fact()
    cpu: str = fact()
    cpu_model: str | None = fact()
    instruction_sets: str | None = fact()
    model: str = fact(shown=0)
    threads: int = fact()
    engine: str = column(shown=0, meaning="engine, with its options", source="task.variant")
    batch_size: int | None = column(
        "batch", unit="count", shown=0, meaning="images in a call", source="(tag batch_size)"
    )
    scenario: str | None = column(
        default=None,
        shown=2,
        meaning="`single_stream` (batch 1, if p90 is known), `offline` (the batch size at which the engine's "
        "`total_images_per_s` is highest), as MLPerf defines them without its minimum durations",
        source="infer.latency",
    )
    status: str = fact(shown=1)
    reason: str | None = fact(
        meaning="why repeats did not end well, each reason once; or that they were tested on different numbers of "
        "images; without either, why parity is undecided or is not measured; or that they are of different versions or "
        "commits of cnnperf",
        source="error, signal, status, (remark n), (remark without_parity), infer.right_in_torch_only, "
        "infer.right_in_engine_only, machine.packages, machine.commit",
    )
    disturbed: str | None = fact()
    repeats: int | None = column(
        unit="count",
        meaning="repeats with a latency at this batch size, each a process of its own, also those that failed later",
        source="infer.latency",
    )
    latency_s: float | None = column(
        "latency",
        unit="s",
        shown=0,
        meaning="time of a call: median over calls, then over repeats",
        source="infer.latency",
        doubts=("disturbed",),
    )
    latency_q25_s: float | None = column(
        unit="s", meaning="lower quartile of all calls of all repeats, interpolated linearly", source="infer.latency"
    )
    latency_q75_s: float | None = column(
        unit="s", meaning="upper quartile of all calls of all repeats, likewise", source="infer.latency"
    )
    latency_min_s: float | None = column(
        unit="s", meaning="lowest repeat's median; empty with one repeat", source="infer.latency"
    )
    latency_max_s: float | None = column(
        unit="s", meaning="highest repeat's median; empty with one repeat", source="infer.latency"
    )
    latency_p50_s: float | None = column(
        unit="s",
        meaning="50th percentile of calls, interpolated linearly, median over repeats; empty where the calls of any "
        "repeat do not support it",
        source="infer.latency",
    )
    latency_p90_s: float | None = column(
        "p90",
        unit="s",
        shown=3,
        meaning="90th percentile, likewise",
        source="infer.latency",
        doubts=("disturbed",),
    )
    latency_p99_s: float | None = column(
        "p99",
        unit="s",
        shown=3,
        meaning="99th percentile, likewise",
        source="infer.latency",
        doubts=("disturbed",),
    )
    images_per_s: float | None = column(
        "images/s",
        unit="images/s",
        better="higher",
        shown=1,
        meaning="batch size over `latency_s`",
        source="infer.latency",
        spread=("images_per_s_min", "images_per_s_max"),
        least_repeats=LEAST_REPEATS,
        within=("run", "sitting"),
        proof="speedup_low",
        doubts=("disturbed",),
    )
    images_per_s_min: float | None = column(
        unit="images/s", meaning="batch size over `latency_max_s`", source="infer.latency"
    )
    images_per_s_max: float | None = column(
        unit="images/s", meaning="batch size over `latency_min_s`", source="infer.latency"
    )
    total_images_per_s: float | None = column(
        "images/s in all",
        unit="images/s",
        shown=4,
        meaning="images of all timed calls of all repeats over the seconds of these calls",
        source="infer.latency",
        doubts=("disturbed",),
    )
    speedup: float | None = column(
        "speed-up",
        default=None,
        unit="1",
        better="higher",
        shown=0,
        meaning="time of the baseline (torch; for an ONNX file plain ONNX Runtime) over the engine's: Hodges–Lehmann "
        "over the pairs of all repeats, of each pair the median over neighbouring samples; without pairs the ratio of "
        "`latency_s`; 1 for the baseline itself",
        source="infer.speedup, infer.latency",
        interval=("speedup_low", "speedup_high"),
        spread=("speedup_low", "speedup_high"),
        within=("run", "sitting", "model", "batch_size"),
        doubts=("speedup_flags", "disturbed"),
    )
    speedup_low: float | None = column(
        default=None,
        unit="1",
        meaning="lower end of its exact 95 % interval over pairs of processes (signed ranks); empty below six pairs, 1 "
        "for the baseline itself",
        source="infer.speedup",
    )
    speedup_high: float | None = column(
        default=None, unit="1", meaning="upper end of that interval", source="infer.speedup"
    )
    speedup_pairs: int | None = column(
        "pairs",
        default=None,
        unit="count",
        meaning="pairs of processes that took turns, in all repeats",
        source="infer.speedup",
    )
    speedup_pairing: str | None = column(
        "pairing",
        default=None,
        shown=2,
        meaning="`paired`: six pairs or more; `few pairs`: one to five; `separate`: ratio of latencies of processes "
        "that never ran together; empty for the baseline itself",
        source="infer.speedup",
    )
    speedup_flags: str | None = column(
        default=None,
        meaning="why a speed-up is unreliable: of a paired one `bimodal`, `disagrees with separate latencies` (their "
        "ratio lies outside the 99 % prediction interval for two further processes like those of the pairs), `2 of 6 "
        "pairs not steady` (named from more than a quarter on); of one without pairs `baseline disturbed`",
        source="infer.pair_seconds, infer.latency, (remark unsteady_pairs)",
    )
    best: str | None = column(
        default=None,
        shown=1,
        meaning="`yes` if it is undisturbed, its paired interval lies above what every other engine of the network and "
        "batch may reach (of disturbed pairs that is not known), and every engine that was asked for has a record",
        source="infer.speedup",
    )
    parity: str | None = column(
        shown=0,
        meaning="whether it computes what torch computes: `ok`, `failed`, `undecided`; worst of the repeats",
        source="infer.parity, infer.right_in_torch_only",
    )
    error_to_float64: float | None = column(
        unit="1",
        meaning="largest distance of a logit from torch's in float64, over the largest of those; the worst over "
        "batch sizes and repeats, as for all errors and differences of logits",
        source="infer.error_to_float64",
    )
    torch_error_to_float64: float | None = column(
        unit="1", meaning="the same of torch in float32", source="infer.torch_error_to_float64"
    )
    max_difference: float | None = column(
        unit="1",
        meaning="largest distance of a logit from torch's in float32, in units of the logits",
        source="infer.max_difference",
    )
    top1_agreement: float | None = column(
        "agreement",
        unit="fraction",
        shown=3,
        meaning="share of test images given the class that torch gives, mean over repeats",
        source="infer.top1_agreement",
    )
    test_accuracy: float | None = column(
        "test accuracy",
        unit="fraction",
        better="higher",
        shown=2,
        meaning="share of test images classified correctly by the engine, mean over repeats, which all read one "
        "training",
        source="infer.test_accuracy",
        interval=("test_accuracy_low", "test_accuracy_high"),
        spread=("test_accuracy_low", "test_accuracy_high"),
        within=("budget",),
        flags=("accuracy_flag",),
    )
    test_accuracy_low: float | None = column(
        unit="fraction",
        meaning="lower end of its 95 % binomial (Wilson) interval, without variation between trainings",
        source="infer.test_accuracy",
    )
    test_accuracy_high: float | None = column(
        unit="fraction", meaning="upper end of that interval", source="infer.test_accuracy"
    )
    accuracy_flag: str | None = column(
        default=None,
        meaning="that its interval holds chance, 1 in the number of classes, or lies below it",
        source="infer.test_accuracy, task.data.num_classes",
    )
    accuracy_drop: float | None = column(
        "accuracy drop",
        default=None,
        unit="1",
        in_points=True,
        shown=2,
        meaning="torch's accuracy on the same images less the engine's, of the repeat whose interval ends highest; "
        "below 0: the engine's is higher",
        source="infer.accuracy_drop",
        interval=("accuracy_drop_low", "accuracy_drop_high"),
    )
    test_images: int | None = column(
        unit="count", meaning="test images classified, in the smallest test of the repeats", source="(remark n)"
    )
    mapped_share: float | None = column(
        unit="fraction",
        meaning="share of the kernel time of all runs that is assigned to a module: to a layer, or to a module that "
        "contains layers (`(network)` included) for operations of its own, such as a sum; lowest of the batch sizes at "
        "which layers were timed, and of the repeats",
        source="infer.mapped_share",
    )
    layers_share: float | None = column(
        "layers ÷ latency",
        default=None,
        unit="1",
        in_percent=True,
        shown=5,
        meaning="sum of the medians of all layers or kernels, median over repeats, over `latency_s`; only at batch "
        "sizes at which layers were timed; mostly near 1; above 1 timing each layer costs time, below 1 time lies "
        "between the layers",
        source="infer.node_time, infer.latency",
        doubts=("layers_flag", "disturbed"),
    )
    layers_flag: str | None = column(
        default=None,
        meaning="that this ratio differs from 1 by more than 0.15",
        source="infer.node_time, infer.latency",
    )
    file_bytes: int | None = column(
        "size",
        unit="bytes",
        better="lower",
        shown=3,
        meaning="size of the file that the engine loads, with its external weights",
        source="infer.file_bytes",
    )
    load_s: float | None = column(
        unit="s",
        meaning="seconds to load the network once the packages of engine and model are imported, quantisation and "
        "calibration included",
        source="infer.load_seconds",
    )
    first_run_s: float | None = column(
        unit="s", meaning="seconds of the first call, on one image", source="infer.first_run_seconds"
    )
    peak_bytes: int | None = column(
        "peak memory",
        unit="bytes",
        shown=4,
        meaning="peak memory from the start of the process until the last batch size was timed, the same at each: of "
        "the whole process (CPU), or of torch's live tensors (CUDA; empty for ONNX Runtime)",
        source="infer.peak_bytes",
    )
    interop_threads: int | None = column(
        unit="count", meaning="threads that run operators in parallel", source="(remark interop_threads)"
    )
    waiting: str | None = column(
        meaning="how the engine's threads wait, as the engine has it", source="(remark waiting)"
    )
    allocator: str | None = fact()
    input: str | None = column(
        meaning="where the input lies during a call: `host`, `bound on the device`", source="(remark input)"
    )
    provider: str | None = column(meaning="execution provider of ONNX Runtime", source="(remark provider)")
    pareto: str | None = column(
        default=None,
        shown=2,
        meaning="`no` if another engine of the network and batch is proved faster or more accurate and proved worse in "
        "neither, else `yes`; empty without a paired speed-up, if disturbed, without rivals, and for `yes` as long as "
        "an engine that was asked for has no record",
        source="infer.speedup, infer.test_accuracy",
    )
    budget: str | None = fact()
    run: str = fact()
    sitting: str | None = fact()
    relative_difference: float | None = column(
        unit="1",
        meaning="`max_difference` over the largest of torch's logits in float64",
        source="infer.relative_difference",
    )
    max_error_to_float64: float | None = column(
        unit="1", meaning="`error_to_float64` in units of the logits", source="infer.max_error_to_float64"
    )
    accuracy_drop_low: float | None = column(
        default=None,
        unit="1",
        meaning="lower end of the drop's paired 95 % interval (Tango), of the repeat with the highest upper end",
        source="infer.right_in_torch_only, infer.right_in_engine_only",
    )
    accuracy_drop_high: float | None = column(
        default=None,
        unit="1",
        meaning="upper end of that interval",
        source="infer.right_in_torch_only, infer.right_in_engine_only",
    )
    right_in_torch_only: int | None = column(
        default=None,
        unit="count",
        meaning="test images that torch alone classifies correctly, in that repeat",
        source="infer.right_in_torch_only",
    )
    right_in_engine_only: int | None = column(
        default=None,
        unit="count",
        meaning="test images that the engine alone classifies correctly, in that repeat",
        source="infer.right_in_engine_only",
    )
    images_to_decide: int | None = column(
        default=None,
        unit="count",
        meaning="test images that would decide an undecided parity, about",
        source="infer.right_in_torch_only, infer.right_in_engine_only",
    )
    class_disagreements: int | None = column(
        default=None,
        unit="count",
        meaning="test images with another class than torch's, ties of torch's two logits excluded; largest count of "
        "the repeats; empty for an engine that is judged by its accuracy alone (8 bits, TF32)",
        source="infer.class_disagreements",
    )
    layer_error_to_float64: float | None = column(
        unit="1",
        meaning="largest distance of a value between images and logits from the exported network's in float64, over "
        "the largest of that value; of all such values, the one whose error is largest relative to its limit; worst "
        "of the repeats; empty if the engine gives none of these values",
        source="infer.layer_error_to_float64",
    )

    evidence: Evidence

    def trait(self, name: str) -> Any:
        """Return the value by which rows are grouped: for `waiting` the task's policy, not the engine's."""
        return self.evidence.waiting if name == "waiting" else self[name]

    @property
    def is_sound(self) -> bool:
        """Whether it may be ranked: its tasks ended well and its parity is ok."""
        return self.parity == "ok" and self.status == "ok"

    @property
    def budget_label(self) -> str | None:
        """Words for its budget in a title; it is that of the network's training, not of the engine."""
        return f"trained for {self.budget}" if self.budget else None

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of its task, in which rows of one label may differ."""
        return self.evidence.settings

    @property
    def row_label(self) -> str:
        """Words that distinguish it from the other rows of its group."""
        return f"{self.model} {self.engine}" + (f" batch {self.batch_size}" if self.batch_size else "")


@row_type
class BestEngine(Row):
    """The leaderboard's columns on the best engine of a cell.

    Values are those at the smallest batch size at which it is best, except its throughput, which is that at the batch
    size of its offline scenario.
    """

    best_engine: str = column(
        "best engine",
        shown=3,
        meaning="engine that is `best` in engines.csv, at the smallest batch size at which one is",
        source="infer.speedup",
    )
    best_engine_batch_size: int | None = column(
        "at batch",
        unit="count",
        shown=4,
        meaning="that batch size, at which the other `best_engine_…` are, but for those of its offline scenario",
        source="infer.speedup",
    )
    best_engine_latency_s: float | None = column(
        "its latency", unit="s", better="lower", shown=4, meaning="its `latency_s`", source="infer.latency"
    )
    best_engine_images_per_s: float | None = column(
        "its images/s",
        unit="images/s",
        better="higher",
        shown=5,
        meaning="its `images_per_s` at the batch size of its offline scenario",
        source="infer.latency",
    )
    best_engine_offline_batch_size: int | None = column(
        "at offline batch", unit="count", shown=5, meaning="batch size of its offline scenario", source="infer.latency"
    )
    best_engine_speedup: float | None = column(
        "its speed-up",
        unit="1",
        shown=4,
        meaning="its `speedup`; each network's is over its own baseline, so that none is best",
        source="infer.speedup",
        interval=("best_engine_speedup_low", "best_engine_speedup_high"),
    )
    best_engine_speedup_low: float | None = column(unit="1", meaning="its `speedup_low`", source="infer.speedup")
    best_engine_speedup_high: float | None = column(unit="1", meaning="its `speedup_high`", source="infer.speedup")
    best_engine_parity: str | None = column(
        "its parity",
        shown=6,
        meaning="its `parity`, which is `ok` in what can be best",
        source="infer.parity, infer.right_in_torch_only",
    )
    best_engine_accuracy_drop: float | None = column(
        "its accuracy drop",
        unit="1",
        in_points=True,
        shown=6,
        meaning="its `accuracy_drop`",
        source="infer.accuracy_drop",
    )
    best_engine_file_bytes: int | None = column(
        "its size", unit="bytes", shown=6, meaning="its `file_bytes`", source="infer.file_bytes"
    )

    repeats: int | None
    """Repeats of the engine at the smallest batch size at which it is best."""
    offline_repeats: int | None
    """Repeats of the engine at the batch size of its offline scenario."""

    def repeats_of(self, name: str) -> int | None:
        """Return the number of repeats of the engine behind a column's value."""
        return self.offline_repeats if name == "best_engine_images_per_s" else self.repeats
