"""The command that converts a run for TensorBoard: `cnnperf tensorboard`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cnnperf.cli.help import add_command
from cnnperf.errors import UsageError


def tensorboard(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    *,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write to; default: RUN/tensorboard.")
    ] = None,
) -> None:
    """Convert a run for TensorBoard: curves as scalars, test images in grids, and the traces of its profiles.

    The extra `tensorboard` of cnnperf must be installed. The name of the written folder goes to stdout.

    Exit status: 0 success, 2 nothing to show.
    """
    from importlib.util import find_spec

    from cnnperf.reports import write_tensorboard

    if find_spec("tensorboard") is None:
        raise UsageError("TensorBoard is not installed; pip install 'cnnperf[tensorboard]'")
    folder = out or run / "tensorboard"
    write_tensorboard(run, folder)
    print(folder)
    print(f"open it with: tensorboard --logdir {folder}", file=sys.stderr)


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    add_command(app, tensorboard, "tensorboard --logdir $(cnnperf tensorboard results/cifar/<run>)")
