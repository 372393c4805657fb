"""The command that looks at the machine and tests the gate on it: `cnnperf doctor`."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Annotated

import typer

from cnnperf.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from cnnperf.gate import Result

MARK_STYLES = {"✓": "", "✗": "yellow", "?": "dim"}


def doctor(
    minutes: Annotated[
        float, typer.Option(metavar="M", min=0.0, help="How long both suites may take together; 0: the report alone.")
    ] = 20.0,
) -> None:
    """Say what about this machine disturbs measurements, and test the gate of `cnnperf ab` on it.

    The test measures five small cells in turns, once against themselves and once against themselves slowed by 5 %. It
    needs about a third of a minute for each of 14 replicates a suite or more. Later verdicts on this machine quote
    what it came to, with its scope (CPU, one thread, training step, version of torch) and what of theirs it did not
    test. Exit status: 0 nothing unchanged was called worse and the slowed were found, 1 something unchanged was
    called worse or something slowed the same, or a cell failed, 3 fewer than half of the unchanged were decided or
    fewer than 80 % of the slowed found in that time, 130 interrupted.
    """
    from rich.console import Console
    from rich.text import Text

    from cnnperf.doctor import examine

    if not math.isfinite(minutes):
        raise UsageError(f"--minutes: {minutes} is no length of time; give a number, 0 for the report alone")
    console = Console(highlight=False, soft_wrap=True)
    for finding in examine():
        console.print(Text(str(finding), style=MARK_STYLES[finding.mark]))
    if minutes:
        raise typer.Exit(_self_test(console, minutes))


def _self_test(console: Console, minutes: float) -> int:
    from cnnperf.live import DuetScreen, stderr
    from cnnperf.rehearsal import CANDIDATES, cells, outcome, rehearse

    _say(f"self-test: two suites of five cells, {minutes:g} minutes at most; nothing else should run meanwhile")
    end, ready = time.monotonic() + 60 * minutes, cells()
    results: list[Result] = []
    for title, candidate in CANDIDATES.items():
        _say(title)
        left = max(0.0, end - time.monotonic()) / 60
        screen = DuetScreen(stderr())
        with screen.shown():
            result = rehearse(ready, candidate, left / (len(CANDIDATES) - len(results)), screen)
        _show(console, title, result)
        if result.interrupted:
            _say("interrupted; nothing was stored")
            return 130
        results.append(result)
    tested = outcome(*results)
    console.print()
    for line in (*tested.summary, tested.sentence):
        console.print(line)
    if tested.has_decided:
        _say(f"stored for later verdicts: {tested.save()}")
    else:
        _say("nothing was decided in that time, so nothing was stored; give it more minutes")
    return tested.exit_code


def _show(console: Console, title: str, result: Result) -> None:
    from cnnperf.gate_verdict import comparison
    from cnnperf.verdict import lines

    console.print(f"\n{title}")
    for line in lines(comparison(result).verdicts):
        console.print(line)
    if any(result.played.values()):
        console.print(f"noise: {result.noise()}")


def _say(text: str) -> None:
    from rich.text import Text

    from cnnperf.live import stderr

    stderr().print(Text(text), soft_wrap=True, highlight=False)


def add_commands(app: typer.Typer) -> None:
    """Enter the command of this file."""
    app.command(epilog="Examples: cnnperf doctor · cnnperf doctor --minutes 0")(doctor)
