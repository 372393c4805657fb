"""The command that compares engines on one network without a suite: `cnnperf infer`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cnnperf.cli.data import DataOption
from cnnperf.cli.help import add_command
from cnnperf.cli.options import (
    AllocatorOption,
    AllowBusyOption,
    ClassesOption,
    DatasetOption,
    DeviceOption,
    DryRunOption,
    InputOption,
    JsonOption,
    OptionOption,
    QuietOption,
    WaitingOption,
    shape_of,
    table_of,
)
from cnnperf.errors import UsageError

WIDTH = 140
"""Width of output that does not go to a terminal."""


def infer(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|FILE.onnx", help="A name from `cnnperf list models`, pkg.module:callable, or an ONNX file."
        ),
    ],
    *,
    dataset: DatasetOption = None,
    shape: InputOption = None,
    classes: ClassesOption = None,
    options: OptionOption = None,
    device: DeviceOption = "cpu",
    engine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="E",
            help="Engine, a name from `cnnperf list engines`; repeat the option for several. Default: all that load "
            "the network without compiling it.",
        ),
    ] = None,
    batch_size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N",
            help="Images per batch; repeat the option for several, or give auto, which doubles the batch size until "
            "the throughput stops rising. Default: 1 and 32.",
        ),
    ] = None,
    train: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Seconds of training before the measurement; default: none, untrained weights."
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", help="Minimum number of timed calls at each batch size; default: 64.")
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Fresh pairs of processes, engine and torch in turns, that give the speed-up; 0: ratio of separate "
            "latencies. Default: 6.",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Number of threads; default: every usable core.")
    ] = None,
    waiting: WaitingOption = None,
    allocator: AllocatorOption = None,
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New run folder; default: results/infer/<utc>-<host>.")
    ] = None,
    allow_busy: AllowBusyOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run one network in several engines: parity, speed, and the gain of each layer.

    Parity is the agreement of an engine's output with torch's. An ONNX file gets images normalised by the dataset's
    mean and standard deviation: its accuracy is too low if it expects other input. The tables go to stdout;
    engines.csv, layers.csv and the raw samples go to the run folder.

    Exit status: 0 success, 1 an engine failed or its output disagrees with torch's, 2 the request cannot be carried
    out, 3 more test images are needed to decide an engine's accuracy, 130 interrupted.
    """
    from rich.console import Console

    from cnnperf.cli.screen import Screen, print_plan, say, stderr
    from cnnperf.measuring import infer as library
    from cnnperf.reports import keep_in_run, show, show_engine_layers
    from cnnperf.tables.engine_layers import joins

    messages = stderr(quiet=quiet)
    screen = Screen(messages)
    try:
        with screen.shown():
            measured = library.infer(
                model,
                dataset=dataset,
                shape=shape_of(shape),
                classes=classes,
                options=table_of(options),
                device=device,
                engines=engine,
                batch_sizes=_sizes(batch_size) if batch_size else None,
                train=train,
                samples=samples,
                pairs=pairs,
                threads=threads,
                waiting=waiting,
                allocator=allocator,
                data=data,
                out=out,
                allow_busy=allow_busy,
                dry_run=dry_run,
                watcher=screen,
                where="command line",
            )
    except KeyboardInterrupt:
        if screen.folder is None:
            raise
        print(f"interrupted; what was measured is in {screen.folder}", file=sys.stderr)
        raise typer.Exit(130) from None
    if measured.plan:
        print_plan(measured.plan.tasks, measured.plan.downloads, as_json=as_json)
        return
    files = keep_in_run(measured.report, measured.folder)
    show(measured.report, as_json=as_json)
    console = Console(file=sys.stdout, highlight=False, quiet=as_json)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH
    for join in joins(dict.fromkeys(measured.report.folders, measured.records)):
        show_engine_layers(join, console)
    say(messages, files["engines"])
    raise typer.Exit(measured.exit_code)


def _sizes(given: list[str]) -> list[int] | Literal["auto"]:
    if given == ["auto"]:
        return "auto"
    try:
        sizes = [int(size) for size in given]
    except ValueError:
        sizes = [0]
    if min(sizes) < 1:
        raise UsageError(f"--batch-size: give whole numbers from 1, or only auto, got {', '.join(given)}")
    return sizes


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    add_command(
        app,
        infer,
        "cnnperf infer lenet --dataset mnist --train 20",
        "cnnperf infer file.onnx --engine onnxruntime",
    )
