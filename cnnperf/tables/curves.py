"""From records to training curves: one row per evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from cnnperf.bench import trains
from cnnperf.record import Measurement, Record, read_runs
from cnnperf.tables.facts import FACTS, GROUP, fact, row_of
from cnnperf.tables.repeats import Repeats
from cnnperf.tables.table import Row, Table, Value, column, row_type
from cnnperf.training.recipe import label_smoothing_of

if TYPE_CHECKING:
    from pandas import DataFrame


@row_type
class CurveRow(Row):
    """An evaluation during a training."""

    dataset: str = fact()
    data: str | None = fact()
    model: str = fact()
    device: str = fact()
    budget: str | None = fact()
    disturbed: str | None = fact()
    seed: int = fact()
    run: str = fact()
    task: str = fact()
    repeat: int = fact()
    step: int = column(unit="count", meaning="training steps before this evaluation", source="(remark step)")
    samples: int = column(
        unit="count", meaning="training images before it, repetitions counted", source="(remark samples)"
    )
    seconds: float = column(unit="s", meaning="seconds of training steps before it", source="(remark seconds)")
    epoch: float = column(
        unit="1",
        meaning="`samples` over the number of training images, those for validation excluded; since an epoch drops its "
        "last, partial batch, it counts up to one batch less than 1",
        source="(remark epoch)",
    )
    train_loss: float | None = column(
        unit="1",
        better="lower",
        meaning="mean over the steps since the previous evaluation, of the loss that was minimised: smoothed by "
        "`label_smoothing`, which a test loss never is",
        source="train.loss",
    )
    train_accuracy: float | None = column(
        default=None,
        unit="fraction",
        better="higher",
        meaning="share of training images classified correctly before their step, since the previous evaluation",
        source="train.train_accuracy",
    )
    train_accuracy_after_step: float | None = column(
        default=None,
        unit="fraction",
        better="higher",
        meaning='the same right after the step on the same batch, every fifth step (`train_accuracy = "after_step"`): '
        "a reading that is too high",
        source="train.train_accuracy_after_step",
    )
    test_accuracy: float | None = column(
        default=None,
        unit="fraction",
        better="higher",
        meaning="share of test images classified correctly after this epoch (`test_curve`)",
        source="train.epoch_test_accuracy",
    )
    test_accuracy_raw: float | None = column(
        default=None,
        unit="fraction",
        better="higher",
        meaning="the same on raw pixels in [0, 1] (`normalize_eval = false`): a reading that is too low",
        source="train.epoch_test_accuracy_raw",
    )
    validation_accuracy: float | None = column(
        default=None,
        unit="fraction",
        better="higher",
        meaning="share of validation images classified correctly",
        source="train.validation_accuracy",
    )
    n: int | None = column(
        default=None,
        unit="count",
        meaning="images of the last of these accuracies that the row has",
        source="(remark n)",
    )
    label_smoothing: float | None = column(
        unit="fraction",
        meaning="share of the target that the training's loss distributes evenly over all classes",
        source="task.settings",
    )
    conditions: tuple[Value, ...]
    """Values of `GROUP`, which are equal in rows that are compared."""


POINTS = {
    "train_accuracy": "train.train_accuracy",
    "train_accuracy_after_step": "train.train_accuracy_after_step",
    "test_accuracy": "train.epoch_test_accuracy",
    "test_accuracy_raw": "train.epoch_test_accuracy_raw",
    "validation_accuracy": "train.validation_accuracy",
}
"""Metric of each column of the curves."""

PLACE = ("samples", "seconds", "epoch", "n")
"""Remarks about an evaluation that have columns."""


def curves(runs: str | Path | Iterable[str | Path]) -> DataFrame:
    """Return the training curves of run folders, one row per run, cell, repeat and evaluation, values in SI units.

    Raises StoreError for a folder without records.
    """
    return training_curves(read_runs(runs)).frame()


def training_curves(records: Mapping[str, Sequence[Record]]) -> Table[CurveRow]:
    """Return a row for each evaluation during training, in the order of the records."""
    of_records = (Repeats(run, (r,)) for run, of_run in trainings(records).items() for r in of_run)
    return Table("curves", CurveRow.columns(), tuple(row for repeat in of_records for row in _curve(repeat)))


def trainings(records: Mapping[str, Sequence[Record]]) -> dict[str, tuple[Record, ...]]:
    """Return the records of trainings."""
    return {run: tuple(r for r in of_run if trains(r.task.stage)) for run, of_run in records.items()}


def _curve(repeat: Repeats) -> Iterator[CurveRow]:
    (r,) = repeat.records
    points: dict[int, dict[str, Measurement]] = {}
    for name, metric in POINTS.items():
        for m in r.find(metric):
            points.setdefault(int(m.remarks["step"]), {})[name] = m
    losses = [loss for m in r.find("train.loss") for loss in m.values]
    conditions = tuple(FACTS[name].value(repeat) for name in GROUP)
    disturbed = repeat.disturbed
    before = 0
    for step, point in sorted(points.items()):
        places = {name: m.remarks[name] for m in point.values() for name in PLACE if name in m.remarks}
        since = losses[before:step]
        yield row_of(
            CurveRow,
            repeat,
            step=step,
            **places,
            **{name: m.values[0] for name, m in point.items()},
            train_loss=fmean(since) if since else None,
            label_smoothing=label_smoothing_of(r.task.settings),
            disturbed=disturbed,
            conditions=conditions,
        )
        before = step
