"""The command line: thin commands over the library; stdout carries the result, stderr everything else."""

from __future__ import annotations

import shlex
import signal
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnperf import cli_ab, cli_check, cli_doctor, cli_infer, cli_profile, cli_tensorboard
from cnnperf.errors import CnnperfError, CnnperfWarning, RunError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnperf.preflight import Prepared, Request
    from cnnperf.record import Record, Status
    from cnnperf.suite import Suite

app = typer.Typer(
    help="Benchmark convolutional networks: trained on real data, each in its own process, every raw sample kept.",
    epilog="Begin with: cnnperf run quickstart",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Fetch the real images, or check those that are there.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Format = StrEnum("Format", ["console", "csv", "html", "json", "markdown"])
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder in torchvision's layout (MNIST/raw, cifar-10-batches-py). "
        "Looked up before $CNNPERF_DATA and the cache; never written to.",
    ),
]


def main() -> None:
    """Run the command line; a fault the user can mend ends as one sentence and its exit code."""
    warnings.showwarning = _show_warning
    # SIGTERM ends a command as Ctrl-C does: the child stopped, the records kept.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except CnnperfError as error:
        print(f"cnnperf: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(f"cnnperf {version_of('cnnperf')}")
        raise typer.Exit


@app.command(epilog="Examples: cnnperf run cifar --device cpu --only 'resnet*' · cnnperf run my.toml --dry-run")
def run(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A TOML file, or the name of a suite that ships.")],
    *,
    only: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="Only cells whose id, dataset, model or device matches: 'cifar10/resnet*'."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="D", help="Run on this device instead of the suite's: cpu, cuda.")
    ] = None,
    stages: Annotated[
        str | None, typer.Option(metavar="A,B", help="Run these stages instead of the suite's, in this order.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Run each task so often, instead of as the suite says.")
    ] = None,
    data: DataOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run folder to make; results/<suite>/<utc>-<host> if absent."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Go on with a run folder: what is ok there and unchanged is not run again."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Cut every budget to a few seconds, one repeat each.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, how long and how large.")] = False,
    require_real_data: Annotated[
        bool,
        typer.Option("--require-real-data", help="Refuse synthetic images where the real ones cannot be had."),
    ] = False,
) -> None:
    """Run a suite: train each network on each dataset and device, and rank them.

    The leaderboard goes to stdout; records, CSV files, logs and weights go to the run folder. Exit status: 0 all done,
    1 a task failed, 2 the request cannot be carried out, 130 interrupted.
    """
    start = perf_counter()
    from cnnperf.live import planned
    from cnnperf.preflight import Request
    from cnnperf.runner import pending
    from cnnperf.suite import load_suite

    chosen = load_suite(suite)
    if require_real_data:
        chosen = chosen.model_copy(update={"require_real_data": True})
    named = stages.split(",") if stages is not None else None
    chosen = chosen.narrowed(only=only, device=device, stages=named, repeats=repeats)
    request = Request(suite=chosen, where=suite, only=only, data=data, quick=quick, download=not dry_run)
    folder = _run_folder(chosen, out, resume)
    prepared = _prepared(request)
    if dry_run:
        print("\n".join(planned(pending(prepared.tasks, folder), prepared.downloads)))
    else:
        _execute(prepared, folder, start)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders, one or more.")],
    format: Annotated[Format, typer.Option(help="How to write it.")] = Format.console,  # noqa: A002 - the option's name
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Sort by this column of leaderboard.csv, best first.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write to this file instead of stdout; csv takes a folder for all tables."),
    ] = None,
) -> None:
    """Make the tables again from the records of earlier runs, or a page with plots: --format html --out page.html."""
    from cnnperf.leaderboard import report_of
    from cnnperf.registry import find

    table, write = report_of(runs, by=by), find("reports", format.value)
    if out is None:
        write(table, sys.stdout)
        return
    try:
        if format == Format.csv and out.is_dir():
            write(table, out)
            return
        with open(out, "w", encoding="utf-8", newline="") as file:
            write(table, file)
    except OSError as error:
        raise UsageError(f"--out: {out}: cannot be written ({error.strerror}); give another file") from error


@app.command("list")
def list_(
    room: Annotated[
        str, typer.Argument(metavar="ROOM", help="models, datasets, devices, engines, stages, reports or suites.")
    ],
) -> None:
    """List the names a suite can use, one a line."""
    from cnnperf.registry import VERBS, names, unknown
    from cnnperf.suite import shipped

    if room != "suites" and room not in VERBS:
        raise UsageError(unknown("room", room, [*VERBS, "suites"]))
    for name in shipped() if room == "suites" else names(room):
        print(name)


