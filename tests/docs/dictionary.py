"""The data dictionary of `results/README.md`: every column of every CSV file, from the tables that write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from doc_table import table

from cnnperf.tables import campaigns
from cnnperf.tables import engines as engine_table
from cnnperf.tables import layers as layer_table
from cnnperf.tables import predictions as sight_table
from cnnperf.tables import profiles as profile_table
from cnnperf.tables import runs as run_table
from cnnperf.tables import verdicts as verdict_table
from cnnperf.tables.columns import COLUMNS, FURTHER
from cnnperf.tables.curves import CURVES
from cnnperf.tables.table import Column


@dataclass(frozen=True, slots=True)
class File:
    """One CSV file."""

    row: str
    """What one of its rows is."""
    columns: Sequence[Column]
    patterns: tuple[Column, ...] = ()
    """Columns whose names depend on what was measured; their names are patterns, with parts in `<…>`."""


FILES: Mapping[str, File] = {
    "leaderboard": File(
        "A row a run and cell; the columns of the best engine only where `infer` ran.",
        (*COLUMNS, *engine_table.ON_LEADERBOARD),
        (FURTHER,),
    ),
    "curves": File("A row an evaluation during a training.", CURVES),
    "profiles": File("A row a run, cell, repeat and batch size that `profile` measured.", profile_table.COLUMNS),
    "layers": File(
        "A row a layer of a profile; and, where engines were timed layer by layer, a row a group of layers that an "
        "engine runs as one.",
        layer_table.COLUMNS,
    ),
    "engines": File("A row a run, cell, engine and batch size.", engine_table.COLUMNS),
    "confusion": File("A row a training and pair of classes.", sight_table.CONFUSION),
    "examples": File("A row a test image in a training's `examples.npz`.", sight_table.EXAMPLES),
    "verdicts": File(
        "A row a cell and metric, of a report of exactly two runs that share a cell: what `cnnperf check` says of the "
        "second.",
        verdict_table.COLUMNS,
    ),
    "runs": File("A row a run and machine.", run_table.RUNS),
    "tasks": File("A row a task.", run_table.TASKS),
    "cell_metrics": File(
        "Of `cnnperf campaign report`: a row a run and cell-metric (a cell with `train.step` or `infer.forward`).",
        campaigns.COLUMNS,
    ),
    "counts": File(
        "Of `cnnperf campaign report`: a row a condition and number of threads, and one of all.", campaigns.COUNTS
    ),
}
"""By the file's stem, in the order in which people meet them."""

ARROWS = {"lower": "↓", "higher": "↑", None: ""}


def text() -> str:
    """Return the whole part."""
    return "\n\n".join(block for name, file in FILES.items() for block in (f"### {name}.csv", file.row, _table(file)))


def _table(file: File) -> str:
    rows = (
        (f"`{c.name}`", c.unit or "", ARROWS[c.better], c.meaning, _source(c)) for c in (*file.columns, *file.patterns)
    )
    return table(("column", "unit", "better", "meaning", "from"), rows)


def _source(column: Column) -> str:
    return ", ".join(each if each.startswith("(") else f"`{each}`" for each in column.source.split(", "))
