"""The command that runs a suite: `cnnperf run`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from cnnperf.cli.data import DataOption
from cnnperf.cli.help import FLAG, add_command
from cnnperf.cli.options import (
    ALLOCATOR_POLICIES,
    DEVICES,
    EXECUTORS,
    WAITING_POLICIES,
    AllowBusyOption,
    DryRunOption,
    JsonOption,
    QuietOption,
)

if TYPE_CHECKING:
    from rich.console import Console

    from cnnperf.ipc.messages import SuiteRequest
    from cnnperf.measuring.suite import MeasuredSuite
    from cnnperf.running.shards import Shard


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
        str | None,
        typer.Option(
            metavar="D",
            help=f"Device: {DEVICES}; cuda:1 is the second GPU, cuda:all every GPU. Default: the suite's devices.",
        ),
    ] = None,
    stages: Annotated[
        str | None, typer.Option(metavar="A,B", help="Stages to run, in this order; default: the suite's stages.")
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            metavar="N",
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
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Run the I-th of N parts of the cells, of about equal planned duration, on one of N machines; put the "
            "runs together with cnnperf merge. Default: all cells.",
        ),
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(
            metavar="E",
            help=f"Where the tasks run: {EXECUTORS}, or NAME:ADDRESS; default: the suite's executor.",
        ),
    ] = None,
    parallel_devices: Annotated[
        bool,
        typer.Option(
            "--parallel-devices",
            metavar=FLAG,
            help="Run the cells of several GPUs side by side, each bound to its own cores, and say so in the rows; "
            "default: one task at a time.",
        ),
    ] = False,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Threads of each task; default: the suite's.")
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
        bool, typer.Option("--quick", metavar=FLAG, help="Limit each stage to a few seconds, and run one repeat.")
    ] = False,
    strict: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Repeat a disturbed task up to N times, each time once the machine is quiet (waiting 5 minutes at "
            "most); one that stays disturbed ends as disturbed. Default: disturbed figures are only marked.",
        ),
    ] = None,
    allow_busy: AllowBusyOption = False,
    dry_run: DryRunOption = False,
    require_real_data: Annotated[
        bool,
        typer.Option(
            "--require-real-data",
            metavar=FLAG,
            help="End with exit status 2 if real images are unavailable, instead of using synthetic images.",
        ),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run a suite: train each network on each dataset and device, and rank the networks.

    The leaderboard goes to stdout, progress to stderr; records, CSV files, logs and weights go to the run folder.

    Exit status: 0 success, 1 a task failed or (--strict) stayed disturbed, 2 the request cannot be carried out, 3 an
    engine's parity is undecided, 130 interrupted.
    """
    start = perf_counter()
    from cnnperf.cli.screen import Screen, stderr
    from cnnperf.ipc.messages import SuiteRequest
    from cnnperf.measuring.suite import measure_suite
    from cnnperf.running.runner import folder_to_run
    from cnnperf.running.shards import Shard
    from cnnperf.suite import load_suite

    chosen = load_suite(suite)
    if require_real_data:
        chosen = chosen.model_copy(update={"require_real_data": True})
    named = [name.strip() for name in stages.split(",")] if stages is not None else None
    chosen = chosen.narrowed(only=only, device=device, stages=named, repeats=repeats)
    chosen = chosen.launched(waiting=waiting, allocator=allocator, threads=threads).executed(
        executor, parallel_devices=parallel_devices
    )
    request = SuiteRequest(
        suite=chosen,
        where=suite,
        only=only,
        data=data,
        quick=quick,
        download=not dry_run,
        probes=dry_run,
        allow_busy=allow_busy,
    )
    part = Shard.parse(shard) if shard is not None else None
    folder = folder_to_run(chosen, out, resume)
    if dry_run:
        _print_plan(request, folder, part, as_json=as_json, quiet=quiet)
        return
    messages = stderr(quiet=quiet)
    screen = Screen(messages)
    with screen.shown():
        measured = measure_suite(
            request,
            folder,
            screen,
            is_named=bool(out or resume),
            is_new=resume is None,
            shard=part,
            strict=strict,
        )
    _print_results(measured, perf_counter() - start, messages, as_json=as_json)
    raise typer.Exit(130 if measured.interrupted else measured.exit_code)


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    add_command(app, run, "cnnperf run cifar --device cpu --only 'resnet*'", "cnnperf run my.toml --dry-run")


def _print_plan(request: SuiteRequest, folder: Path, shard: Shard | None, *, as_json: bool, quiet: bool) -> None:
    """Print the pending tasks of a run folder."""
    from cnnperf.cli.screen import View, print_plan, stderr
    from cnnperf.measuring.suite import chosen_executor
    from cnnperf.running.preflight import prepare
    from cnnperf.running.runner import left_in, pending

    chosen_executor(request.suite, request.where)
    with View(stderr(quiet=quiet)).shown() as screen:
        prepared = prepare(request, screen.downloading)
    tasks = shard.of(prepared.tasks) if shard else prepared.tasks
    print_plan(pending(tasks, left_in(folder)), prepared.downloads, as_json=as_json)


def _print_results(measured: MeasuredSuite, elapsed_s: float, messages: Console, *, as_json: bool) -> None:
    """Print the report, how the time was spent if the command only trained, and how to resume an interrupted run."""
    from cnnperf.bench import trains
    from cnnperf.cli.screen import say
    from cnnperf.record import FILE
    from cnnperf.reports import keep_in_run, show
    from cnnperf.tables.leaderboard import summary

    tables = measured.report.tables
    has_rows = any(table.rows for table in tables)
    files = keep_in_run(measured.report, measured.folder) if has_rows else {}
    if has_rows or as_json:
        show(measured.report, as_json=as_json)
    if has_rows:
        say(messages, files[tables[0].name])
    if measured.made and all(trains(record.task.stage) for record in measured.made):
        say(messages, summary(measured.made, elapsed_s))
    if measured.interrupted and (measured.folder / FILE).exists():
        print(f"interrupted; resume with: {resume_command(measured.folder)}", file=sys.stderr)
    elif measured.interrupted:
        print(
            f"interrupted before a task ended; start again with: {shlex.join(['cnnperf', *sys.argv[1:]])}",
            file=sys.stderr,
        )


def resume_command(folder: Path) -> str:
    """Return the command that resumes a run with the other options of this command."""
    kept, words = [], iter(sys.argv[1:])
    for word in words:
        if word in ("--out", "--resume"):
            next(words)
        elif not word.startswith(("--out=", "--resume=")):
            kept.append(word)
    return shlex.join(["cnnperf", *kept, "--resume", str(folder)])
