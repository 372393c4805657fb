"""The command that compares two versions by measuring them in turns: `cnnperf ab`."""

from __future__ import annotations

import math
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnperf.cli.check import FORMAT, FormatOption
from cnnperf.errors import UsageError
from cnnperf.reports import VERDICTS, writer

if TYPE_CHECKING:
    from cnnperf.duet.sides import Arm
    from cnnperf.running.preflight import Prepared, Ready
    from cnnperf.suite import Suite


def ab(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A TOML file, or the name of a suite that ships.")],
    *,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="X",
            help="What to compare with: a git revision, a Python interpreter or a virtual environment. This "
            "tree, as it is, if absent.",
        ),
    ] = None,
    candidate: Annotated[
        str | None, typer.Option(metavar="Y", help="What to compare, given in the same ways. This tree if absent.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only cells whose id, dataset, model or device matches.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(metavar="M", min=0.0, help="Time limit in minutes; report what is decided by then."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Threads of each side, instead of the suite's.")
    ] = None,
    pairs: Annotated[
        int, typer.Option(metavar="N", help="Pairs of samples in a replicate at most, an even number from 12 to 60.")
    ] = 60,
    format: FormatOption = FORMAT,  # noqa: A002 - the option's name
    baseline_set: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="Change a setting of the suite for the baseline alone.")
    ] = None,
    candidate_set: Annotated[
        list[str] | None,
        typer.Option(metavar="K=V", help="… for the candidate alone: train.memory_format=contiguous."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Folder of the real images, as in cnnperf run.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for every sample; results/ab/<utc>-<host> if absent."),
    ] = None,
) -> None:
    """Tell whether a change made training or inference slower, by measuring both versions in turns.

    A replicate is a fresh pair of processes, one per version, that take turns sample by sample, so that the machine
    disturbs both alike. The metrics are the training step and the forward pass of every cell. In at most 1 run of 100
    is an unchanged cell-metric called worse, whatever the number of cells. How often a slowdown of 5 % is found
    depends on the number of cell-metrics and on the scatter of the replicates: with ten cell-metrics, one slower by
    5 % is called worse in 96 / 72 / 44 of 100 runs if the standard deviation is 3 / 4 / 5 %; a single cell-metric in
    98 / 92 / 76. The run prints its own figures. If --minutes allows for more than 22 replicates, up to about 40 are
    planned, before anything is measured. The outputs must agree: outputs further from a float64 run than ten times the
    other's, or losses that differ by over a thousandth after three steps, are an error. A setting that moves them less,
    such as a learning rate 1 % higher, is listed below the verdicts.

    SAME excludes a slowdown of 5 % at 95 %, over all looks together, and no smaller one. INCONCLUSIVE is never a
    pass. Exit status: 0 all the same or better, 1 anything worse, missing or an error, 3 anything inconclusive or
    nothing compared, 2 the request cannot be carried out, 130 interrupted.
    """
    from cnnperf.cli.screen import DuetScreen, stderr
    from cnnperf.duet.schedule import PAIRS
    from cnnperf.duet.sides import contests
    from cnnperf.regression import store
    from cnnperf.regression.gate import compare
    from cnnperf.regression.gate_verdict import comparison
    from cnnperf.regression.revisions import arm_of
    from cnnperf.running.runner import folder_to_make
    from cnnperf.suite import load_suite

    write = writer(format, VERDICTS)
    chosen = load_suite(suite).narrowed(only=only, stages=["train"]).model_copy(update={"repeats": 1})
    if minutes is not None and not math.isfinite(minutes):
        raise UsageError(f"--minutes: {minutes} is not a time limit; give a number, or leave it out")
    if pairs not in range(PAIRS[0], PAIRS[1] + 1, 2):
        raise UsageError(
            f"--pairs: {pairs} is not a number of pairs; give an even number from {PAIRS[0]} to {PAIRS[1]}"
        )
    if threads is not None:
        chosen = chosen.model_copy(update={"threads": threads})
    folder = folder_to_make(chosen.model_copy(update={"name": "ab"}), out, store.FILE)
    assigned = baseline_set or [], candidate_set or []
    changed = [_changed(chosen, *each) for each in zip(assigned, ("--baseline-set", "--candidate-set"), strict=True)]
    with ExitStack() as stack:
        arms = [
            _named(stack.enter_context(arm_of(text, option, beside=other)), assignments)
            for text, option, other, assignments in (
                (baseline, "--baseline", candidate, assigned[0]),
                (candidate, "--candidate", baseline, assigned[1]),
            )
        ]
        tasks = [_prepared(each, suite, only, data).tasks for each in (changed if any(assigned) else changed[:1])]
        notes = (*_unchanged(tasks, assigned), *_skipped(tasks[0]))
        screen = DuetScreen(stderr())
        with screen.shown():
            result = compare(
                arms[0],
                arms[1],
                contests(tasks[0], tasks[-1]),
                minutes=minutes,
                folder=folder,
                watcher=screen,
                patience=_patience(chosen.timeout_s),
                pairs=pairs,
            )
    shown = comparison(result)
    shown = shown.model_copy(update={"notes": (*notes, *shown.notes)})
    write(shown, sys.stdout)
    raise typer.Exit(130 if result.interrupted else shown.exit_code)


