"""The command that exports a run to a store: `cnnperf export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnperf.cli.help import add_command, one_of
from cnnperf.errors import UsageError
from cnnperf.registry import find, names, unknown

SINKS = names("sinks")


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or a name from `cnnperf list references`.")],
    *,
    to: Annotated[str, typer.Option(metavar="STORE", help=f"Store to write: {one_of(SINKS)}.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to write to; default: a folder of the store's name in RUN."),
    ] = None,
) -> None:
    """Export the tables and all samples of a stored run to a store of another project.

    With parquet, each table becomes a file, and samples.parquet has all values of every measurement. The extra of
    cnnperf that has the store's name must be installed. The name of the written folder goes to stdout.

    Exit status: 0 success, 2 the run cannot be read, or the folder cannot be written.
    """
    from cnnperf.tables.report import report_of

    if to not in SINKS:
        raise UsageError(f"--to: {unknown('store', to, SINKS)}")
    report = report_of([run])
    folder = out or next(iter(report.folders.values())) / to
    try:
        folder.mkdir(parents=True, exist_ok=True)
        find("sinks", to)(report, folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}); give another folder with --out") from error
    print(folder)


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    add_command(app, export, "cnnperf export results/cifar/<run> --to parquet --out tables")
