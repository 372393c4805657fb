"""The leaderboard's columns: what each is called, which metric it shows and how repeats are reduced to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from cnnperf.tables.facts import FACTS
from cnnperf.tables.repeats import Repeats
from cnnperf.tables.table import LEAST_REPEATS, Column, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class ReducedColumn(Column):
    """A column and the way from a cell's repeats to its value."""

    value: Callable[[Repeats], Value]
    metric: str | None = None
    """The metric whose unit and direction it has, where it was measured."""


def once(metric: str, name: str, title: str = "", **changes: Any) -> ReducedColumn:
    """Make a column of a metric that is measured once a task: the median over repeats. changes: fields of Column."""
    value = partial(Repeats.once, metric=metric)
    return ReducedColumn(name, title, metric=metric, source=metric, value=value, **changes)


def fact(name: str, value: Callable[[Repeats], Value], title: str = "", **changes: Any) -> ReducedColumn:
    """Make a column that other tables have too. changes: fields of Column."""
    known = FACTS[name]
    described = {"unit": known.unit, "meaning": known.meaning, "source": known.source}
    return ReducedColumn(name, title, value=value, **{**described, **changes})


def _median(values: tuple[float, ...]) -> float | None:
    """Return the median, None where it is infinite: half of the repeats or more never came there."""
    middle = median(values) if values else math.inf
    return middle if math.isfinite(middle) else None


def _spread(values: tuple[float, ...], end: Callable[[tuple[float, ...]], float]) -> float | None:
    """Return one end of the spread of repeats; one repeat has none."""
    return end(values) if len(values) > 1 and math.isfinite(end(values)) else None


_TEST, _TARGET = "train.test_accuracy", "train.time_to_target"
_SPEED: Mapping[str, Any] = {"unit": "images/s", "better": "higher", "source": "train.step_time"}
_TESTED: Mapping[str, Any] = {"metric": _TEST, "unit": "fraction", "better": "higher", "source": _TEST}
_TIMED: Mapping[str, Any] = {"metric": _TARGET, "unit": "s", "better": "lower", "source": _TARGET}

