"""The command that inspects the machine and tests the gate on it: `cnnperf doctor`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from cnnperf.cli.help import add_command
from cnnperf.cli.options import with_options
from cnnperf.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

MARK_STYLES = {"✓": "", "✗": "yellow", "?": "dim"}


def doctor(
    minutes: Annotated[
        float,
        typer.Option(metavar="M", help="Time limit of the test in minutes; 0: only the report."),
    ] = 20.0,
) -> None:
    """Report what disturbs measurements on this machine, and test the gate of `cnnperf ab` on it.

    The gate is the rule by which `cnnperf ab` decides whether a version is slower. The test compares five small cells
    with themselves in 8 replicates or more, then with themselves slowed by 5 % in 14 or more; a replicate of all five
    takes about 20 s. Later verdicts on this machine quote the result with its scope (CPU, one thread, training step,
    version of torch) and name what the test did not cover.

    Exit status: 0 no unchanged cell was called worse and the slowed cells were found, 1 an unchanged cell was called
    worse, a slowed cell was called the same, or a cell failed, 3 within the time limit, fewer than half of the
    unchanged cells were decided or fewer than 80 % of the slowed cells were found, 130 interrupted.
    """
    from rich.console import Console
    from rich.text import Text

    from cnnperf.machine.doctor import examine

    if not (math.isfinite(minutes) and minutes >= 0):
        raise UsageError(f"--minutes: got {minutes}; give a number, 0 or more (0: only the report)")
    console = Console(highlight=False, soft_wrap=True)
    for finding in examine():
        console.print(Text(str(finding), style=MARK_STYLES[finding.mark]))
    if minutes:
        raise typer.Exit(_gate_test(console, minutes))


def _gate_test(console: Console, minutes: float) -> int:
    from cnnperf.cli.screen import GateTestScreen, stderr
    from cnnperf.regression.gate_test import run_gate_test

    _say(f"gate test: two suites of five cells, {minutes:g} minutes at most; nothing else should run meanwhile")
    with GateTestScreen(stderr(), console).shown() as screen:
        tested = run_gate_test(minutes, screen)
    if tested is None:
        _say("interrupted; nothing was stored")
        return 130
    console.print()
    for line in (*tested.summary, tested.sentence):
        console.print(with_options(line))
    if tested.has_decided:
        _say(f"stored for later verdicts: {tested.save()}")
    else:
        _say("nothing was decided in that time, so nothing was stored; raise --minutes")
    return tested.exit_code


def _say(text: str) -> None:
    from cnnperf.cli.screen import say, stderr

    say(stderr(), text)


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    add_command(app, doctor, "cnnperf doctor", "cnnperf doctor --minutes 0")
