"""Report formats. One file per format; `write(report: Report, out: TextIO)`.

A file may declare further properties of its format, which `registry.declared` reads:

IS_DEFAULT = True           commands print this format by default
SUFFIX = ".csv"             `write` also takes a folder, and writes several files, of this suffix
IN_RUN_FOLDER = True        every run folder gets its tables in this format
    write_verdicts(comparison: Comparison, out: TextIO)
    write_selection(selection: Selection, out: TextIO)
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnperf import registry
from cnnperf.errors import CnnperfError, RunError, UsageError, shorten

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from cnnperf.regression.verdict import Verdict
    from cnnperf.tables.choice import Selection
    from cnnperf.tables.dictionary import DescribedTable
    from cnnperf.tables.engine_layers import Join
    from cnnperf.tables.layers import LayerProfile
    from cnnperf.tables.table import Report

REPORT, VERDICTS, SELECTION = "write", "write_verdicts", "write_selection"
"""Kinds of output that a format can write, by function name."""


def formats(verb: str = REPORT) -> tuple[str, ...]:
    """List the formats that can write a report, verdicts or a choice."""
    return registry.having("reports", verb)


def default_format(verb: str = REPORT) -> str:
    """Return the name of the default format of commands."""
    return next(name for name in formats(verb) if registry.declared("reports", name).get("IS_DEFAULT"))


def writer(format: str, verb: str = REPORT) -> Callable[..., None]:  # noqa: A002 - the option's name
    """Return the function of a format: of a file of the room, or of another package.

    `pkg.module:attribute` names the function; a format that a package registers has the function in its module.
    Raises UsageError if the format does not exist or lacks the function; that of another package raises it if it fails.
    """
    if format in formats(verb):
        own: Callable[..., None] = getattr(registry.module("reports", format), verb)
        return own
    others = registry.registered("reports")
    if format in registry.names("reports"):
        raise UsageError(f"`format`: {registry.unknown('format', format, (*formats(verb), *others))}")
    if absent := registry.unknown_in("reports", format, "format"):
        raise UsageError(f"`format`: {absent}")
    is_other_verb = verb != REPORT and format in others
    name = f"{others[format].place.partition(':')[0]}:{verb}" if is_other_verb else format
    try:
        return partial(_written, format, registry.find("reports", name, folder=Path.cwd()))
    except UsageError as error:
        raise UsageError(f"`format`: {error}") from error


def _written(format: str, write: Callable[..., None], *given: Any) -> None:  # noqa: A002 - the option's name
    """Call the function of another package. Raises UsageError with the place in its code if it fails."""
    try:
        write(*given)
    except (CnnperfError, BrokenPipeError):
        raise
    except (Exception, SystemExit) as error:
        *_, last = traceback.extract_tb(error.__traceback__)
        place = f"{Path(last.filename).name}, line {last.lineno}"
        raise UsageError(
            f"`format`: {shorten(format, 100)!r} failed ({type(error).__name__}: {shorten(error)}; {place}); "
            "correct its code"
        ) from error


def takes_folder(name: str) -> bool:
    """Return whether a format writes a folder of several files."""
    return "SUFFIX" in registry.declared("reports", name)


def show(report: Report, *, as_json: bool = False) -> None:
    """Print a report on stdout, in the default format or as JSON."""
    writer("json" if as_json else default_format())(report, sys.stdout)


def show_selection(selection: Selection, *, as_json: bool = False) -> None:
    """Print a choice on stdout, in the default format or as JSON."""
    writer("json" if as_json else default_format(SELECTION), SELECTION)(selection, sys.stdout)


def show_layers(profile: LayerProfile, *, by: str | None, depth: int | None) -> None:
    """Print one profile on stdout. by, depth: as in `cnnperf profile`."""
    from cnnperf.reports._layers import write

    write(profile, sys.stdout, by=by, depth=depth)


def show_engine_layers(join: Join, console: Console) -> None:
    """Print one engine's layers beside torch's."""
    from cnnperf.reports._engine_layers import write

    write(join, console)


def show_columns(tables: Mapping[str, DescribedTable]) -> None:
    """Print the descriptions of tables and their columns on stdout."""
    from cnnperf.reports._columns import write

    write(tables, sys.stdout)


def verdict_lines(verdicts: Sequence[Verdict]) -> Iterator[Text]:
    """Yield one readable line per verdict."""
    from cnnperf.reports._verdicts import readable_lines

    return readable_lines(verdicts)


def write_tensorboard(run: Path, out: Path) -> None:
    """Write a run's files for TensorBoard. Raises StoreError, or UsageError if there is nothing to show."""
    from cnnperf.reports._tensorboard import write

    write(run, out)


def keep_tables(report: Report, folder: Path) -> dict[str, Path]:
    """Write a report's tables into a folder and return the file of each table by name. Raises OSError."""
    files: dict[str, Path] = {}
    for name in registry.having("reports", "IN_RUN_FOLDER"):
        writer(name)(report, folder)
        suffix: Any = registry.declared("reports", name)["SUFFIX"]
        files |= {table.name: folder / f"{table.name}{suffix}" for table in report.tables}
    return files


def keep_in_run(report: Report, folder: Path) -> dict[str, Path]:
    """Write the tables of a run into its folder and return the file of each table, by its name. Raises RunError."""
    try:
        return keep_tables(report, folder)
    except OSError as error:
        cure = f"the records are kept; free disk space, then cnnperf report {folder}"
        raise RunError(f"{folder}: the tables cannot be written ({error.strerror}); {cure}") from error
