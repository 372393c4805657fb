"""The command that compares stored runs: `cnnperf check`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnperf.cli.help import FLAG, Command, add_command
from cnnperf.cli.options import JsonOption
from cnnperf.errors import UsageError
from cnnperf.reports import VERDICTS, default_format, formats, writer

if TYPE_CHECKING:
    from cnnperf.regression.verdict import Comparison

VERDICTS_FORMAT = default_format(VERDICTS)
JSON = "json"
"""The format that `--json` names."""
FormatOption = Annotated[
    str,
    typer.Option(metavar="F", help=f"Format of the output: {', '.join(formats(VERDICTS))}, or pkg.module:function."),
]


QuietVerdictsOption = Annotated[
    bool,
    typer.Option("--quiet", metavar=FLAG, help="Print verdicts, warnings and errors only: no progress and no notes."),
]


def verdicts_writer(
    format: str,  # noqa: A002 - the option's name
    *,
    as_json: bool,
    quiet: bool,
) -> Callable[[Comparison], None]:
    """Return the function that prints verdicts in a format or as JSON; a document has notes also if it is quiet.

    Raises UsageError for an unknown format, or for two.
    """
    if as_json and format not in (VERDICTS_FORMAT, JSON):
        raise UsageError("--json is --format json; give one of them")
    name = JSON if as_json else format
    write = writer(name, VERDICTS)

    def printed(comparison: Comparison) -> None:
        is_short = quiet and name != JSON
        write(comparison.model_copy(update={"notes": ()}) if is_short else comparison, sys.stdout)

    return printed


class ManyValues(Command):
    """A command whose list options take several values: `--baseline A B` means `--baseline A --baseline B`."""

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
    baseline: Annotated[
        list[Path],
        typer.Option(
            metavar="RUN…",
            help="One or more run folders of the baseline, or names from `cnnperf list references`; or JSON files of "
            "pytest-benchmark.",
        ),
    ],
    candidate: Annotated[list[Path], typer.Option(metavar="RUN…", help="One or more run folders of the candidate.")],
    format: FormatOption = VERDICTS_FORMAT,  # noqa: A002 - the option's name
    as_json: JsonOption = False,
    quiet: QuietVerdictsOption = False,
) -> None:
    """Compare stored runs with a baseline: counts exactly, memory within 5 %, accuracy by a test over repeats.

    The test of accuracy needs three trainings per side (three repeats) and a budget in steps or epochs that no target
    ends early (stop_at_target = false); otherwise the accuracy is inconclusive, however large the drop. All engines of
    a run use its first training: if the accuracy of the trainings is tested, that of the engines is only indicative;
    otherwise an engine needs three runs per side, with different seeds.

    A reference, such as reference/cifar, is of another machine: threads may differ, memory is only shown, and what the
    candidate did not run is left out.

    JSON files of pytest-benchmark can be given in place of runs, on both sides: their times are listed and not judged.

    Times, and memory measured in one process only, are shown but not judged: speeds of separate runs are not
    comparable.

    Exit status: 0 all the same or better, 1 anything worse, missing or failed, 2 the runs cannot be compared, 3
    anything inconclusive or nothing compared.
    """
    from cnnperf.regression.check import compare

    show_verdicts = verdicts_writer(format, as_json=as_json, quiet=quiet)
    comparison = compare(baseline, candidate)
    show_verdicts(comparison)
    raise typer.Exit(comparison.exit_code)


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    add_command(
        app,
        check,
        "cnnperf check --baseline results/main/* --candidate results/mine",
        "cnnperf check --baseline reference/cifar --candidate results/cifar/<run>",
        cls=ManyValues,
    )
