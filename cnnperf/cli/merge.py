"""The command that puts runs together: `cnnperf merge`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cnnperf.cli.help import add_command


def merge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, such as the shards of a suite.")],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="New run folder.")],
) -> None:
    """Put runs together in one run folder: records, artifacts and logs. The runs stay as they are.

    A task that two runs have must have the same figures in both. A missing shard is named.

    Exit status: 0 success, 1 a task of the runs failed or a shard is missing, 2 the runs cannot be put together, 3 an
    engine's parity is undecided.
    """
    from cnnperf.reports import keep_in_run, show
    from cnnperf.running.merge import merge as merge_runs
    from cnnperf.tables.report import exit_code, report_of_run

    merged = merge_runs(runs, out)
    report = report_of_run(out, merged.records)
    files = keep_in_run(report, out)
    show(report)
    print(files[report.tables[0].name], file=sys.stderr)
    for shard in merged.missing:
        print(f"missing shard: {shard}; run it and merge again", file=sys.stderr)
    raise typer.Exit(1 if merged.missing else exit_code(merged.records))


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    add_command(
        app,
        merge,
        "cnnperf merge first second --out results/cifar/merged",
    )
