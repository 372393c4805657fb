"""The command that shows stored runs: `cnnperf report`."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from cnnperf.cli.help import FLAG, add_command
from cnnperf.errors import UsageError
from cnnperf.reports import default_format, formats, takes_folder, writer
from cnnperf.units import amount_of

FORMAT = default_format()
WITH_FOLDER = " or ".join(filter(takes_folder, formats()))


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="One or more run folders, or names from `cnnperf list references`."),
    ],
    format: Annotated[  # noqa: A002 - the option's name
        str, typer.Option(metavar="F", help=f"Format of the output: {', '.join(formats())}, or pkg.module:function.")
    ] = FORMAT,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column to sort by, of any table shown, best value first, such as latency_s; tables that have it come "
            "first. Default: the leaderboard by rank.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=f"Output file, or with {WITH_FOLDER} a folder for all its files; default: stdout."
        ),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", metavar=FLAG, help="First move damaged lines from records.jsonl to damaged.jsonl beside it."
        ),
    ] = False,
) -> None:
    """Print the tables of stored runs, or write a page with plots.

    A damaged line of a run's records is named and left out; no file of the run is changed unless --repair is given.

    Exit status: 0 success, 2 a folder contains no run, or the output cannot be written.
    """
    from cnnperf.record import COMPRESSED_FILE, DAMAGED_FILE, FILE, replacing
    from cnnperf.record import repair as repair_records
    from cnnperf.tables.report import report_of

    write = writer(format)
    for run in runs if repair else ():
        moved = repair_records(run)
        words = f"moved {amount_of(len(moved), 'damaged line')} to {run / DAMAGED_FILE}: {', '.join(map(str, moved))}"
        print(words if moved else f"{run / FILE}: no line is damaged", file=sys.stderr)
    table = report_of(runs, by=by)
    if out is None:
        write(table, sys.stdout)
        return
    try:
        if takes_folder(format) and (out.is_dir() or not out.suffix):
            out.mkdir(parents=True, exist_ok=True)
            write(table, out)
            return
        text = io.StringIO(newline="")
        write(table, text)  # A format that cannot be written leaves the file as it was.
        if any((out.parent / name).exists() for name in (FILE, COMPRESSED_FILE)):
            with replacing(out) as file:  # A link that a stranger's run holds is not written through.
                file.write(text.getvalue())
        else:
            out.write_text(text.getvalue(), encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"--out: {out}: cannot be written ({error.strerror}); give another file") from error


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    add_command(
        app,
        report,
        "cnnperf report results/cifar/<run>",
        "cnnperf report results/engines/<run> --by latency_s",
        "cnnperf report results/cifar/* --format html --out page.html",
        "cnnperf report results/cifar/<run> --format csv --out tables",
        "cnnperf report results/cifar/<run> --repair",
    )
