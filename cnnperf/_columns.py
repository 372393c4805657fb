"""The leaderboard's columns: what each is called, which metric it shows and how repeats are reduced to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from cnnperf._repeats import Repeats
from cnnperf.table import LEAST_REPEATS, Column, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class ReducedColumn(Column):
    """A column and the way from a cell's repeats to its value."""

    value: Callable[[Repeats], Value]
    metric: str | None = None
    """The metric whose unit and direction it has, where it was measured."""


def once(metric: str, name: str, title: str = "", *, shown: int | None = None) -> ReducedColumn:
    """Make a column of a metric that is measured once a task: the median over repeats."""
    return ReducedColumn(name, title, shown=shown, metric=metric, value=partial(Repeats.once, metric=metric))


def _median(values: tuple[float, ...]) -> float | None:
    """Return the median, None where it is infinite: half of the repeats or more never came there."""
    middle = median(values) if values else math.inf
    return middle if math.isfinite(middle) else None


def _spread(values: tuple[float, ...], end: Callable[[tuple[float, ...]], float]) -> float | None:
    """Return one end of the spread of repeats; one repeat has none."""
    return end(values) if len(values) > 1 and math.isfinite(end(values)) else None


_TEST, _TARGET = "train.test_accuracy", "train.time_to_target"
_SPEED: Mapping[str, Any] = {"unit": "images/s", "better": "higher"}

COLUMNS = (
    ReducedColumn("rank", "#", unit="count", shown=0, value=lambda _: None),
    ReducedColumn("dataset", value=lambda r: str(r.task.cell.dataset)),
    ReducedColumn("data", shown=3, value=lambda r: r.data.name if r.data else None),
    ReducedColumn("data_fallback", value=lambda r: r.data.fallback if r.data else None),
    ReducedColumn("data_sha256", value=lambda r: r.data.sha256 if r.data else None),
    ReducedColumn("model", shown=0, value=lambda r: str(r.task.cell.model)),
    ReducedColumn("device", value=lambda r: str(r.task.cell.device)),
    ReducedColumn("status", shown=1, value=lambda r: r.status),
    ReducedColumn("reason", value=lambda r: r.reason),
    ReducedColumn("repeats", unit="count", shown=6, value=lambda r: len(r.ok) or None),
    once("train.parameters", "params", shown=4),
    ReducedColumn("batch_size", "batch", unit="count", shown=7, value=lambda r: r.task.settings.get("batch_size")),
    ReducedColumn("budget", value=lambda r: r.budget),
    ReducedColumn(
        "test_accuracy",
        "test accuracy",
        metric=_TEST,
        shown=0,
        value=lambda r: r.test_accuracy,
        interval=("test_accuracy_low", "test_accuracy_high"),
        spread=("test_accuracy_low", "test_accuracy_high"),
    ),
    ReducedColumn("test_accuracy_low", metric=_TEST, value=lambda r: r.test_interval and r.test_interval.low),
    ReducedColumn("test_accuracy_high", metric=_TEST, value=lambda r: r.test_interval and r.test_interval.high),
    once("train.test_accuracy_flip", "test_accuracy_flip", "test with flip", shown=2),
    ReducedColumn("test_images", "test images", unit="count", shown=8, value=lambda r: r.test_images),
    ReducedColumn("test_set", "test set", shown=5, value=lambda r: r.test_set),
    ReducedColumn(
        "images_per_s",
        "images/s",
        **_SPEED,
        shown=2,
        value=lambda r: _median(r.median_speeds),
        interval=("images_per_s_q25", "images_per_s_q75"),
        spread=("images_per_s_min", "images_per_s_max"),
        least_repeats=LEAST_REPEATS,
    ),
    ReducedColumn("images_per_s_q25", **_SPEED, value=lambda r: r.speed_quartiles and r.speed_quartiles.q25),
    ReducedColumn("images_per_s_q75", **_SPEED, value=lambda r: r.speed_quartiles and r.speed_quartiles.q75),
    ReducedColumn("images_per_s_min", **_SPEED, value=lambda r: _spread(r.median_speeds, min)),
    ReducedColumn("images_per_s_max", **_SPEED, value=lambda r: _spread(r.median_speeds, max)),
    once("train.total_images_per_s", "total_images_per_s"),
    ReducedColumn(
        "best_validation_accuracy",
        "best validation",
        metric="train.validation_accuracy",
        shown=5,
        value=lambda r: r.best_validation_accuracy,
    ),
    ReducedColumn(
        "time_to_target_s",
        "time to target",
        metric=_TARGET,
        shown=3,
        value=lambda r: _median(r.times_to_target),
        spread=("time_to_target_min_s", "time_to_target_max_s"),
        least_repeats=LEAST_REPEATS,
    ),
    ReducedColumn("time_to_target_min_s", metric=_TARGET, value=lambda r: _spread(r.times_to_target, min)),
    ReducedColumn("time_to_target_max_s", metric=_TARGET, value=lambda r: _spread(r.times_to_target, max)),
    ReducedColumn("time_to_target_resolution_s", metric=_TARGET, value=lambda r: r.target_resolution),
    once("train.peak_above_start_bytes", "peak_above_start_bytes", "memory above start", shown=4),
    once("train.evaluation_peak_above_start_bytes", "evaluation_peak_above_start_bytes"),
    once("train.peak_bytes", "peak_bytes", "peak memory", shown=7),
    once("train.seconds", "train_s"),
    once("train.evaluation_seconds", "evaluation_s"),
    once("train.steps", "steps"),
    ReducedColumn("threads", unit="count", value=lambda r: r.task.threads),
    ReducedColumn("waiting", value=lambda r: r.task.waiting),
    ReducedColumn("allocator", value=lambda r: r.task.allocator),
    ReducedColumn("host", value=lambda r: r.machine.host),
    ReducedColumn("cpu", value=lambda r: r.machine.cpu),
    ReducedColumn("cpu_model", value=lambda r: r.machine.cpu_model),
    ReducedColumn("instruction_sets", value=lambda r: r.machine.instruction_sets),
    ReducedColumn("device_label", value=lambda r: r.device_label),
    ReducedColumn("torch", value=lambda r: r.machine.packages.get("torch")),
    ReducedColumn("cnnperf", value=lambda r: r.machine.packages.get("cnnperf")),
    ReducedColumn("commit", value=lambda r: r.machine.commit),
    ReducedColumn("python", value=lambda r: r.machine.python),
    ReducedColumn("seed", unit="count", value=lambda r: r.task.seed),
    ReducedColumn("run", value=lambda r: r.run),
)
