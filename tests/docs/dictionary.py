"""The data dictionary of `results/README.md`: every column of every CSV file, from the tables that write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from doc_table import table

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
class File:
    """The description of a CSV file."""

    row: str
    """Meaning of one row."""
    columns: Sequence[Column]
    patterns: tuple[Column, ...] = ()
    """Columns whose names depend on what was measured; their names are patterns, with parts in `<…>`."""


FILES: Mapping[str, File] = {
    "leaderboard": File(
        "One row per run and cell; the columns of the best engine only where `infer` ran, those from "
        f"`{next(iter(FURTHER.values())).name}` on only where each training measured them once. A figure of several "
        "repeats is their median, unless its meaning says otherwise.",
        (*LeaderboardRow.columns(), *BestEngine.columns(), *FURTHER.values()),
        (PATTERN,),
    ),
    "curves": File("One row per evaluation during a training.", CurveRow.columns()),
    "profiles": File(
        "One row per run, cell, repeat and batch size that `profile` measured, or a task of it that did not end well.",
        ProfileRow.columns(),
    ),
    "layers": File(
        "One row per layer of a profile; and, where engines were timed layer by layer, one row per group of layers "
        "that an engine runs as one.",
        LayerRow.columns(),
    ),
    "engines": File(
        "One row per run, cell, engine and batch size. A figure of several repeats is their median, unless its meaning "
        "says otherwise.",
        EngineRow.columns(),
    ),
    "confusion": File(
        "One row per training and pair of classes, also of pairs without an image.", ConfusionRow.columns()
    ),
    "examples": File("One row per test image in a training's `examples.npz`.", ExampleRow.columns()),
    "verdicts": File(
        "One row per cell and metric, of a report of exactly two runs that share a cell: what `cnnperf check` says of "
        "the second.",
        VerdictRow.columns(),
    ),
    "runs": File(
        "One row per run, machine and software. What the processes of the tasks saw, from `frequency_hz` to "
        "`environment`, is joined by `;` where it differs; for numbers, the first is given.",
        RunRow.columns(),
    ),
    "tasks": File("One row per task.", TaskRow.columns()),
    "cell_metrics": File(
        "Of `cnnperf campaign report`: one row per run and cell-metric (a cell with `train.step` or `infer.forward`).",
        CellMetricRow.columns(),
    ),
    "counts": File(
        "Of `cnnperf campaign report`: one row per condition and number of threads, and one of all.", CountRow.columns()
    ),
}
"""By the file's stem, in the order in which people meet them."""

ARROWS = {"lower": "↓", "higher": "↑", None: ""}


def text() -> str:
    """Return the text of the whole dictionary."""
    return "\n\n".join(block for name, file in FILES.items() for block in (f"### {name}.csv", file.row, _table(file)))


def _table(file: File) -> str:
    rows = (
        (f"`{c.name}`", c.unit or "", ARROWS[c.better], c.meaning, _source(c)) for c in (*file.columns, *file.patterns)
    )
    return table(("column", "unit", "better", "meaning", "from"), rows)


def _source(column: Column) -> str:
    return ", ".join(each if each.startswith("(") else f"`{each}`" for each in column.source.split(", "))
