"""The command that describes columns: `cnnperf columns`."""

from __future__ import annotations

from typing import Annotated

import typer

from cnnperf.cli.help import add_command


def columns(
    table: Annotated[
        str | None,
        typer.Argument(metavar="TABLE", help="Name of a table, such as engines; default: all tables."),
    ] = None,
) -> None:
    """Describe the columns of a table: name, unit, whether lower or higher is better, and meaning.

    Units are SI; a column without a unit is text. A fraction is a share from 0 to 1, and 1 any other pure number;
    (unit) is the unit that the row names. The texts are those of results/README.md, of JSON and of the page.

    Exit status: 0 success, 2 there is no such table.
    """
    from cnnperf.reports import show_columns
    from cnnperf.tables.dictionary import described

    show_columns(described(table))


def add_commands(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    add_command(app, columns, "cnnperf columns engines", "cnnperf columns | less")
