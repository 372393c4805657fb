"""The command that compares two versions by measuring them in turns: `cnnperf ab`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cnnperf.cli.check import FORMAT, FormatOption
from cnnperf.cli.help import add_command
from cnnperf.reports import VERDICTS, writer


def ab(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A TOML file, or the name of a shipped suite.")],
    *,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="X",
            help="Baseline version: a git revision, a Python interpreter or a virtual environment. Default: this tree.",
        ),
    ] = None,
    candidate: Annotated[
        str | None, typer.Option(metavar="Y", help="Candidate version, given in the same ways. Default: this tree.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only cells whose id, dataset, model or device matches.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(metavar="M", min=0.0, help="Time limit in minutes; report what is decided by then."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Threads of each side, instead of the suite's.")
    ] = None,
    pairs: Annotated[
        int, typer.Option(metavar="N", help="Maximum pairs of samples per replicate, an even number from 12 to 60.")
    ] = 60,
    format: FormatOption = FORMAT,  # noqa: A002 - the option's name
    baseline_set: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="Change a setting of the suite for the baseline only.")
    ] = None,
    candidate_set: Annotated[
        list[str] | None,
        typer.Option(metavar="K=V", help="Change one for the candidate only: train.memory_format=contiguous."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Folder of the real images, as in cnnperf run.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for all samples; default: results/ab/<utc>-<host>."),
    ] = None,
) -> None:
    """Tell whether a change made training or inference slower, by measuring both versions in turns.

    A replicate is a fresh pair of processes, one per version, that take turns sample by sample, so that the machine
    disturbs both alike. The metrics are the training step and the forward pass of every cell. At most 1 run of 100
    calls an unchanged cell-metric worse, whatever the number of cells. How often a slowdown of 5 % is found
    depends on the number of cell-metrics and on the variation of the replicates: with ten cell-metrics, one slower by
    5 % is called worse in 96 / 72 / 44 of 100 runs if the standard deviation is 3 / 4 / 5 %; a single cell-metric in
    98 / 92 / 76. The run prints its own figures. If --minutes allows for more than 22 replicates, up to about 40 are
    planned, before anything is measured. The outputs must agree: it is an error if one side's distance from a float64
    run exceeds ten times the other's, or if the losses differ by more than 0.1 % after three steps. A setting with a
    smaller effect, such as a learning rate 1 % higher, is listed below the verdicts.

    SAME excludes a slowdown of 5 % or more with 95 % confidence, over all looks together. INCONCLUSIVE is never a
    pass. Exit status: 0 all the same or better, 1 anything worse, missing or an error, 3 anything inconclusive or
    nothing compared, 2 the request cannot be carried out, 130 interrupted.
    """
    from cnnperf.cli.screen import DuetScreen, stderr
    from cnnperf.regression import ab as library

    write = writer(format, VERDICTS)
    with DuetScreen(stderr()).shown() as screen:
        comparison = library.ab(
            suite,
            baseline=baseline,
            candidate=candidate,
            only=only,
            minutes=minutes,
            threads=threads,
            pairs=pairs,
            baseline_set=baseline_set or (),
            candidate_set=candidate_set or (),
            data=data,
            out=out,
            watcher=screen,
        )
    write(comparison, sys.stdout)
    raise typer.Exit(130 if comparison.interrupted else comparison.exit_code)


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    add_command(
        app,
        ab,
        "cnnperf ab ci --baseline origin/main --candidate HEAD",
        "cnnperf ab my.toml --candidate-set train.memory_format=contiguous",
        "cnnperf ab my.toml --baseline old/bin/python --candidate new/bin/python",
    )
