"""From run folders to the report: all tables of their records, and the notes needed to read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cnnperf import registry
from cnnperf.errors import UsageError
from cnnperf.record import Record, read, run_folders
from cnnperf.tables.curves import training_curves
from cnnperf.tables.engines import engine_notes, engine_table, is_undecided
from cnnperf.tables.facts import DISTURBED_NOTE, SITTINGS
from cnnperf.tables.layers import layer_table
from cnnperf.tables.leaderboard import LEADERBOARD_NOTES, PROCESSES_NOTE, leaderboard
from cnnperf.tables.predictions import prediction_tables
from cnnperf.tables.profiles import profile_notes, profile_table
from cnnperf.tables.runs import run_table, task_table
from cnnperf.tables.table import Report, Table
from cnnperf.tables.verdicts import verdict_table


def report_of(runs: Iterable[str | Path], by: str | None = None) -> Report:
    """Read run folders and make their report; if a column is named, the tables that have it are sorted and come first.

    Raises StoreError for a folder without records, UsageError if no table that readers see has such a column.
    """
    folders = run_folders(runs)
    return report_of_records({name: read(folder) for name, folder in folders.items()}, folders, by)


def report_of_run(folder: Path, records: Sequence[Record]) -> Report:
    """Make the report of one run folder whose records are given."""
    folders = run_folders([folder])
    return report_of_records(dict.fromkeys(folders, records), folders)


def report_of_records(
    records: Mapping[str, Sequence[Record]], folders: Mapping[str, Path], by: str | None = None
) -> Report:
    """Make the report of records by run, with the folder of each. Raises UsageError if there is no such column."""
    profiled, engines, layers = profile_table(records), engine_table(records), layer_table(records)
    board, tables, notes = leaderboard(records, engines), list[Table[Any]](), list[str]()
    if board.rows or not (profiled.rows or engines.rows):
        tables, notes = [board, training_curves(records)], [*LEADERBOARD_NOTES]
    if profiled.rows:
        tables, notes = [*tables, profiled], [*notes, *profile_notes(profiled.rows)]
    if engines.rows:
        tables, notes = [*tables, engines], [*notes, *engine_notes(engines.rows)]
    if any(row.processes != 1 for row in board.rows):
        notes.append(PROCESSES_NOTE)
    if any(row["sitting"] for table in (board, engines) for row in table.rows):
        notes.append(SITTINGS)
    if any(row.is_disturbed for table in (board, profiled, engines) for row in table.rows):
        notes.append(DISTURBED_NOTE)
    tables += [layers] if layers.rows else []
    tables = tables if by is None else _sorted(tables, by)
    further = (verdict_table(records, folders), *prediction_tables(records, folders))
    tables += [table for table in further if table and (table.rows or table.notes)]
    return Report((*tables, run_table(records), task_table(records)), tuple(dict.fromkeys(notes)), folders, records)


def _sorted(tables: Iterable[Table[Any]], by: str) -> list[Table[Any]]:
    """Sort the tables that readers see by a column; those that have it come first.

    Raises UsageError if none of them has the column.
    """
    having, others, known = list[Table[Any]](), list[Table[Any]](), list[str]()
    for table in tables:
        names = [column.name for column in table.columns] if table.group else []
        known += names
        if by in names:
            having.append(table.sorted_by(by))
        else:
            others.append(table)
    if not having:
        raise UsageError(f"`by`: {registry.unknown('column', by, dict.fromkeys(known))}")
    return having + others


def exit_code(records: Sequence[Record]) -> Literal[0, 1, 3]:
    """Return the exit status of a command whose tasks left these records, made by it or found in a resumed run.

    1 if a task failed, else 3 if more test images are needed to decide an engine's parity, else 0. Records of other
    tasks in the run folder, such as those of settings that were changed since, do not count.
    """
    if any(record.status not in ("ok", "skipped") for record in records):
        return 1
    return 3 if is_undecided(records) else 0
