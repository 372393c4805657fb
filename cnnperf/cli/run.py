"""The command that runs a suite: `cnnperf run`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from cnnperf.cli.data import DataOption
from cnnperf.cli.help import add_command
from cnnperf.cli.options import ALLOCATOR_POLICIES, DEVICES, WAITING_POLICIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnperf.ipc.messages import Prepared
    from cnnperf.record import Record


def run(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A TOML file, or a name from `cnnperf list suites`.")],
    *,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="GLOB",
            help="Run only cells whose dataset, model, device or dataset/model/device matches, such as 'resnet*'; "
            "default: all.",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="D", help=f"Device, {DEVICES}; default: the suite's devices.")
    ] = None,
    stages: Annotated[
        str | None, typer.Option(metavar="A,B", help="Stages to run, in this order; default: the suite's stages.")
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Fresh processes per task, all cells once, then all again; default: the suite's.",
        ),
    ] = None,
    waiting: Annotated[
        str | None,
        typer.Option(metavar="W", help=f"How threads wait for work: {WAITING_POLICIES}; default: the suite's."),
    ] = None,
    allocator: Annotated[
        str | None,
        typer.Option(metavar="A", help=f"Whether freed memory is kept: {ALLOCATOR_POLICIES}; default: the suite's."),
    ] = None,
    data: DataOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New run folder; default: results/<suite>/<utc>-<host>."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Run folder to resume; unchanged tasks that succeeded are not run again. Default: a new run.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Limit each stage to a few seconds, and run one repeat.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the tasks with their estimated minutes and disk space; run nothing."),
    ] = False,
    require_real_data: Annotated[
        bool,
        typer.Option(
            "--require-real-data",
            help="End with exit status 2 if real images are unavailable, instead of using synthetic images.",
        ),
    ] = False,
) -> None:
    """Run a suite: train each network on each dataset and device, and rank the networks.

    The leaderboard goes to stdout, progress to stderr; records, CSV files, logs and weights go to the run folder.

    Exit status: 0 success, 1 a task failed, 2 the request cannot be carried out, 3 an engine's parity is undecided, 130
    interrupted.
    """
    start = perf_counter()
    from cnnperf.cli.screen import View, planned, stderr
    from cnnperf.ipc.messages import SuiteRequest
    from cnnperf.running.preflight import prepare
    from cnnperf.running.runner import folder_to_run, left_in, pending
    from cnnperf.suite import load_suite

    chosen = load_suite(suite)
    if require_real_data:
        chosen = chosen.model_copy(update={"require_real_data": True})
    named = stages.split(",") if stages is not None else None
    chosen = chosen.narrowed(only=only, device=device, stages=named, repeats=repeats)
    chosen = chosen.launched(waiting=waiting, allocator=allocator)
    request = SuiteRequest(suite=chosen, where=suite, only=only, data=data, quick=quick, download=not dry_run)
    folder = folder_to_run(chosen, out, resume)
    with View(stderr()).shown() as screen:
        prepared = prepare(request, screen.downloading)
    if dry_run:
        print("\n".join(planned(pending(prepared.tasks, left_in(folder)), prepared.downloads)))
    else:
        _execute(prepared, folder, start)


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    add_command(app, run, "cnnperf run cifar --device cpu --only 'resnet*'", "cnnperf run my.toml --dry-run")


def _execute(prepared: Prepared, folder: Path, start: float) -> None:
    """Run the pending tasks and show the results; start: the command's start on the perf_counter clock."""
    from cnnperf.cli.screen import Screen, stderr
    from cnnperf.reports import keep_in_run, show
    from cnnperf.running.runner import Run, pending
    from cnnperf.tables.report import exit_code, report_of_run

    made: list[Record] = []
    interrupted = False
    with Run(folder) as run:
        tasks = pending(prepared.tasks, run.left)
        screen = Screen(stderr())
        screen.planned(tasks, folder)
        try:
            with screen.shown():
                made.extend(run.execute(tasks, screen))
        except KeyboardInterrupt:
            interrupted = True
    report = report_of_run(folder, run.records)
    if run.records:
        files = keep_in_run(report, folder)
        show(report)
        print(files[report.tables[0].name], file=sys.stderr)
    _print_shares(made, start)
    if interrupted:
        print(f"interrupted; resume with: {_resume_command(folder)}", file=sys.stderr)
        raise typer.Exit(130)
    raise typer.Exit(exit_code(run.records_of(prepared.tasks), report))


def _print_shares(made: Sequence[Record], start: float) -> None:
    """Describe how a command's time was spent, if it only trained."""
    from cnnperf.bench import trains
    from cnnperf.tables.leaderboard import summary

    if made and all(trains(record.task.stage) for record in made):
        print(summary(made, perf_counter() - start), file=sys.stderr)


def _resume_command(folder: Path) -> str:
    """Return the command that resumes a run with the other options of this command."""
    kept, words = [], iter(sys.argv[1:])
    for word in words:
        if word in ("--out", "--resume"):
            next(words)
        elif not word.startswith(("--out=", "--resume=")):
            kept.append(word)
    return shlex.join(["cnnperf", *kept, "--resume", str(folder)])
