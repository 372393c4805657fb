"""The commands of accuracy records: `cnnperf record SUITE`, `cnnperf record verify`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cnnperf.accuracy_record import LEVEL, RECORDS, SEEDS, SEEDS_AGAIN
from cnnperf.cli.data import DataOption
from cnnperf.cli.help import add_command
from cnnperf.cli.options import AllowBusyOption, JsonOption, QuietOption
from cnnperf.cli.run import resume_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnperf.accuracy_record.claim import ClaimTest
    from cnnperf.accuracy_record.folder import AccuracyRecord


class DefaultMake(TyperGroup):
    """A group in which `make` needs no name: `cnnperf record SUITE` is `cnnperf record make SUITE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `make` before the arguments of no command."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["make", *args]
        return super().parse_args(ctx, args)


def make(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A TOML file, or a name from `cnnperf list suites`.")],
    *,
    cell: Annotated[
        str, typer.Option(metavar="CELL", help="Dataset/model/device of the suite, or a glob that matches one cell.")
    ],
    target: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the test images that the mean must exceed, such as 0.85; default: the mean of the standing "
            "record.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Seeds to train, from the suite's first one on.")] = SEEDS,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the record; default: the network's.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Threads of each training; default: the suite's.")
    ] = None,
    data: DataOption = None,
    into: Annotated[Path, typer.Option(metavar="DIR", help="Folder of all records.")] = RECORDS,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Run folder of an interrupted attempt; seeds that it has trained are kept. Default: a new run.",
        ),
    ] = None,
    allow_busy: AllowBusyOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a record: train the seeds of one cell, and test whether their mean test accuracy is above a target.

    The test is one-sided, p < 0.01: Student's t-test against the target, Welch's against the seeds of the standing
    record of the same dataset, budget and device. If the claim holds, DIR gets a folder with all that others need to
    check it, and a new README.md with the rules and the table of all records.

    Exit status: 0 the claim holds, 1 it does not or a seed failed, 2 the request cannot be carried out, 3 more seeds
    are needed, 130 interrupted.
    """
    from cnnperf.cli.screen import Screen, say, stderr
    from cnnperf.measuring.record import make_record

    messages = stderr(quiet=quiet)
    screen = Screen(messages)
    try:
        with screen.shown():
            attempt = make_record(
                suite,
                cell,
                target=target,
                seeds=seeds,
                name=name,
                threads=threads,
                data=data,
                into=into,
                resume=resume,
                allow_busy=allow_busy,
                watcher=screen,
            )
    except KeyboardInterrupt:
        if screen.folder is None:
            raise
        print(f"interrupted; resume with: {resume_command(screen.folder)}", file=sys.stderr)
        raise typer.Exit(130) from None
    record, folder = attempt.record, attempt.folder and str(attempt.folder)
    if as_json:
        _print_json({**_document(record, attempt.test), "folder": folder, "run": str(attempt.run)})
    else:
        print("\n".join(_lines(record, record.accuracies, attempt.test)))
    say(messages, attempt.folder or f"no record was written; the run is {attempt.run}")
    raise typer.Exit(attempt.test.exit_code)


def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a record, with its record.json.")],
    *,
    seeds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help=f"How many of the record's seeds to train again, from the first on; default: {SEEDS_AGAIN}, or all.",
        ),
    ] = None,
    data: DataOption = None,
    allow_busy: AllowBusyOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Verify a record: check its folder, train some of its seeds again, and say whether its claim holds here.

    The folder is checked first: every figure must follow from its records, and its source must be unchanged. The
    seeds are trained with the record's settings by the code of this version; a difference of the source is a warning.

    Exit status: 0 the claim holds, 1 it does not or a seed failed, 2 the folder is damaged or the request cannot be
    carried out, 3 more seeds are needed, 130 interrupted.
    """
    from cnnperf.cli.screen import Screen, say, stderr
    from cnnperf.measuring.record import verify_record

    messages = stderr(quiet=quiet)
    screen = Screen(messages)
    try:
        with screen.shown():
            found = verify_record(folder, seeds=seeds, data=data, allow_busy=allow_busy, watcher=screen)
    except KeyboardInterrupt:
        if screen.folder is None:
            raise
        print(f"interrupted; what was measured is in {screen.folder}", file=sys.stderr)
        raise typer.Exit(130) from None
    here = {
        "seeds": found.seeds,
        "accuracies": found.accuracies,
        "difference": found.difference,
        "low": found.interval.low,
        "high": found.interval.high,
        "changed_sources": found.changed,
    }
    if as_json:
        _print_json({**_document(found.record, found.test), "here": here, "run": str(found.run)})
    else:
        low, high = (f"{100 * end:+.2f}" for end in found.interval)
        print("\n".join(_lines(found.record, found.accuracies, found.test)))
        print(
            f"here minus the record's {100 * found.record.mean:.2f} % of {len(found.record.seeds)} seeds: "
            f"{100 * found.difference:+.2f} points [{low}, {high}]"
        )
    say(messages, found.run)
    raise typer.Exit(found.test.exit_code)


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    group = typer.Typer(
        cls=DefaultMake,
        help="Records of accuracy that others can check: `cnnperf record SUITE` makes one, as `make` does.",
        no_args_is_help=True,
    )
    add_command(
        group,
        make,
        "cnnperf record make cifar --cell cifar10/speedrun/cpu --target 0.85",
        "cnnperf record make cifar --cell '*/speedrun/cpu' --resume RUN",
    )
    add_command(group, verify, "cnnperf record verify FOLDER --seeds 5")
    app.add_typer(group, name="record")


def _lines(record: AccuracyRecord, accuracies: Sequence[float], test: ClaimTest) -> list[str]:
    """Return the result in words. accuracies: those of this machine, which the test is about."""
    from statistics import fmean, stdev

    from cnnperf.units import amount_of

    words = {"holds": f"holds (p = {test.p:.2g} < {LEVEL:g})", "fails": "does not hold"}
    undecided = f"is undecided (p = {test.p:.2g}, not below {LEVEL:g}); more seeds may decide it"
    facts = (record.task.cell.id, record.budget, amount_of(record.task.threads or 1, "thread"))
    return [
        " · ".join((*facts, amount_of(len(accuracies), "seed"))),
        f"mean test accuracy {100 * fmean(accuracies):.2f} % of {record.test_images:,} images, standard deviation "
        f"{100 * stdev(accuracies):.2f} points",
        f"{record.claim.words}: {words.get(test.outcome, undecided)}",
    ]


def _document(record: AccuracyRecord, test: ClaimTest) -> dict[str, Any]:
    """Return the result as a document: the record's summary without machine, task and source, and the test."""
    summary = record.model_dump(mode="json", by_alias=True, exclude={"machine", "task", "sources"})
    tested = {"outcome": test.outcome, "excess": test.excess, "p": test.p, "p_below": test.p_below}
    return {"cell": record.task.cell.id, "record": summary, "test": tested}


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