COLUMNS = (
    ReducedColumn(
        "rank",
        "#",
        unit="count",
        shown=0,
        meaning="place by test accuracy among rows of equal dataset, data, device, budget, machine and environment; "
        "all rows whose interval overlaps the leader's share its place",
        source=_TEST,
        value=lambda _: None,
    ),
    fact("dataset", lambda r: str(r.task.cell.dataset)),
    fact("data", lambda r: r.data.name if r.data else None, shown=3),
    fact("data_fallback", lambda r: r.data.fallback if r.data else None),
    fact("data_sha256", lambda r: r.data.sha256 if r.data else None),
    fact("model", lambda r: str(r.task.cell.model), shown=0),
    fact("device", lambda r: str(r.task.cell.device)),
    fact("status", lambda r: r.status, shown=1),
    fact("reason", lambda r: r.reason),
    fact("repeats", lambda r: len(r.ok) or None, shown=6),
    once(
        "train.parameters",
        "params",
        shown=4,
        unit="count",
        better="lower",
        meaning="trainable and fixed parameters of the network",
    ),
    fact("batch_size", lambda r: r.task.settings.get("batch_size"), "batch", shown=7),
    fact("budget", lambda r: r.budget),
    ReducedColumn(
        "test_accuracy",
        "test accuracy",
        **_TESTED,
        shown=0,
        meaning="share of test images classified correctly after the training, over all repeats",
        value=lambda r: r.test_accuracy,
        interval=("test_accuracy_low", "test_accuracy_high"),
        spread=("test_accuracy_low", "test_accuracy_high"),
    ),
    ReducedColumn(
        "test_accuracy_low",
        **_TESTED,
        meaning="lower end of its 95 % binomial (Wilson) interval, for the images of the smallest test of the repeats",
        value=lambda r: r.test_interval and r.test_interval.low,
    ),
    ReducedColumn(
        "test_accuracy_high",
        **_TESTED,
        meaning="upper end of that interval",
        value=lambda r: r.test_interval and r.test_interval.high,
    ),
    once(
        "train.test_accuracy_flip",
        "test_accuracy_flip",
        "test with flip",
        shown=2,
        unit="fraction",
        better="higher",
        meaning="test accuracy by the mean logits of each image and its mirror image (`test_flip`)",
    ),
    ReducedColumn(
        "test_images",
        "test images",
        unit="count",
        shown=8,
        meaning="images of the smallest test of the repeats",
        source=_TEST,
        value=lambda r: r.test_images,
    ),
    ReducedColumn(
        "test_set",
        "test set",
        shown=5,
        meaning="`all` test images, or a fixed `subset` in any repeat",
        source=_TEST,
        value=lambda r: r.test_set,
    ),
    ReducedColumn(
        "images_per_s",
        "images/s",
        **_SPEED,
        shown=2,
        meaning="batch over the seconds of a training step: median over steps, then over repeats",
        value=lambda r: _median(r.median_speeds),
        interval=("images_per_s_q25", "images_per_s_q75"),
        spread=("images_per_s_min", "images_per_s_max"),
        least_repeats=LEAST_REPEATS,
        within=("run",),
    ),
    ReducedColumn(
        "images_per_s_q25",
        **_SPEED,
        meaning="lower quartile over all steps of all repeats",
        value=lambda r: r.speed_quartiles and r.speed_quartiles.q25,
    ),
    ReducedColumn(
        "images_per_s_q75",
        **_SPEED,
        meaning="upper quartile over all steps of all repeats",
        value=lambda r: r.speed_quartiles and r.speed_quartiles.q75,
    ),
    ReducedColumn(
        "images_per_s_min",
        **_SPEED,
        meaning="lowest repeat's median; empty with one repeat",
        value=lambda r: _spread(r.median_speeds, min),
    ),
    ReducedColumn(
        "images_per_s_max",
        **_SPEED,
        meaning="highest repeat's median; empty with one repeat",
        value=lambda r: _spread(r.median_speeds, max),
    ),
    once(
        "train.total_images_per_s",
        "total_images_per_s",
        unit="images/s",
        better="higher",
        meaning="all trained images over all training seconds, median over repeats",
    ),
    ReducedColumn(
        "best_validation_accuracy",
        "best validation",
        metric="train.validation_accuracy",
        unit="fraction",
        better="higher",
        shown=5,
        meaning="highest validation accuracy of a training, median over repeats",
        source="train.validation_accuracy",
        value=lambda r: r.best_validation_accuracy,
    ),
    ReducedColumn(
        "time_to_target_s",
        "time to target",
        **_TIMED,
        shown=3,
        meaning="training seconds until an evaluation first saw `target_accuracy`, median over repeats; empty if half "
        "of them or more did not reach it",
        value=lambda r: _median(r.times_to_target),
        spread=("time_to_target_min_s", "time_to_target_max_s"),
        least_repeats=LEAST_REPEATS,
        within=("run",),
    ),
    ReducedColumn(
        "time_to_target_min_s",
        **_TIMED,
        meaning="shortest of the repeats; empty with one repeat",
        value=lambda r: _spread(r.times_to_target, min),
    ),
    ReducedColumn(
        "time_to_target_max_s",
        **_TIMED,
        meaning="longest of the repeats; empty with one repeat, or if one did not reach it",
        value=lambda r: _spread(r.times_to_target, max),
    ),
    ReducedColumn(
        "time_to_target_resolution_s",
        **_TIMED,
        meaning="training seconds since the evaluation before: the target was reached at some time within them",
        value=lambda r: r.target_resolution,
    ),
    once(
        "train.peak_above_start_bytes",
        "peak_above_start_bytes",
        "memory above start",
        shown=4,
        unit="bytes",
        better="lower",
        meaning="memory that two training steps add once data and network are loaded, the optimizer's state included",
    ),
    once(
        "train.evaluation_peak_above_start_bytes",
        "evaluation_peak_above_start_bytes",
        unit="bytes",
        better="lower",
        meaning="memory that an evaluation of two batches adds to the same start",
    ),
    once(
        "train.peak_bytes",
        "peak_bytes",
        "peak memory",
        shown=7,
        unit="bytes",
        meaning="peak memory of the whole process: Python, torch and images (CPU), or of torch's allocator (CUDA)",
    ),
    once("train.seconds", "train_s", unit="s", meaning="seconds of training steps alone"),
    once(
        "train.evaluation_seconds",
        "evaluation_s",
        unit="s",
        better="lower",
        meaning="seconds of all evaluations and tests",
    ),
    once("train.steps", "steps", unit="count", meaning="training steps"),
    fact("threads", lambda r: r.task.threads),
    fact("waiting", lambda r: r.task.waiting),
    fact("allocator", lambda r: r.task.allocator),
    fact("host", lambda r: r.machine.host),
    fact("cpu", lambda r: r.machine.cpu),
    fact("cpu_model", lambda r: r.machine.cpu_model),
    fact("instruction_sets", lambda r: r.machine.instruction_sets),
    fact("device_label", lambda r: r.device_label),
    fact("torch", lambda r: r.machine.packages.get("torch")),
    fact("cnnperf", lambda r: r.machine.packages.get("cnnperf")),
    fact("commit", lambda r: r.machine.commit),
    fact("python", lambda r: r.machine.python),
    fact("seed", lambda r: r.task.seed),
    fact("run", lambda r: r.run),
)

FURTHER = Column(
    "<stage>_<quantity>",
    meaning="every other metric measured once in a training: median over repeats; unit and direction as measured; "
    "such as `train_load_seconds`, `train_test_loss`, `train_samples`",
    source="<stage>.<quantity>",
)
"""The pattern of the columns that `leaderboard` puts behind these."""
