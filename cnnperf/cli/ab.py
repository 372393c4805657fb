"""The command that compares two versions by measuring them in turns: `cnnperf ab`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cnnperf.cli.check import VERDICTS_FORMAT, FormatOption, QuietVerdictsOption, verdicts_writer
from cnnperf.cli.data import DataOption
from cnnperf.cli.help import FLAG, add_command
from cnnperf.cli.options import AllowBusyOption, JsonOption, PairsOption
from cnnperf.sides import PAIRS


def ab(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A TOML file, or a name from `cnnperf list suites`.")],
    *,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="X",
            help="Baseline version: a git revision, a Python interpreter or a virtual environment, or '.' for this "
            "tree; required unless a setting is changed.",
        ),
    ] = None,
    candidate: Annotated[
        str | None, typer.Option(metavar="Y", help="Candidate version, named in the same ways; default: this tree.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Compare only cells that match, as in cnnperf run; default: all.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="M", help="Time limit in minutes; what is decided by then is reported. Default: no limit."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Threads of each version; default: the suite's.")
    ] = None,
    pairs: PairsOption = PAIRS[1],
    format: FormatOption = VERDICTS_FORMAT,  # noqa: A002 - the option's name
    baseline_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K=V", help="Change a setting of the suite for the baseline only; repeat the option for several."
        ),
    ] = None,
    candidate_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K=V", help="Change a setting for the candidate only, such as train.memory_format=contiguous."
        ),
    ] = None,
    data: DataOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New folder for all samples; default: results/ab/<utc>-<host>."),
    ] = None,
    allow_busy: AllowBusyOption = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", metavar=FLAG, help="Print what would be compared and the range of minutes; measure nothing."
        ),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietVerdictsOption = False,
) -> None:
    """Tell whether a change made training or inference slower, by measuring two versions in turns.

    A replicate is a fresh pair of processes, one per version, that take turns sample by sample, so that disturbances of
    the machine affect both alike. A cell-metric is the training step or the forward pass of one cell. After 8, 14 and
    22 replicates (a look), each cell-metric is tested; one that is decided is not measured further.

    At most 1 run of 100 calls an unchanged cell-metric worse, whatever the number of cells. The chance of finding a
    slowdown depends on the number of cell-metrics and on the standard deviation of the replicates. If one of ten
    cell-metrics is slower by 5 % and that deviation is 3 / 4 / 5 %, it is called worse in 96 / 72 / 44 of 100 runs; a
    single cell-metric in 98 / 92 / 76. Each run prints its own figures. If --minutes allows for more than 22
    replicates, up to about 40 are planned, before anything is measured.

    Both versions must compute the same. It is an error if one version's distance from a float64 run exceeds ten times
    the other's, or if the losses differ by more than 0.1 % after three steps. So only a setting that leaves outputs and
    losses nearly alike can be compared, such as train.memory_format; another optimizer is an error. A setting with a
    smaller effect, such as a learning rate 1 % higher, is listed below the verdicts.

    SAME excludes a slowdown of 5 % or more with 95 % confidence, over all looks together. INCONCLUSIVE is not a pass.

    Exit status: 0 all the same or better, 1 anything worse, missing or an error, 2 the request cannot be carried out, 3
    anything inconclusive or nothing compared, 130 interrupted.
    """
    from cnnperf.cli.screen import DuetScreen, stderr
    from cnnperf.regression import ab as library

    show_verdicts = verdicts_writer(format, as_json=as_json, quiet=quiet)
    with DuetScreen(stderr(quiet=quiet)).shown() as screen:
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
            allow_busy=allow_busy,
            dry_run=dry_run,
            watcher=screen,
        )
    if dry_run:
        plan = {"plan": comparison.notes}
        print(json.dumps(plan, indent=2, ensure_ascii=False) if as_json else "\n".join(comparison.notes))
        return
    show_verdicts(comparison)
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
