"""The data dictionary: every column of every table, from the rows that declare them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cnnperf import registry
from cnnperf.errors import UsageError
from cnnperf.tables.campaigns import CellMetricRow, CountRow
from cnnperf.tables.curves import CurveRow
from cnnperf.tables.engine_row import BestEngine, EngineRow
from cnnperf.tables.layer_row import LayerRow
from cnnperf.tables.leaderboard_row import FURTHER, PATTERN, LeaderboardRow
from cnnperf.tables.predictions import ConfusionRow, ExampleRow
from cnnperf.tables.profiles import ProfileRow
from cnnperf.tables.runs import RunRow, TaskRow
from cnnperf.tables.table import Column
from cnnperf.tables.verdicts import VerdictRow


@dataclass(frozen=True, slots=True)
class DescribedTable:
    """The description of a table, which has the name of its CSV file."""

    row: str
    """Meaning of one row."""
    columns: tuple[Column, ...]
    patterns: tuple[Column, ...] = ()
    """Columns whose names depend on what was measured; their names are patterns, with parts in `<…>`."""


DICTIONARY: Mapping[str, DescribedTable] = {
    "leaderboard": DescribedTable(
        "One row per run and cell; the columns of the best engine only where `infer` ran, those from "
        f"`{next(iter(FURTHER.values())).name}` on only where each training measured them once. A figure of several "
        "repeats is their median, unless its meaning says otherwise.",
        (*LeaderboardRow.columns(), *BestEngine.columns(), *FURTHER.values()),
        (PATTERN,),
    ),
    "curves": DescribedTable("One row per evaluation during a training.", CurveRow.columns()),
    "profiles": DescribedTable(
        "One row per run, cell, repeat and batch size that `profile` measured, or a task of it that did not end well.",
        ProfileRow.columns(),
    ),
    "layers": DescribedTable(
        "One row per layer of a profile; and, where engines were timed layer by layer, one row per group of layers "
        "that an engine runs as one.",
        LayerRow.columns(),
    ),
    "engines": DescribedTable(
        "One row per run, cell, engine and batch size. A figure of several repeats is their median, unless its meaning "
        "says otherwise.",
        EngineRow.columns(),
    ),
    "confusion": DescribedTable(
        "One row per training and pair of classes; of up to 100 classes also pairs without an image.",
        ConfusionRow.columns(),
    ),
    "examples": DescribedTable("One row per test image in a training's `examples.npz`.", ExampleRow.columns()),
    "verdicts": DescribedTable(
        "One row per cell and metric, of a report of exactly two runs that share a cell: what `cnnperf check` says of "
        "the second.",
        VerdictRow.columns(),
    ),
    "runs": DescribedTable(
        "One row per run, machine and software. What the processes of the tasks saw, from `frequency_hz` to "
        "`environment`, is joined by `;` where it differs; for numbers, the first is given.",
        RunRow.columns(),
    ),
    "tasks": DescribedTable("One row per task.", TaskRow.columns()),
    "cell_metrics": DescribedTable(
        "Of `cnnperf campaign report`: one row per run and cell-metric (a cell with `train.step` or `infer.forward`).",
        CellMetricRow.columns(),
    ),
    "counts": DescribedTable(
        "Of `cnnperf campaign report`: one row per condition and number of threads, and one of all.", CountRow.columns()
    ),
}
"""By the table's name, in the order in which people meet them."""


def described(table: str | None = None) -> Mapping[str, DescribedTable]:
    """Return the descriptions of all tables, or of one. Raises UsageError if there is no such table."""
    if table is None:
        return DICTIONARY
    if table not in DICTIONARY:
        raise UsageError(f"`table`: {registry.unknown('table', table, DICTIONARY)}")
    return {table: DICTIONARY[table]}
