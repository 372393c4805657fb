"""The command that profiles one network without a suite: `cnnperf profile`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cnnperf.cli.run import AllocatorOption, WaitingOption
from cnnperf.errors import RunError, UsageError

Mode = StrEnum("Mode", ["train", "infer"])


def profile(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name from `cnnperf list models`, or pkg.module:callable.")
    ],
    *,
    dataset: Annotated[str, typer.Option(metavar="D", help="Images to run it on.")] = "cifar10",
    device: Annotated[str, typer.Option(metavar="D", help="Where: cpu, cuda.")] = "cpu",
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Images a step; the recipe's if absent.")] = None,
    mode: Annotated[Mode, typer.Option(help="Training steps, or forward passes in evaluation mode.")] = Mode.train,
    samples: Annotated[int | None, typer.Option(metavar="N", help="Steps with hooks, and as many without.")] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Sort by this column of layers.csv: numbers from the largest, text from A."
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Depth of the layers that are shown; deeper ones are summed up per block."
        ),
    ] = None,
    waiting: WaitingOption = None,
    allocator: AllocatorOption = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder in torchvision's layout.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Run folder to make.")] = None,
) -> None:
    """Show where a network's time and memory go, layer by layer, with freshly built weights.

    The table goes to stdout, in a terminal only the columns that fit; layers.csv, the raw samples and a trace for
    Perfetto go to the run folder. Exit status: 0 done, 1 the profile failed, 2 the request cannot be carried out.
    """
    from rich.console import Console

    from cnnperf.cli.screen import downloads, stderr
    from cnnperf.record import read_runs
    from cnnperf.registry import unknown
    from cnnperf.reports import keep
    from cnnperf.reports._layers import write
    from cnnperf.running.preflight import Request, prepare
    from cnnperf.running.runner import Unwatched, execute, folder_to_make
    from cnnperf.suite import parse
    from cnnperf.tables.layers import UNITS, profiles
    from cnnperf.tables.report import report_of

    if by is not None and by not in UNITS:
        raise UsageError(f"--by: {unknown('column', by, UNITS)}")
    section: dict[str, Any] = {"mode": mode.value}
    section |= {} if batch_size is None else {"batch_sizes": [batch_size]}
    section |= {} if samples is None else {"samples": samples}
    document = {
        "datasets": [dataset],
        "models": [model],
        "devices": [device],
        "stages": ["profile"],
        "profile": section,
    }
    suite = parse(document, where="command line", name="profile")
    suite = suite.launched(waiting=waiting, allocator=allocator)
    folder = folder_to_make(suite, out)
    with downloads(stderr()) as downloading:
        prepared = prepare(Request(suite=suite, where="command line", data=data), downloading)
    [record] = execute(prepared.tasks, folder, Unwatched())
    if record.status == "skipped":
        raise UsageError(f"{record.task.label}: {record.error}; profile it on another device")
    if record.status != "ok":
        raise RunError(f"{record.task.label}: {record.status}: {record.error or record.signal}; see {folder / 'logs'}")
    files = keep(report_of([folder]), folder)
    for found in profiles(read_runs([folder])):
        write(found, sys.stdout, by=by, depth=depth)
    Console(file=sys.stderr, highlight=False).print(str(files["layers"]), soft_wrap=True)


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    app.command(
        epilog="Examples: cnnperf profile lenet --dataset mnist · cnnperf profile torchvision.models:resnet18 --depth 1"
    )(profile)
