"""From records to training curves: a row an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from cnnperf.record import Measurement, Record, read_runs
from cnnperf.tables.columns import COLUMNS
from cnnperf.tables.facts import facts
from cnnperf.tables.repeats import Repeats
from cnnperf.tables.table import Column, Row, Table

if TYPE_CHECKING:
    from pandas import DataFrame

_TRAINING = [c for c in COLUMNS if c.name in ("dataset", "data", "model", "device", "budget", "seed", "run")]

CURVES = (
    *_TRAINING,
    *facts("task", "repeat"),
    Column("step", unit="count", meaning="training steps before this evaluation", source="(remark step)"),
    Column(
        "samples", unit="count", meaning="training images before it, repetitions counted", source="(remark samples)"
    ),
    Column("seconds", unit="s", meaning="seconds of training steps before it", source="(remark seconds)"),
    Column("epoch", unit="1", meaning="passes over the training images before it", source="(remark epoch)"),
    Column(
        "train_loss",
        unit="1",
        better="lower",
        meaning="mean over the steps since the evaluation before, of the loss that was minimised: smoothed by "
        "`label_smoothing`, which a test loss never is",
        source="train.loss",
    ),
    Column(
        "train_accuracy",
        unit="fraction",
        better="higher",
        meaning="share of training images classified correctly before their step, since the evaluation before",
        source="train.train_accuracy",
    ),
    Column(
        "train_accuracy_after_step",
        unit="fraction",
        better="higher",
        meaning='the same right after the step on the same batch, every fifth step (`train_accuracy = "after_step"`): '
        "a reading that is too high",
        source="train.train_accuracy_after_step",
    ),
    Column(
        "test_accuracy",
        unit="fraction",
        better="higher",
        meaning="share of test images classified correctly after this epoch (`test_curve`)",
        source="train.epoch_test_accuracy",
    ),
    Column(
        "test_accuracy_raw",
        unit="fraction",
        better="higher",
        meaning="the same on raw pixels in [0, 1] (`normalize_eval = false`): a reading that is too low",
        source="train.epoch_test_accuracy_raw",
    ),
    Column(
        "validation_accuracy",
        unit="fraction",
        better="higher",
        meaning="share of validation images classified correctly",
        source="train.validation_accuracy",
    ),
    Column("n", unit="count", meaning="images of the last of these accuracies that the row has", source="(remark n)"),
    Column("label_smoothing", unit="1", meaning="label smoothing of the training", source="task.settings"),
)

POINTS = {
    "train_accuracy": "train.train_accuracy",
    "train_accuracy_after_step": "train.train_accuracy_after_step",
    "test_accuracy": "train.epoch_test_accuracy",
    "test_accuracy_raw": "train.epoch_test_accuracy_raw",
    "validation_accuracy": "train.validation_accuracy",
}
"""Which metric a column of the curves shows."""


def curves(runs: str | Path | Iterable[str | Path]) -> DataFrame:
    """Return the training curves of run folders, one row a run, cell, repeat and evaluation, raw SI.

    Raises StoreError for a folder without records.
    """
    return training_curves(read_runs(runs)).frame()


def training_curves(records: Mapping[str, Sequence[Record]]) -> Table:
    """Lay out every evaluation during training, in the order of the records."""
    of_records = (Repeats(run, (r,)) for run, of_run in trainings(records).items() for r in of_run)
    return Table("curves", CURVES, tuple(row for repeat in of_records for row in _curve(repeat)))


def trainings(records: Mapping[str, Sequence[Record]]) -> dict[str, tuple[Record, ...]]:
    """Return the records of the train stage."""
    return {run: tuple(r for r in of_run if r.task.stage == "train") for run, of_run in records.items()}


def _curve(repeat: Repeats) -> Iterator[Row]:
    (r,) = repeat.records
    training = {column.name: column.value(repeat) for column in _TRAINING}
    points: dict[int, dict[str, Measurement]] = {}
    for name, metric in POINTS.items():
        for m in r.find(metric):
            points.setdefault(int(m.remarks["step"]), {})[name] = m
    losses = [loss for m in r.find("train.loss") for loss in m.values]
    before = 0
    for step, point in sorted(points.items()):
        accuracies = {name: m.values[0] for name, m in point.items()}
        remarks = {name: value for m in point.values() for name, value in m.remarks.items()}
        since = losses[before:step]
        found = training | remarks | accuracies | {"task": r.key, "repeat": repeat.task.repeat}
        found["train_loss"] = fmean(since) if since else None
        found["label_smoothing"] = r.task.settings.get("label_smoothing")
        yield {column.name: found.get(column.name) for column in CURVES}
        before = step