@data_app.command()
def fetch(
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET…", help="mnist, cifar10.")],
    data: DataOption = None,
) -> None:
    """Download datasets into the cache folder, unless they are there already, and check them."""
    _print_answer("fetch", datasets, data)


@data_app.command()
def verify(
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET…", help="mnist, cifar10.")],
    data: DataOption = None,
) -> None:
    """Check every file of the datasets against its checksum."""
    _print_answer("verify", datasets, data)


@app.command()
def schema() -> None:
    """Print the JSON schema of suite files, for editors that complete and check TOML."""
    from cnnperf.preflight import ask

    print(ask("--schema", ""))


cli_profile.add_commands(app)
cli_infer.add_commands(app)
cli_tensorboard.add_commands(app)
cli_check.add_commands(app)
cli_ab.add_commands(app)
cli_doctor.add_commands(app)


def _print_answer(verb: str, datasets: list[str], data: Path | None) -> None:
    from cnnperf.live import downloads, stderr
    from cnnperf.preflight import DataRequest, ask_data

    with downloads(stderr()) as downloading:
        for dataset in datasets:
            print(ask_data(DataRequest(verb=verb, dataset=dataset, data=data), downloading))


def _prepared(request: Request) -> Prepared:
    from cnnperf.live import downloads, stderr
    from cnnperf.preflight import prepare

    with downloads(stderr()) as downloading:
        return prepare(request, downloading)


def _run_folder(suite: Suite, out: Path | None, resume: Path | None) -> Path:
    from cnnperf.record import FILE
    from cnnperf.runner import new_folder

    if out and resume:
        raise UsageError("--out and --resume both name the run folder; give one of them")
    if resume and not (resume / FILE).is_file():
        raise UsageError(f"--resume: {resume} holds no {FILE}; give the folder of an earlier run")
    if out and (out / FILE).exists():
        raise UsageError(f"--out: {out} holds a run already; give --resume {out} to go on with it, or another folder")
    return resume or out or new_folder(suite)


def _execute(prepared: Prepared, folder: Path, start: float) -> None:
    """Run what is pending and show the results; `start` is when the command began, by the clock of perf_counter."""
    from cnnperf.live import Screen, stderr
    from cnnperf.runner import execute, pending

    tasks = pending(prepared.tasks, folder)
    screen = Screen(stderr(), tasks)
    made: list[Record] = []
    try:
        with screen.shown():
            made.extend(execute(tasks, folder, screen))
    except KeyboardInterrupt:
        _print_results(folder)
        _print_shares(made, start)
        print(f"interrupted; go on with: {_resume_command(folder)}", file=sys.stderr)
        raise typer.Exit(130) from None
    ended = _print_results(folder)
    _print_shares(made, start)
    if any(ended[ready.task.key] not in ("ok", "skipped") for ready in prepared.tasks):
        raise typer.Exit(1)


def _print_results(folder: Path) -> dict[str, Status]:
    """Write the run's CSV files, show its leaderboard, and return how each task ended, by its key."""
    from cnnperf.leaderboard import report_of
    from cnnperf.record import FILE, read
    from cnnperf.registry import find

    if not (folder / FILE).exists():
        return {}
    records, table = read(folder), report_of([folder])
    try:
        find("reports", "csv")(table, folder)
    except OSError as error:
        cure = f"the records are kept: make room, then cnnperf report {folder}"
        raise RunError(f"{folder}: the tables cannot be written ({error.strerror}); {cure}") from error
    find("reports", "console")(table, sys.stdout)
    print(folder / f"{table.tables[0].name}.csv", file=sys.stderr)
    return {record.key: record.status for record in records}


def _print_shares(made: Sequence[Record], start: float) -> None:
    """Say what the time of a command went into, if it trained."""
    from cnnperf.leaderboard import summary

    if any(record.task.stage == "train" for record in made):
        print(summary(made, perf_counter() - start), file=sys.stderr)


def _resume_command(folder: Path) -> str:
    """Word the command that goes on with a run: this one, its other options kept."""
    kept, words = [], iter(sys.argv[1:])
    for word in words:
        if word in ("--out", "--resume"):
            next(words)
        elif not word.startswith(("--out=", "--resume=")):
            kept.append(word)
    return shlex.join(["cnnperf", *kept, "--resume", str(folder)])


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **rest: Any) -> None:
    print(f"cnnperf: warning: {message}" if issubclass(category, CnnperfWarning) else message, file=sys.stderr)
