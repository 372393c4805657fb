"""The command that profiles one network without a suite: `cnnperf profile`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, get_args

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
from cnnperf.task import DEFAULT_PROFILE_MODE, ProfileMode

Mode = StrEnum("Mode", get_args(ProfileMode))  # type: ignore[misc] # Its members are not written out.
DEFAULT_MODE = Mode(DEFAULT_PROFILE_MODE)


def profile(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name from `cnnperf list models`, or pkg.module:callable.")
    ],
    *,
    dataset: DatasetOption = None,
    shape: InputOption = None,
    classes: ClassesOption = None,
    options: OptionOption = None,
    device: DeviceOption = "cpu",
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Images per step; default: as in the network's recipe.")
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="Profile training steps, or forward passes in evaluation mode.")
    ] = DEFAULT_MODE,
    samples: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of steps with hooks, and of steps without hooks; default: 10."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of layers.csv to sort by, numbers descending, text ascending; default: order of the layers.",
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Maximum depth of the layers shown; deeper layers are summed per block; default: all layers.",
        ),
    ] = None,
    waiting: WaitingOption = None,
    allocator: AllocatorOption = None,
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New run folder; default: results/profile/<utc>-<host>.")
    ] = None,
    allow_busy: AllowBusyOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Profile a network's time and memory layer by layer, with untrained weights.

    The table goes to stdout (in a terminal, only the columns that fit); layers.csv, the raw samples and a trace for
    Perfetto go to the run folder.

    Exit status: 0 success, 1 the profile failed, 2 the request cannot be carried out, 130 interrupted.
    """
    from cnnperf.cli.screen import Screen, print_plan, say, stderr
    from cnnperf.measuring import profile as library
    from cnnperf.registry import unknown
    from cnnperf.reports import keep_in_run, show, show_layers
    from cnnperf.tables.layers import UNITS, profiles

    if by is not None and by not in UNITS:
        raise UsageError(f"--by: {unknown('column', by, UNITS)}")
    if depth is not None and depth < 1:
        raise UsageError(f"--depth: got {depth}; give 1 or more, or leave --depth out")
    if as_json and (by is not None or depth is not None):
        raise UsageError("--by and --depth change the printed table; leave them out with --json")
    messages = stderr(quiet=quiet)
    with Screen(messages).shown() as screen:
        measured = library.profile(
            model,
            dataset=dataset,
            shape=shape_of(shape),
            classes=classes,
            options=table_of(options),
            device=device,
            batch_size=batch_size,
            mode=mode.value,  # type: ignore[arg-type]
            samples=samples,
            waiting=waiting,
            allocator=allocator,
            data=data,
            out=out,
            allow_busy=allow_busy,
            dry_run=dry_run,
            watcher=screen,
            where="command line",
        )
    if measured.plan:
        print_plan(measured.plan.tasks, measured.plan.downloads, as_json=as_json)
        return
    files = keep_in_run(measured.report, measured.folder)
    if as_json:
        show(measured.report, as_json=True)
    for found in () if as_json else profiles(dict.fromkeys(measured.report.folders, measured.records)):
        show_layers(found, by=by, depth=depth)
    say(messages, files["layers"])


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    add_command(
        app,
        profile,
        "cnnperf profile lenet --dataset mnist",
        "cnnperf profile torchvision.models:resnet18 --depth 1",
        "cnnperf profile resnet --option depth=50 --input 3x224x224 --classes 1000",
    )
