"""The commands that compare two versions: `cnnperf check`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

Format = StrEnum("Format", ["console", "markdown", "json"])


class ManyValues(TyperCommand):
    """A command whose list options take several values at once: `--baseline A B` is `--baseline A --baseline B`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the name of a list option before each further value."""
        names = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        repeated: list[str] = []
        name: str | None = None
        for arg in args:
            if arg.startswith("-"):
                name = arg if arg in names else None
            elif name and repeated[-1] != name:
                repeated.append(name)
            repeated.append(arg)
        return super().parse_args(ctx, repeated)


def check(
    *,
    baseline: Annotated[list[Path], typer.Option(metavar="RUN…", help="Run folders to hold the candidate to.")],
    candidate: Annotated[list[Path], typer.Option(metavar="RUN…", help="Run folders to judge.")],
    format: Annotated[Format, typer.Option(help="How to write it.")] = Format.console,  # noqa: A002 - the option's name
) -> None:
    """Hold stored runs to a baseline: counts exactly, memory of repeats within 5 %, accuracy by a test over them.

    Accuracy takes three trainings a side, as three repeats make, and a budget in steps or epochs; with fewer or others
    it is inconclusive, however far it fell. All engines of a run read its first training: theirs takes three runs a
    side of suites with seeds of their own.

    Times, and memory of a single process, are shown and judged by nothing: two runs apart in time cannot tell them. Exit
    status: 0 all the same or better, 1 anything worse, missing or failed, 3 anything inconclusive, 2 the runs cannot be
    compared.
    """
    from cnnperf.check import compare
    from cnnperf.verdict import WRITERS

    comparison = compare(baseline, candidate)
    WRITERS[format.value](comparison, sys.stdout)
    raise typer.Exit(comparison.exit_code)


def add_commands(app: typer.Typer) -> None:
    """Enter the commands of this file."""
    app.command(cls=ManyValues, epilog="Example: cnnperf check --baseline results/main/* --candidate results/mine")(
        check
    )
