"""The command that chooses a network and its engine: `cnnperf choose`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cnnperf.cli.help import FLAG, add_command
from cnnperf.cli.options import JsonOption


def choose(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="One or more run folders in which the stage infer timed engines."),
    ],
    *,
    max_latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="Maximum latency of a call, with its unit, such as 2ms.")
    ] = None,
    min_accuracy: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Minimum test accuracy, such as 0.7 for 70 %.")
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES", help="Maximum peak memory with its unit, such as 50MB or 48MiB; on the CPU of the process."
        ),
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(metavar="BYTES", help="Maximum size of the network's file, with its unit.")
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(metavar="N", help="Images per call; default: any that was timed."),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="GLOB",
            help="Consider only cells whose dataset, model, device or dataset/model/device matches; default: all.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of engines.csv that decides among those that satisfy all bounds, best value first; default: "
            "test_accuracy, then images_per_s among those whose interval overlaps.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", metavar=FLAG, help="Print cells, answer, warnings and errors only: no notes.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Choose the network, engine and batch size that satisfy bounds on latency, accuracy, memory and size.

    A bound is satisfied where the worse end of the interval satisfies it. The chosen one comes first, then by how much
    it beats the others that satisfy all bounds, those that do so by their middle only, and those that miss one, the
    nearest first. Failed or undecided parity and a figure with † exclude an engine. Only records are read.

    Exit status: 0 found, 1 none satisfies every bound, 2 the request cannot be carried out.
    """
    from cnnperf.reports import show_selection
    from cnnperf.tables.choice import choose as library

    selection = library(
        runs,
        max_latency=max_latency,
        min_accuracy=min_accuracy,
        max_memory=max_memory,
        max_size=max_size,
        batch=batch,
        only=only,
        by=by,
    )
    show_selection(replace(selection, is_brief=quiet and not as_json), as_json=as_json)
    raise typer.Exit(selection.exit_code)


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    add_command(
        app,
        choose,
        "cnnperf choose RUN --max-latency 2ms --batch 1 --min-accuracy 0.7",
        "cnnperf choose RUN --max-memory 600MB --max-size 5MB --only 'cifar10/*'",
    )
