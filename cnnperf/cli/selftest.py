"""The command that compares this project's claims with independent readings on one device: `cnnperf selftest`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnnperf.cli.help import add_command
from cnnperf.cli.options import DEVICES, with_options
from cnnperf.units import amount_of, scaled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cnnperf.claims import CheckedFigure
    from cnnperf.running.selftest import ClaimOutcome, SelfTest

WIDTH = 150
"""Width of output that does not go to a terminal."""
MARKS = {"held": "held", "failed": "✗", "undecided": "?", "reported": "–", "skipped": "skipped"}
STYLES = {"held": "green", "failed": "bold red", "undecided": "yellow", "reported": "", "skipped": "dim"}


def selftest(
    *,
    device: Annotated[str, typer.Option(metavar="D", help=f"Device: {DEVICES}.")] = "cpu",
    minutes: Annotated[float, typer.Option(metavar="M", help="Time limit in minutes of all claims together.")] = 10.0,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="GLOB", help="Test only matching claims of `cnnperf list claims`, such as 'memory*'; default: all."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New folder for the readings; default: results/selftest/<utc>-<host>."),
    ] = None,
) -> None:
    """Compare each claim of this project with an independent reading on one device, and report which claims hold.

    A claim is a statement on what a printed number measures. The readings are independent of the tested code: another
    clock, the kernel's page tables, NVML, counts and loops written by hand, ONNX Runtime's own profile, deliberate
    changes. Each claim runs in a fresh process. The folder with all raw readings contains no paths or user names of
    this machine, only the host name, and can be sent with a bug report.

    In contrast, `cnnperf doctor` reports disturbances of measurements on this machine and tests the gate of
    `cnnperf ab`; `selftest` tests whether the numbers measure what their names state, on the given device.

    Exit status: 0 every applicable claim held, 1 a claim did not hold, 2 the device is missing, 3 a claim was not
    decided within the time limit, or none applies, 130 interrupted.
    """
    from rich.console import Console

    from cnnperf.cli.screen import ClaimScreen, stderr
    from cnnperf.running import selftest as library

    with ClaimScreen(stderr()).shown() as screen:
        test, folder = library.selftest(device=device, minutes=minutes, only=only, out=out, watcher=screen)
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH
    _print(console, test)
    print(f"all readings: {folder}", file=sys.stderr)
    raise typer.Exit(test.exit_code)


def _print(console: Console, test: SelfTest) -> None:
    from rich.text import Text

    threads = amount_of(test.threads, "thread")
    console.print(Text(f"{test.device} ({test.label}) · {threads} · {test.machine.host}", style="bold"))
    console.print(_table(test))
    console.print()
    for outcome in test.outcomes:
        for remark in _remarks(outcome):
            console.print(Text(f"{outcome.name}: {remark}", style=STYLES[outcome.ending]), soft_wrap=True)
    counts = {
        "held": test.count("held"),
        "did not hold": test.count("failed"),
        "undecided": test.count("undecided"),
        "only reported": test.count("reported"),
        "not applicable here": test.count("skipped"),
    }
    words = ", ".join(f"{count} {word}" for word, count in counts.items() if count or word == "held")
    number = len(test.outcomes)
    ended = "interrupted; " if test.interrupted else ""
    console.print(f"{ended}{amount_of(number, 'claim')}: {words} → exit {test.exit_code}")


def _table(test: SelfTest) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for head, justify in (
        ("claim", "left"),
        ("quantity", "left"),
        ("project's figure", "right"),
        ("independent reading", "right"),
        ("difference", "right"),
        ("bar", "right"),
        ("", "left"),
    ):
        table.add_column(head, justify=justify, overflow="fold", vertical="top")  # type: ignore[arg-type]
    for outcome in test.outcomes:
        for index, checked in enumerate(outcome.readings):
            table.add_row(
                "" if index else outcome.name,
                checked.quantity,
                _value(checked.figure, checked.unit),
                _value(checked.reading, checked.unit),
                _difference(checked),
                _bar(checked),
                Text(MARKS[checked.verdict], style=STYLES[checked.verdict]),
            )
        if not outcome.readings or outcome.fault or outcome.skipped:
            first = "" if outcome.readings else outcome.name
            table.add_row(first, "", "", "", "", "", Text(MARKS[outcome.ending], style=STYLES[outcome.ending]))
    return table


def _remarks(outcome: ClaimOutcome) -> list[str]:
    """Describe why a claim did not hold, is undecided or does not apply."""
    words = [with_options(word) for word in (outcome.fault, outcome.skipped) if word]
    for checked in outcome.readings:
        if checked.bar and checked.verdict in ("failed", "undecided"):
            is_what = "did not hold" if checked.verdict == "failed" else "is undecided"
            words.append(f"{checked.quantity}: {is_what} against {checked.source}; bar: {checked.bar.reason}")
    return words


def _value(value: float, unit: str) -> str:
    if unit == "count":
        return f"{value:,.0f}"
    return f"{value:.2g}" if unit == "1" else scaled(value, unit)


def _difference(checked: CheckedFigure) -> str:
    ends = checked.interval if checked.relative else None
    spread = f" [{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]" if ends else ""
    return _signed(checked, checked.difference) + spread


def _bar(checked: CheckedFigure) -> str:
    bar = checked.bar
    if bar is None:
        return "none"
    if bar.high is None:
        return f"≥ {_signed(checked, bar.low)}"
    if bar.low == bar.high == 0:
        return "equal"
    if bar.low == -bar.high:
        return f"±{_signed(checked, bar.high).lstrip('+')}"
    return f"{_signed(checked, bar.low)} … {_signed(checked, bar.high)}"


def _signed(checked: CheckedFigure, value: float) -> str:
    if checked.relative:
        return f"{100 * value:+.2g} %" if abs(value) < 0.1 else f"{100 * value:+.0f} %"
    if checked.unit == "fraction":
        return f"{100 * value:+.2g} points"
    return ("+" if value >= 0 else "-") + _value(abs(value), checked.unit)


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    add_command(
        app,
        selftest,
        "cnnperf selftest --device cuda",
        "cnnperf selftest --only 'memory*'",
        "cnnperf selftest --minutes 3 --out selftest",
    )
