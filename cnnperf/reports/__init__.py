"""How results are shown. One file a format; `write(report: Report, out: TextIO)`.

A file may declare more of its format, which `registry.declared` reads:

    IS_DEFAULT = True           commands print it unless they are asked for another
    SUFFIX = ".csv"             `write` takes a folder too, and writes each table into a file of its own
    IN_RUN_FOLDER = True        every run folder gets its tables so
    write_verdicts(comparison: Comparison, out: TextIO)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnperf import registry
from cnnperf.errors import UsageError

if TYPE_CHECKING:
    from cnnperf.tables.table import Report

REPORT, VERDICTS = "write", "write_verdicts"
"""What a format can write, by the function that does."""


def formats(verb: str = REPORT) -> tuple[str, ...]:
    """List the formats that can write a report, or verdicts."""
    return registry.having("reports", verb)


def default_format(verb: str = REPORT) -> str:
    """Name the format in which commands print unless they are asked for another."""
    return next(name for name in formats(verb) if registry.declared("reports", name).get("IS_DEFAULT"))


def writer(name: str, verb: str = REPORT) -> Callable[..., None]:
    """Return the function of a format. Raises UsageError for a format that is not there or cannot write that."""
    if name not in formats(verb):
        raise UsageError(f"--format: {registry.unknown('format', name, formats(verb))}")
    found: Callable[..., None] = getattr(registry.module("reports", name), verb)
    return found


def takes_folder(name: str) -> bool:
    """Tell whether a format writes a folder, a file for each table."""
    return "SUFFIX" in registry.declared("reports", name)


def show(report: Report) -> None:
    """Print a report on stdout."""
    writer(default_format())(report, sys.stdout)


def keep_tables(report: Report, folder: Path) -> dict[str, Path]:
    """Write a report's tables into a folder and return the file of each table, by its name. Raises OSError."""
    files: dict[str, Path] = {}
    for name in registry.having("reports", "IN_RUN_FOLDER"):
        writer(name)(report, folder)
        suffix: Any = registry.declared("reports", name)["SUFFIX"]
        files |= {table.name: folder / f"{table.name}{suffix}" for table in report.tables}
    return files
