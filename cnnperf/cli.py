"""The command line: thin commands over the library; stdout carries the result, stderr everything else."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnperf import cli_check
from cnnperf.errors import CnnperfError, CnnperfWarning, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from cnnperf.preflight import Prepared, Request
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

Format = StrEnum("Format", ["console", "csv", "json", "markdown"])
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
    from cnnperf.preflight import Request
    from cnnperf.suite import load_suite

    chosen = load_suite(suite)
    if require_real_data:
        chosen = chosen.model_copy(update={"require_real_data": True})
    chosen = chosen.narrowed(only=only, device=device, stages=stages.split(",") if stages is not None else None)
    request = Request(suite=chosen, where=suite, only=only, data=data, quick=quick, download=not dry_run)
    prepared = _prepared(request)
    if dry_run:
        _print_plan(prepared, resume)
    else:
        _execute(chosen, prepared, _run_folder(chosen, out, resume), suite)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders, one or more.")],
    format: Annotated[Format, typer.Option(help="How to write it.")] = Format.console,  # noqa: A002 - the option's name
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Sort by this column of leaderboard.csv, best first.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to this file instead of stdout.")] = None,
) -> None:
    """Make the tables again from the records of earlier runs."""
    from cnnperf.leaderboard import report_of
    from cnnperf.registry import find

    table, write = report_of(runs, by=by), find("reports", format.value)
    if out is None:
        write(table, sys.stdout)
        return
    try:
        with open(out, "w", encoding="utf-8", newline="") as file:
            write(table, file)
    except OSError as error:
        raise UsageError(f"--out: {out}: cannot be written ({error.strerror}); give another file") from error


@app.command("list")
def list_(
    room: Annotated[str, typer.Argument(metavar="ROOM", help="models, datasets, devices, stages, reports or suites.")],
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


cli_check.add_commands(app)


def _print_answer(verb: str, datasets: list[str], data: Path | None) -> None:
    from cnnperf.preflight import DataRequest, ask_data

    with _downloads() as downloading:
        for dataset in datasets:
            print(ask_data(DataRequest(verb=verb, dataset=dataset, data=data), downloading))


def _prepared(request: Request) -> Prepared:
    from cnnperf.preflight import prepare

    with _downloads() as downloading:
        prepared = prepare(request, downloading)
    for text in prepared.warnings:
        warnings.warn(text, CnnperfWarning, stacklevel=1)
    return prepared


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


def _execute(suite: Suite, prepared: Prepared, folder: Path, argument: str) -> None:
    from cnnperf.live import Screen
    from cnnperf.runner import execute, pending

    tasks = pending(prepared.tasks, folder)
    screen = Screen(_stderr(), tasks)
    try:
        with _terminable(), screen.shown():
            for _ in execute(tasks, folder, screen):
                pass
    except KeyboardInterrupt:
        _print_results(folder)
        print(f"interrupted; go on with: cnnperf run {argument} --resume {folder}", file=sys.stderr)
        raise typer.Exit(130) from None
    if not _print_results(folder):
        raise typer.Exit(1)


def _print_results(folder: Path) -> bool:
    """Write the run's CSV files, show its leaderboard, and tell whether every task went well."""
    from cnnperf.leaderboard import report_of, summary
    from cnnperf.record import FILE, read
    from cnnperf.registry import find

    if not (folder / FILE).exists():
        return False
    records, table = read(folder), report_of([folder])
    find("reports", "csv")(table, folder)
    find("reports", "console")(table, sys.stdout)
    print(f"{summary(records)}\n{folder / 'leaderboard.csv'}", file=sys.stderr)
    return all(record.status in ("ok", "skipped") for record in records)


def _print_plan(prepared: Prepared, resume: Path | None) -> None:
    from cnnperf.live import clock
    from cnnperf.runner import pending

    tasks = pending(prepared.tasks, resume) if resume else prepared.tasks
    for ready in tasks:
        note = f"skipped: {ready.skip}" if ready.skip else f"about {clock(ready.estimate_s)}"
        print(f"{ready.task.label}  {note}")
    seconds = sum(ready.estimate_s for ready in tasks)
    mebibytes = sum(ready.weight_bytes for ready in tasks) / 2**20
    print(f"{len(tasks)} tasks, about {seconds / 60:.1f} minutes, about {mebibytes:.0f} MiB of weights")
    if prepared.download_bytes:
        print(f"to be downloaded: {prepared.download_bytes / 2**20:.0f} MiB")


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def _downloads() -> Iterator[Any]:
    """Show a bar on stderr for each dataset that is being downloaded."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(*columns, TimeRemainingColumn(), console=_stderr(), transient=True)
    bars: dict[str, Any] = {}

    def downloading(name: str, done: int, total: int) -> None:
        if name not in bars:
            progress.start()
            bars[name] = progress.add_task(f"downloading {name}", total=total)
        progress.update(bars[name], completed=done)

    try:
        yield downloading
    finally:
        if bars:
            progress.stop()


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does: the child stopped, the records kept."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **rest: Any) -> None:
    print(f"cnnperf: warning: {message}" if issubclass(category, CnnperfWarning) else message, file=sys.stderr)
