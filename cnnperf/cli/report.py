"""The command that shows earlier runs: `cnnperf report`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cnnperf.errors import UsageError

Format = StrEnum("Format", ["console", "csv", "html", "json", "markdown"])


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders, one or more.")],
    format: Annotated[Format, typer.Option(help="Format of the output.")] = Format.console,  # noqa: A002 - the option's name
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Sort by this column of leaderboard.csv, best first.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write instead of stdout; with csv, a folder for all tables."),
    ] = None,
) -> None:
    """Make the tables of stored runs again, or a page with plots: --format html --out page.html."""
    from cnnperf.registry import find
    from cnnperf.tables.report import report_of

    table, write = report_of(runs, by=by), find("reports", format.value)
    if out is None:
        write(table, sys.stdout)
        return
    try:
        if format == Format.csv and (out.is_dir() or not out.suffix):
            out.mkdir(parents=True, exist_ok=True)
            write(table, out)
            return
        with open(out, "w", encoding="utf-8", newline="") as file:
            write(table, file)
    except OSError as error:
        raise UsageError(f"--out: {out}: cannot be written ({error.strerror}); give another file") from error


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    app.command()(report)