def _changed(suite: Suite, assignments: list[str], option: str) -> Suite:
    """Return the suite with settings changed as `train.memory_format=channels_last` says."""
    from cnnperf.duet.sides import UNTIMED
    from cnnperf.registry import unknown

    sections = {stage: dict(section) for stage, section in suite.sections.items()}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        stage, dot, name = key.strip().partition(".")
        if not (equals and dot and name):
            raise UsageError(f"{option}: {assignment!r} must be section.key=value, such as train.optimizer=sgd")
        if stage != "train":  # The forward pass, too, is measured as training has it.
            raise UsageError(f"{option}: {unknown('section', stage, ['train'])}")
        if name in UNTIMED:
            raise UsageError(
                f"{option}: {assignment} changes nothing that is measured, which is a training step and a forward "
                "pass; change another setting, or compare runs with cnnperf check"
            )
        sections.setdefault(stage, {})[name] = _value(value)
    return suite.model_copy(update={"sections": sections})


def _value(text: str) -> Any:
    """Read a value as TOML does; what is none there is a string without its quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _prepared(suite: Suite, where: str, only: str | None, data: Path | None) -> Prepared:
    from cnnperf.cli.screen import View, stderr
    from cnnperf.running.preflight import Request, prepare

    with View(stderr()).shown() as screen:
        return prepare(Request(suite=suite, where=where, only=only, data=data), screen.downloading)


def _named(arm: Arm, assignments: list[str]) -> Arm:
    """Return the arm with what is set for it in its name."""
    return arm.model_copy(update={"name": f"{arm.name} with {', '.join(assignments)}"}) if assignments else arm


def _unchanged(tasks: Sequence[Sequence[Ready]], assigned: tuple[list[str], list[str]]) -> Iterator[str]:
    """Yield where an assignment changes nothing. Raises UsageError for one that changes nothing at all."""
    for option, assignments in zip(("--baseline-set", "--candidate-set"), assigned, strict=True):
        for assignment in assignments:
            name = assignment.partition("=")[0].strip().partition(".")[2]
            pairs = [(one.task, other.task) for one, other in zip(*tasks, strict=True)]
            alike = [one.cell.id for one, other in pairs if one.settings[name] == other.settings[name]]
            if len(alike) == len(pairs):
                raise UsageError(
                    f"{option}: {assignment} changes nothing: {name} is {pairs[0][0].settings[name]!r} for baseline "
                    "and candidate already; set something else, or compare two revisions"
                )
            if alike:
                yield f"{assignment} changes nothing in {', '.join(alike)}: the same on both sides there"


def _skipped(tasks: Sequence[Ready]) -> Iterator[str]:
    """Yield what cannot be compared on this machine, and why."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for each in tasks:
        if each.skip:
            reasons[each.skip].append(each.task.cell.id)
    for reason, cells in reasons.items():
        yield f"not compared: {', '.join(cells)}: {reason}"


def _patience(timeout_s: float) -> Any:
    """Return how long to wait for a silent worker: what the suite says of a task, and no longer than makes sense."""
    from cnnperf.duet.pair import Patience

    return Patience(*(min(seconds, timeout_s) for seconds in Patience()))


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    app.command(
        epilog="Examples: cnnperf ab ci --baseline origin/main --candidate HEAD · cnnperf ab my.toml --candidate-set "
        "train.memory_format=contiguous · cnnperf ab my.toml --baseline old/bin/python --candidate new/bin/python"
    )(ab)
