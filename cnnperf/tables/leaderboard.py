"""From records to the leaderboard: one row per run and cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnperf.record import Record, read_runs
from cnnperf.stats import Interval
from cnnperf.tables.curves import trainings
from cnnperf.tables.engine_row import BestEngine, EngineRow
from cnnperf.tables.engines import best_engines, engine_table
from cnnperf.tables.facts import GROUP, ReducedColumn, row_of, without_sitting
from cnnperf.tables.leaderboard_row import FURTHER, OF_SEVERAL_PROCESSES, PATTERN, LeaderboardRow, further
from cnnperf.tables.repeats import Repeats, alike, machine_of
from cnnperf.tables.scaling import Scaling
from cnnperf.tables.table import MARKED, Column, Table

if TYPE_CHECKING:
    from pandas import DataFrame

LEADERBOARD_NOTES = (
    "test accuracy: mean over repeats, on all test images or a fixed subset, with its 95 % interval (± half of it): "
    "with n=1 the binomial one, without the variation between trainings; with more repeats it includes that variation.",
    "# (rank): all rows whose interval overlaps the leader's share its rank; ties are sorted by speed.",
    "images/s: of training steps alone; median over steps, then over repeats [quartiles of all steps].",
    "n: repeats, each its own process; with n=1, variation between processes is unknown.",
    MARKED,
)
"""Meaning of the leaderboard's numbers."""

PROCESSES_NOTE = (
    "processes: a row of several trains one network on the whole batches of one process. strong scaling: images/s per "
    "GPU, on the CPU per thread, over those of the row of one process at the same batch size; weak scaling: at the "
    "part of the batch that each process takes. Memory is that of one process. Rows of gloo have no rank and no mark: "
    "their processes share one processor."
)
"""Meaning of several processes, in the notes of a report that has such a training."""


def rank(runs: str | Path | Iterable[str | Path]) -> DataFrame:
    """Return the leaderboard of run folders, one row per run and cell, values in SI units.

    Raises StoreError for a folder without records.
    """
    records = read_runs(runs)
    return leaderboard(records, engine_table(records)).frame()


def leaderboard(
    records: Mapping[str, Sequence[Record]], engines: Table[EngineRow] | None = None
) -> Table[LeaderboardRow]:
    """Rank the cells of runs within their groups; cells that did not end well come last, without a rank.

    A metric that every task measured once and that no column shows gets its own column after the others.
    """
    trained = trainings(records)
    measured = [r for of_run in trained.values() for r in of_run]
    others = tuple(_further_columns(measured))
    found = best_engines(engines.rows) if engines else {}

    def row(repeats: Repeats, rivals: Sequence[Repeats]) -> LeaderboardRow:
        scaling = Scaling.of(repeats, rivals)
        return row_of(
            LeaderboardRow,
            repeats,
            strong_scaling=scaling.strong,
            weak_scaling=scaling.weak,
            training=repeats.records[0].key,
            asked=repeats.task.settings,
            earliest_target_s=repeats.earliest_target,
            further={column.name: column.value(repeats) for column in others},
            best=found.get((repeats.run, repeats.records[0].key, machine_of(repeats.place))),
        )

    of_runs = [tuple(alike(run, trained[run], of_run)) for run, of_run in records.items()]
    rows = tuple(row(repeats, rivals) for rivals in of_runs for repeats in rivals)
    columns = tuple(_as_measured(column, measured) for column in (*LeaderboardRow.columns(), *others))
    shown = (*columns, *(BestEngine.columns() if engines and engines.rows else ()))
    if all(each.processes == 1 for each in rows):
        shown = tuple(column for column in shown if column.name not in OF_SEVERAL_PROCESSES)
    table = Table("leaderboard", without_sitting(shown, rows), rows, GROUP)
    return replace(table, rows=tuple(row for group in table.groups() for row in _ranked(group.rows)))


def summary(records: Iterable[Record], elapsed_s: float | None = None) -> str:
    """Describe how a command that trained spent its wall time.

    records: those that it made. elapsed_s: seconds since its start; None counts the tasks alone, without preflight and
    the time between tasks. Failed tasks are overhead.
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


def _as_measured(column: Column, records: Iterable[Record]) -> Column:
    """Give a column the unit and the direction that its metric was measured with."""
    if not isinstance(column, ReducedColumn):
        return column
    measured = (m for r in records for m in r.measurements if m.metric == column.metric)
    found = next(measured, None)
    return replace(column, unit=found.unit, better=found.better) if found else column


def _further_columns(records: Iterable[Record]) -> Iterator[ReducedColumn]:
    shown = {column.metric for column in LeaderboardRow.columns() if isinstance(column, ReducedColumn)}
    single: dict[str, bool] = {}
    for r in records:
        for m in r.measurements:
            is_single = len(m.values) == 1 and not m.is_point and len(r.find(m.metric)) == 1
            single[m.metric] = single.get(m.metric, True) and is_single
    for metric, is_single in single.items():
        if is_single and metric not in shown:
            yield FURTHER.get(metric) or further(metric, meaning=PATTERN.meaning)


def _ranked(group: Iterable[LeaderboardRow]) -> Iterator[LeaderboardRow]:
    """Rank rows by test accuracy, 1, 1, 3: all whose interval overlaps the leader's share its rank, the fastest first.

    A leader is the row with the highest accuracy among those without a rank so far; of equal ones, the surest.
    Disturbed rows and those of several processes on a CPU follow without a rank, then those without an accuracy.
    """
    rows = sorted(group, key=_order)
    next_rank = 1
    while rows and (leader := _accuracy(rows[0])) and not _is_unranked(rows[0]):
        is_tied = [
            (accuracy := _accuracy(row)) is not None and not _is_unranked(row) and leader.overlaps(accuracy)
            for row in rows
        ]
        tie = [row for row, yes in zip(rows, is_tied, strict=True) if yes]
        rows = [row for row, yes in zip(rows, is_tied, strict=True) if not yes]
        yield from (replace(row, rank=next_rank) for row in sorted(tie, key=lambda row: _highest(row.images_per_s)))
        next_rank += len(tie)
    yield from rows


def _order(row: LeaderboardRow) -> tuple[Any, ...]:
    """Make the sorting key of a row: undisturbed ones first, then by accuracy, those without one last."""
    is_last = row.test_accuracy is None
    return is_last, _is_unranked(row), _highest(row.test_accuracy), _highest(row.test_accuracy_low)


def _is_unranked(row: LeaderboardRow) -> bool:
    return row.is_disturbed or not row.is_sound


def _highest(value: float | None) -> tuple[bool, float]:
    """Make a sorting key that puts the highest first and what is absent last."""
    return value is None, -(value or 0)


def _accuracy(row: LeaderboardRow) -> Interval | None:
    low, high = row.test_accuracy_low, row.test_accuracy_high
    return None if low is None or high is None else Interval(low, high)
