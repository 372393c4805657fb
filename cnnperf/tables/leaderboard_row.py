"""A row of the leaderboard: the name of each column, its metric and its reduction over repeats."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

from cnnperf.tables.engine_row import BestEngine
from cnnperf.tables.facts import ReducedColumn, fact, reduced
from cnnperf.tables.repeats import Repeats
from cnnperf.tables.scaling import SHARED, fact_of_processes, processes_of_training, spread_of_ranks
from cnnperf.tables.table import LEAST_REPEATS, Column, Row, Value, column, row_type
from cnnperf.training.recipe import target_of


def once(metric: str, title: str = "", **described: Any) -> Any:
    """Declare a column of a metric measured once per task, as `Repeats.once` has it. described: as `reduced`."""
    return reduced(partial(Repeats.once, metric=metric), title, metric=metric, source=metric, **described)


def _median(values: tuple[float, ...]) -> float | None:
    """Return the median; None if it is infinite, because half of the repeats or more did not reach the target."""
    middle = median(values) if values else math.inf
    return middle if math.isfinite(middle) else None


def _spread(values: tuple[float, ...], end: Callable[[tuple[float, ...]], float]) -> float | None:
    """Return one end of the range of repeats; None for one repeat."""
    return end(values) if len(values) > 1 and math.isfinite(end(values)) else None


_TEST, _TARGET = "train.test_accuracy", "train.time_to_target"
_SPEED: Mapping[str, Any] = {"unit": "images/s", "better": "higher", "source": "train.step_time"}
_TESTED: Mapping[str, Any] = {"metric": _TEST, "unit": "fraction", "better": "higher", "source": _TEST}
_TIMED: Mapping[str, Any] = {"metric": _TARGET, "unit": "s", "better": "lower", "source": _TARGET}


@row_type
class LeaderboardRow(Row):
    """A cell of a run on the leaderboard."""

    rank: int | None = reduced(
        lambda _: None,
        "#",
        unit="count",
        shown=0,
        meaning="place by test accuracy among undisturbed rows of equal dataset, data, budget, host, processor, "
        "device, threads, waiting and allocator; all rows whose interval of accuracy overlaps the leader's share its "
        "place",
        source=_TEST,
    )
    dataset: str = fact()
    data: str | None = fact(shown=3)
    data_fallback: str | None = fact()
    data_sha256: str | None = fact()
    model: str = fact(shown=0)
    device: str = fact()
    status: str = fact(shown=1)
    reason: str | None = fact(
        meaning="why repeats did not end well, each reason once; or that they were tested on different numbers of "
        "images, or are of different versions or commits of cnnperf"
    )
    disturbed: str | None = fact()
    repeats: int | None = fact(shown=6)
    params: int | None = once(
        "train.parameters",
        shown=4,
        unit="count",
        better="lower",
        meaning="trainable and fixed parameters of the network",
    )
    batch_size: int | None = fact("batch", shown=7)
    budget: str | None = fact()
    test_accuracy: float | None = reduced(
        lambda r: r.test_accuracy,
        "test accuracy",
        **_TESTED,
        shown=0,
        meaning="share of test images classified correctly after the training, mean over repeats",
        interval=("test_accuracy_low", "test_accuracy_high"),
        spread=("test_accuracy_low", "test_accuracy_high"),
        flags=("accuracy_flag",),
    )
    test_accuracy_low: float | None = reduced(
        lambda r: r.test_interval and r.test_interval.low,
        **_TESTED,
        meaning="lower end of its 95 % interval: with one repeat the binomial one (Wilson) of its test images, without "
        "the variation between trainings; with more repeats that of the smallest test and Student's t interval over "
        "the repeats, their distances from the mean added in squares (Zou and Donner)",
    )
    test_accuracy_high: float | None = reduced(
        lambda r: r.test_interval and r.test_interval.high, **_TESTED, meaning="upper end of that interval"
    )
    accuracy_flag: str | None = reduced(
        lambda r: r.accuracy_flag,
        meaning="that its interval holds chance, 1 in the number of classes, or lies below it; or that a training of a "
        "number of seconds was disturbed",
        source=f"{_TEST}, task.data.num_classes, task.settings, (remark waited_share)",
    )
    test_accuracy_flip: float | None = once(
        "train.test_accuracy_flip",
        "test with flip",
        shown=2,
        unit="fraction",
        better="higher",
        meaning="test accuracy by the mean logits of each image and its mirror image (`test_flip`), mean over repeats",
    )
    test_images: int | None = reduced(
        lambda r: r.test_images,
        "test images",
        unit="count",
        shown=8,
        meaning="images of the smallest test of the repeats; `reason` says where their numbers differ",
        source=_TEST,
    )
    test_set: str | None = reduced(
        lambda r: r.test_set,
        "test set",
        shown=5,
        meaning="`all` test images, or a fixed `subset` in any repeat",
        source=_TEST,
    )
    images_per_s: float | None = reduced(
        lambda r: _median(r.median_speeds),
        "images/s",
        **_SPEED,
        shown=2,
        meaning="batch over the seconds of a training step: median over steps, then over repeats",
        interval=("images_per_s_q25", "images_per_s_q75"),
        spread=("images_per_s_min", "images_per_s_max"),
        least_repeats=LEAST_REPEATS,
        within=("run", "sitting"),
        doubts=("disturbed",),
    )
    images_per_s_q25: float | None = reduced(
        lambda r: r.speed_quartiles and r.speed_quartiles.q25,
        **_SPEED,
        meaning="lower quartile over all steps of all repeats, interpolated linearly (Hyndman and Fan, definition 7), "
        "as all quartiles are",
    )
    images_per_s_q75: float | None = reduced(
        lambda r: r.speed_quartiles and r.speed_quartiles.q75,
        **_SPEED,
        meaning="upper quartile over all steps of all repeats",
    )
    images_per_s_min: float | None = reduced(
        lambda r: _spread(r.median_speeds, min), **_SPEED, meaning="lowest repeat's median; empty with one repeat"
    )
    images_per_s_max: float | None = reduced(
        lambda r: _spread(r.median_speeds, max), **_SPEED, meaning="highest repeat's median; empty with one repeat"
    )
    total_images_per_s: float | None = once(
        "train.total_images_per_s",
        unit="images/s",
        better="higher",
        meaning="all trained images over all training seconds, median over repeats",
    )
    best_validation_accuracy: float | None = reduced(
        lambda r: r.best_validation_accuracy,
        "best validation",
        metric="train.validation_accuracy",
        unit="fraction",
        better="higher",
        shown=5,
        meaning="highest validation accuracy of a training, mean over repeats",
        source="train.validation_accuracy",
    )
    time_to_target_s: float | None = reduced(
        lambda r: _median(r.times_to_target),
        "time to target",
        **_TIMED,
        shown=3,
        meaning="training seconds until an evaluation first saw `target_accuracy`, median over repeats. Empty if half "
        "of them or more did not reach it. With several repeats, the range printed beside it begins at the earliest "
        "possible time: the least, over the repeats, of the time less the seconds since that repeat's previous "
        "evaluation. Rows of unlike targets are not compared by it",
        interval=("time_to_target_min_s", "time_to_target_max_s"),
        spread=("time_to_target_min_s", "time_to_target_max_s"),
        earliest="earliest_target_s",
        least_repeats=LEAST_REPEATS,
        within=("run", "sitting", "target_accuracy"),
        doubts=("disturbed",),
    )
    time_to_target_min_s: float | None = reduced(
        lambda r: _spread(r.times_to_target, min), **_TIMED, meaning="shortest of the repeats; empty with one repeat"
    )
    time_to_target_max_s: float | None = reduced(
        lambda r: _spread(r.times_to_target, max),
        **_TIMED,
        meaning="longest of the repeats; empty with one repeat, or if one did not reach it",
    )
    time_to_target_resolution_s: float | None = reduced(
        lambda r: r.target_resolution,
        **_TIMED,
        meaning="training seconds since the previous evaluation, of the repeat with the most: the target was reached "
        "at some time within them",
    )
    peak_above_start_bytes: int | None = once(
        "train.peak_above_start_bytes",
        "memory above start",
        shown=4,
        unit="bytes",
        better="lower",
        meaning="peak memory of two training steps less the memory in use before them, when data and network are "
        "loaded and an epoch's order is drawn; the optimizer's state is in it; empty where the system cannot measure "
        "it, and on the CPU under allocator `system`",
    )
    evaluation_peak_above_start_bytes: int | None = once(
        "train.evaluation_peak_above_start_bytes",
        unit="bytes",
        better="lower",
        meaning="peak memory of an evaluation of two batches less that of the same start; what the training keeps, "
        "such as the optimizer's state, is in it",
    )
    peak_bytes: int | None = once(
        "train.peak_bytes",
        "peak memory",
        shown=7,
        unit="bytes",
        meaning="peak memory until the last test: of the whole process with Python, torch and images (CPU), or of "
        "torch's live tensors (CUDA)",
    )
    train_s: float | None = once("train.seconds", unit="s", meaning="seconds of training steps alone")
    evaluation_s: float | None = once(
        "train.evaluation_seconds",
        unit="s",
        better="lower",
        meaning="seconds of all evaluations and tests after the warm-up",
    )
    steps: int | None = once("train.steps", unit="count", meaning="training steps")
    processes: int | None = reduced(
        processes_of_training,
        metric="train.processes",
        shown=1,
        unit="count",
        meaning="processes that train the network together, each on an equal part of every batch. This column and "
        "those to `rank_spread` only where a training has several",
        source="task.settings",
    )
    backend: str | None = reduced(
        lambda r: fact_of_processes(r, "backend"),
        shown=1,
        meaning="library by which several processes exchange gradients: `nccl` between GPUs, `gloo` on the CPU. Rows "
        "of `gloo` have no rank and no mark: their processes share one processor",
        source="(remark backend)",
    )
    threads_each: int | None = reduced(
        lambda r: fact_of_processes(r, "threads_each"),
        unit="count",
        meaning="threads of each of several processes, as they are started",
        source="(remark threads_each)",
    )
    strong_scaling: float | None = column(
        "strong scaling",
        shown=2,
        unit="1",
        in_percent=True,
        meaning="efficiency at the same batch size: images/s per GPU, on the CPU per thread, over those of the row of "
        "one process of the same run and sitting that takes the same steps, at any budget and learning rate",
        source="train.step_time",
        doubts=("disturbed",),
    )
    weak_scaling: float | None = column(
        "weak scaling",
        shown=2,
        unit="1",
        in_percent=True,
        meaning="the same against the row of one process whose batch is the part that each process takes of this one's",
        source="train.step_time",
        doubts=("disturbed",),
    )
    allreduced_bytes: int | None = once(
        "train.allreduced_bytes",
        unit="bytes",
        meaning="bytes of gradients that each of several processes contributes to the all-reduce of a step",
    )
    rank_spread: float | None = reduced(
        spread_of_ranks,
        unit="1",
        in_percent=True,
        meaning="difference between the fastest and the slowest of several processes over their median, by the median "
        "step of each on its own clock; median over repeats",
        source="train.rank_images_per_s",
    )
    threads: int = fact()
    waiting: str | None = fact()
    allocator: str | None = fact()
    host: str = fact()
    cpu: str = fact()
    cpu_model: str | None = fact()
    instruction_sets: str | None = fact()
    device_label: str | None = fact()
    torch: str | None = fact()
    cnnperf: str | None = fact()
    commit: str | None = fact()
    python: str = fact()
    seed: int = fact()
    run: str = fact()
    sitting: str | None = fact()
    target_accuracy: float | None = reduced(
        lambda r: target_of(r.task.settings),
        "target",
        unit="fraction",
        shown=3,
        meaning="validation accuracy to which `time_to_target_s` is measured, whether or not it ends the training",
        source="task.settings",
    )

    training: str
    """Key of the first repeat's task, which the tasks of later stages need."""
    asked: Mapping[str, Any]
    """The settings of its task."""
    earliest_target_s: float | None
    """Least seconds to the target of any repeat, as `Repeats.earliest_target` has it."""
    further: Mapping[str, Value]
    """Metrics that every task measured once and that have no column above, by column name."""
    best: BestEngine | None = None
    """The best of the engines that read this training; None if none is best or none was measured."""

    def __getitem__(self, name: str) -> Any:
        """Return the value of a column, including the columns that only some leaderboards have."""
        if name in self.further:
            return self.further[name]
        if name in BEST:
            return None if self.best is None else self.best[name]
        return Row.__getitem__(self, name)

    def repeats_of(self, name: str) -> int | None:
        """Return the number of repeats behind a value: those of the training, or of its best engine."""
        return self.best.repeats_of(name) if self.best and name in BEST else self.repeats

    def trait(self, name: str) -> Any:
        """Return the value by which rows are grouped: a budget of several GPUs is another one."""
        return self.budget_label if name == "budget" else Row.trait(self, name)

    @property
    def is_sound(self) -> bool:
        """Whether it may be compared with others: several processes of one processor are not."""
        return self.backend != SHARED

    @property
    def budget_label(self) -> str | None:
        """Words for its budget, with the number of GPUs if there are several."""
        has_several = self.backend not in (None, SHARED)
        return f"{self.budget} on {self.processes} GPUs" if has_several else self.budget

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of its task, in which rows of one label may differ."""
        return self.asked

    @property
    def row_label(self) -> str:
        """Words that distinguish it from the other rows of its group."""
        return self.model


OF_SEVERAL_PROCESSES = (
    *("processes", "backend", "threads_each", "strong_scaling", "weak_scaling", "allreduced_bytes", "rank_spread"),
)
"""Columns that only a leaderboard with a training by several processes has."""

BEST = frozenset(each.name for each in BestEngine.columns())

_ONE_STEP = "only of a training of one step"
_ONE_STRETCH = "only of a training with one stretch, a group of steps of 10 ms or more"


def further(metric: str, **described: Any) -> ReducedColumn:
    """Return a column that `leaderboard` appends where the metric is measured. described: fields of Column."""
    value = partial(Repeats.once, metric=metric)
    return ReducedColumn(metric.replace(".", "_"), source=metric, metric=metric, value=value, **described)


FURTHER: Mapping[str, ReducedColumn] = {
    column.source: column
    for column in (
        further(
            "train.load_seconds",
            unit="s",
            better="lower",
            meaning="seconds to put the images on the device and to divide them",
        ),
        further(
            "train.build_seconds",
            unit="s",
            better="lower",
            meaning="seconds to build the network on the device, with its first weights, once its module is imported",
        ),
        further(
            "train.warmup_seconds",
            unit="s",
            better="lower",
            meaning="seconds of the steps and evaluations before the training that measure memory and warm up",
        ),
        further(
            "train.stretch_load",
            unit="1",
            meaning="load average of the machine over one minute, read after training and test",
        ),
        further(
            "train.stretch_steal",
            unit="s",
            meaning="CPU time that the hypervisor gave to other guests during training and test, over all cores",
        ),
        further(
            "train.stretch_throttled",
            unit="s",
            meaning="time for which the quotas of its control groups stopped the process during training and test",
        ),
        further(
            "train.stretch_frequency",
            unit="Hz",
            meaning="clock frequency of the processor: mean over its cores, and over two readings, before the training "
            "and after the test",
        ),
        further("train.samples", unit="count", meaning="trained images: `steps` times `batch_size`"),
        further(
            "train.test_loss",
            unit="1",
            better="lower",
            meaning="mean cross-entropy of the test images after the training",
        ),
        further(
            "train.test_accuracy_raw",
            unit="fraction",
            better="higher",
            meaning="test accuracy on pixels in [0, 1] that are not normalised as in the training "
            "(`normalize_eval = false`), mean over repeats",
        ),
        further(
            "train.threads", unit="count", meaning="threads that compute an operator, as torch reports them afterwards"
        ),
        further(
            "train.interop_threads",
            unit="count",
            meaning="threads for operators that run side by side, as torch reports them afterwards",
        ),
        further("train.device_index", unit="count", meaning="index of the CUDA device, as the process reports it"),
        further("train.step_time", unit="s", better="lower", meaning=f"seconds of the step; {_ONE_STEP}"),
        further("train.loss", unit="1", better="lower", meaning=f"training loss of the step; {_ONE_STEP}"),
        further("train.stretch", unit="s", meaning=f"seconds of the stretch; {_ONE_STRETCH}"),
        further("train.stretch_cpu", unit="s", meaning=f"CPU time of the process, all threads, in it; {_ONE_STRETCH}"),
        further(
            "train.stretch_switches",
            unit="count",
            meaning=f"involuntary context switches of the process in it; {_ONE_STRETCH}",
        ),
        further(
            "train.stretch_faults",
            unit="count",
            meaning=f"page faults of the process in it that needed no disk; {_ONE_STRETCH}",
        ),
    )
}
"""By metric: columns that `leaderboard` appends to these if each training measured the metric once."""

PATTERN = Column(
    "<stage>_<quantity>",
    meaning="any other metric that each training measured once, such as one of a plug-in stage: of fractions the mean "
    "over repeats, of others the median; unit and direction as measured",
    source="<stage>.<quantity>",
)
"""Pattern of the columns that `leaderboard` appends for metrics that are not in FURTHER."""
