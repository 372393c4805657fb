"""From records to tables: the leaderboard, a row a run and cell, and the training curves, a row an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from cnnperf import record
from cnnperf.record import Measurement, Record
from cnnperf.stats import Interval
from cnnperf.tables.columns import COLUMNS, FURTHER, ReducedColumn, once
from cnnperf.tables.engines import NOTES as ENGINE_NOTES
from cnnperf.tables.engines import ON_LEADERBOARD, best_engines, engine_table
from cnnperf.tables.facts import facts
from cnnperf.tables.layers import layer_table
from cnnperf.tables.predictions import sight_tables
from cnnperf.tables.profiles import NOTES as PROFILE_NOTES
from cnnperf.tables.profiles import profile_table
from cnnperf.tables.repeats import Repeats
from cnnperf.tables.runs import run_table, task_table
from cnnperf.tables.table import MARKED, Column, Report, Row, Table
from cnnperf.tables.verdicts import verdict_table

if TYPE_CHECKING:
    from pandas import DataFrame

GROUP = (
    *("dataset", "data", "data_sha256", "device", "budget"),
    *("host", "cpu", "cpu_model", "instruction_sets", "device_label", "threads", "waiting", "allocator"),
)
"""What two rows must have in common to be ranked against each other."""

_TRAINING = [c for c in COLUMNS if c.name in ("dataset", "data", "model", "device", "budget", "seed", "run")]

CURVES = (
    *_TRAINING,
    *facts("task", "repeat"),
    Column("step", unit="count", meaning="training steps before this evaluation", source="(tag step)"),
    Column("samples", unit="count", meaning="training images before it, repetitions counted", source="(tag samples)"),
    Column("seconds", unit="s", meaning="seconds of training steps before it", source="(tag seconds)"),
    Column("epoch", unit="1", meaning="passes over the training images before it", source="(tag epoch)"),
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
    Column("n", unit="count", meaning="images of the last of these accuracies that the row has", source="(tag n)"),
    Column("label_smoothing", unit="1", meaning="label smoothing of the training", source="(setting label_smoothing)"),
)

POINTS = {
    "train_accuracy": "train.train_accuracy",
    "train_accuracy_after_step": "train.train_accuracy_after_step",
    "test_accuracy": "train.epoch_test_accuracy",
    "test_accuracy_raw": "train.epoch_test_accuracy_raw",
    "validation_accuracy": "train.validation_accuracy",
}
"""Which metric a column of the curves shows."""

NOTES = (
    "test accuracy: on all test images or a fixed subset, with its 95 % binomial interval (± half of it).",
    "# (rank): all rows whose interval overlaps the leader's share its rank; ties are sorted by speed.",
    "images/s: of training steps alone; median over steps, then over repeats [quartiles of all steps].",
    "n: repeats, each its own process; with n=1, variation between processes is unknown.",
    MARKED,
)
"""What the leaderboard's numbers mean."""


def rank(runs: str | Path | Iterable[str | Path]) -> DataFrame:
    """Return the leaderboard of run folders, one row a run and cell, raw SI.

    Raises StoreError for a folder without records.
    """
    records = read_runs(runs)
    return leaderboard(records, engine_table(records)).frame()


def curves(runs: str | Path | Iterable[str | Path]) -> DataFrame:
    """Return the training curves of run folders, one row a run, cell, repeat and evaluation, raw SI.

    Raises StoreError for a folder without records.
    """
    return training_curves(read_runs(runs)).frame()


def report_of(runs: Iterable[str | Path], by: str | None = None) -> Report:
    """Read run folders and make their report, the leaderboard sorted by a column if one is named.

    Raises StoreError for a folder without records, UsageError for a column that is not there.
    """
    folders = run_folders(runs)
    records = read_runs(folders.values())
    profiled, engines, layers = profile_table(records), engine_table(records), layer_table(records)
    board, tables, notes = leaderboard(records, engines), [], list[str]()
    if board.rows or not (profiled.rows or engines.rows):
        tables, notes = [board, training_curves(records)], [*NOTES]
    if profiled.rows:
        tables, notes = [*tables, profiled], [*notes, *PROFILE_NOTES]
    if engines.rows:
        tables, notes = [*tables, engines], [*notes, *ENGINE_NOTES]
    tables += [layers] if layers.rows else []
    first = tables[0] if by is None else tables[0].sorted_by(by)
    further = (verdict_table(records, folders), *sight_tables(records, folders))
    tables = [first, *tables[1:], *(table for table in further if table and (table.rows or table.notes))]
    return Report((*tables, run_table(records), task_table(records)), tuple(dict.fromkeys(notes)), folders)


def read_runs(runs: str | Path | Iterable[str | Path]) -> dict[str, tuple[Record, ...]]:
    """Read the records of run folders, by the names that these have. Raises StoreError for one without records."""
    runs = [runs] if isinstance(runs, str | Path) else runs
    return {name: record.read(folder) for name, folder in run_folders(runs).items()}


def run_folders(runs: Iterable[str | Path]) -> dict[str, Path]:
    """Name run folders `<suite>/<utc>-<host>`, or by the whole path where two share that."""
    named: dict[str, Path] = {}
    for folder in dict.fromkeys(Path(run).resolve() for run in runs):
        name = "/".join(folder.parts[-2:])
        named[str(folder) if name in named else name] = folder
    return named


