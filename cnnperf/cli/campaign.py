"""The commands of the A/A campaign: `cnnperf campaign measure` and `cnnperf campaign report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cnnperf.cli.help import add_command
from cnnperf.cli.options import PairsOption
from cnnperf.sides import PAIRS


def measure(
    suite: Annotated[
        str, typer.Argument(metavar="SUITE", help="A TOML file, or a name from `cnnperf list suites`, such as aa.")
    ],
    *,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the campaign; each run creates a folder in this one.")
    ],
    occasion: Annotated[str, typer.Option(metavar="NAME", help="Name of the time of measurement, such as monday.")],
    condition: Annotated[
        str,
        typer.Option(
            metavar="C",
            help="quiet: nothing else runs; neighbour: another process keeps one core busy; shared: the machine has "
            "other work.",
        ),
    ] = "quiet",
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Threads of each version; default: the suite's.")
    ] = None,
    pairs: PairsOption = PAIRS[1],
    minutes: Annotated[
        float | None,
        typer.Option(metavar="M", help="Time limit in minutes; what is decided by then counts. Default: no limit."),
    ] = None,
) -> None:
    """Compare this tree with itself as `cnnperf ab` does, and keep the run; repeat the command for more runs.

    Exit status: 0 the run finished, whatever the verdicts, 1 the run failed, 2 the request cannot be carried out, 130
    interrupted. Only runs that end with 0 count.
    """
    from cnnperf.cli.screen import DuetScreen, stderr
    from cnnperf.regression import campaign

    with DuetScreen(stderr()).shown() as screen:
        run = campaign.measure_run(
            suite,
            out,
            occasion=occasion,
            condition=condition,  # type: ignore[arg-type]
            threads=threads,
            pairs=pairs,
            minutes=minutes,
            watcher=screen,
        )
    print(f"measured in {run.seconds / 60:.1f} minutes; exit status of the verdicts: {run.exit_code}", file=sys.stderr)


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="Folders with runs, or with the cell_metrics.csv of an earlier report, such as another machine's.",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for cell_metrics.csv and counts.csv.")],
) -> None:
    """Write the tables of a campaign: one row per run and cell-metric, and the counts of all runs.

    Exit status: 0 success, 1 the tables cannot be written, 2 a folder contains no campaign.
    """
    from cnnperf.errors import RunError
    from cnnperf.reports import keep_tables
    from cnnperf.tables import campaigns

    made = campaigns.report(*folders)
    try:
        out.mkdir(parents=True, exist_ok=True)
        keep_tables(made, out)
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror}); give another folder with --out") from error
    for note in made.notes:
        print(note, file=sys.stderr)
    print(campaigns.sentence(made.tables[1].rows))


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    group = typer.Typer(
        help="A/A campaign: compare code with itself in many runs of `cnnperf ab`, and count the verdicts 'worse'.",
        no_args_is_help=True,
    )
    add_command(group, measure, "cnnperf campaign measure aa --out results/aa --occasion monday")
    add_command(group, report, "cnnperf campaign report results/aa --out results/reference/aa")
    app.add_typer(group, name="campaign")