def leaderboard(records: Mapping[str, Sequence[Record]], engines: Table | None = None) -> Table:
    """Rank the cells of runs within their groups; cells that did not end well come last, without a rank.

    A metric that every task measured once and that no column shows gets a column of its own behind the others.
    """
    records = trainings(records)
    measured = [r for of_run in records.values() for r in of_run]
    columns = tuple(_as_measured(column, measured) for column in (*COLUMNS, *_further_columns(measured)))
    rows: tuple[Row, ...] = tuple({c.name: c.value(repeats) for c in columns} for repeats in _repeats(records))
    if engines and engines.rows:
        best = best_engines(engines)
        rows = tuple(_with_best(row, best) for row in rows)
    shown = (*columns, *(ON_LEADERBOARD if engines and engines.rows else ()))
    table = Table("leaderboard", shown, rows, GROUP)
    return replace(table, rows=tuple(row for group in table.groups() for row in _ranked(group.rows)))


def training_curves(records: Mapping[str, Sequence[Record]]) -> Table:
    """Lay out every evaluation during training, in the order of the records."""
    of_records = (Repeats(run, (r,)) for run, of_run in trainings(records).items() for r in of_run)
    return Table("curves", CURVES, tuple(row for repeat in of_records for row in _curve(repeat)))


def trainings(records: Mapping[str, Sequence[Record]]) -> dict[str, tuple[Record, ...]]:
    """Return the records of the train stage."""
    return {run: tuple(r for r in of_run if r.task.stage == "train") for run, of_run in records.items()}


def summary(records: Iterable[Record], elapsed_s: float | None = None) -> str:
    """Say what the wall time of a command that trained went into: `elapsed_s` since its start, and the records it made.

    Where its start is not known it is that of the tasks alone, without preflight and what lies between. What failed is
    overhead.
    """
    records = tuple(records)
    trained = [r for r in records if r.status == "ok" and r.find("train.seconds")]
    if not trained:
        return "no training ended well"
    total = sum(r.duration_s for r in records) if elapsed_s is None else elapsed_s
    training, evaluation = (
        round(100 * sum(v for r in trained for m in r.find(metric) for v in m.values) / total)
        for metric in ("train.seconds", "train.evaluation_seconds")
    )
    shares = f"training {training} %, evaluation {evaluation} %, overhead {100 - training - evaluation} %"
    return f"{shares} of the tasks" if elapsed_s is None else shares


def _with_best(row: Row, best: Mapping[tuple[str, str, str, str], Row]) -> Row:
    found = best.get((row["run"], row["dataset"], row["model"], row["device"]), {})
    return {**row, **{column.name: found.get(column.name) for column in ON_LEADERBOARD}}


def _repeats(records: Mapping[str, Sequence[Record]]) -> Iterator[Repeats]:
    alike: dict[tuple[str, str], list[Record]] = {}
    for run, of_run in records.items():
        for r in of_run:
            task = r.task.model_dump_json(exclude={"repeat", "seed", "timeout_s"})
            alike.setdefault((run, task), []).append(r)
    for (run, _), members in alike.items():
        yield Repeats(run, tuple(sorted(members, key=lambda r: r.task.repeat)))


def _as_measured(column: ReducedColumn, records: Iterable[Record]) -> ReducedColumn:
    """Give a column the unit and the direction that its metric was measured with."""
    measured = (m for r in records for m in r.measurements if m.metric == column.metric)
    found = next(measured, None)
    return replace(column, unit=found.unit, better=found.better) if found else column


def _further_columns(records: Iterable[Record]) -> Iterator[ReducedColumn]:
    shown = {column.metric for column in COLUMNS}
    single: dict[str, bool] = {}
    for r in records:
        for m in r.measurements:
            is_single = len(m.values) == 1 and "step" not in m.tags and len(r.find(m.metric)) == 1
            single[m.metric] = single.get(m.metric, True) and is_single
    for metric, is_single in single.items():
        if is_single and metric not in shown:
            yield once(metric, metric.replace(".", "_"), meaning=FURTHER.meaning)


def _ranked(group: Iterable[Row]) -> Iterator[Row]:
    """Rank rows by test accuracy, 1, 1, 3: all whose interval overlaps the leader's share its rank, the fastest first.

    A leader is the row of the highest accuracy among those that have no rank yet.
    """
    rows = sorted(group, key=_highest("test_accuracy"))
    place = 1
    while rows and rows[0]["test_accuracy"] is not None:
        is_tied = _overlapping(rows[0])
        tie = [row for row in rows if is_tied(row)]
        rows = [row for row in rows if not is_tied(row)]
        yield from ({**row, "rank": place} for row in sorted(tie, key=_highest("images_per_s")))
        place += len(tie)
    yield from rows


def _highest(name: str) -> Callable[[Row], tuple[bool, float]]:
    """Make a sorting key that puts the highest first and what is absent last."""
    return lambda row: (row[name] is None, -(row[name] or 0))


def _overlapping(leader: Row) -> Callable[[Row], bool]:
    def interval(row: Row) -> Interval:
        return Interval(row["test_accuracy_low"], row["test_accuracy_high"])

    return lambda row: row["test_accuracy"] is not None and interval(leader).overlaps(interval(row))


def _curve(repeat: Repeats) -> Iterator[Row]:
    (r,) = repeat.records
    training = {column.name: column.value(repeat) for column in _TRAINING}
    points: dict[int, dict[str, Measurement]] = {}
    for name, metric in POINTS.items():
        for m in r.find(metric):
            points.setdefault(int(m.tags["step"]), {})[name] = m
    losses = [loss for m in r.find("train.loss") for loss in m.values]
    before = 0
    for step, point in sorted(points.items()):
        accuracies = {name: m.values[0] for name, m in point.items()}
        tags = {tag: value for m in point.values() for tag, value in m.tags.items()}
        since = losses[before:step]
        found = training | tags | accuracies | {"task": r.key, "repeat": repeat.task.repeat}
        found["train_loss"] = fmean(since) if since else None
        found["label_smoothing"] = r.task.settings.get("label_smoothing")
        yield {column.name: found.get(column.name) for column in CURVES}
        before = step
