"""Commands and their help: it fits the terminal, and lists names as the rooms have them."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

from cnnperf.errors import UsageError

FLAG = ""
"""Metavar of an option without a value: the name of its type would take columns of the help from all options."""


def one_of(names: Iterable[str]) -> str:
    """List names of which one is given: `spin, brief or passive`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


class Command(TyperCommand):
    """A command that refuses a repeated option if the option takes one value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments. Raises UsageError for an option that is repeated."""
        *_, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter, times in Counter(order).items():
            takes_one = isinstance(parameter, TyperOption) and not (parameter.multiple or parameter.is_flag)
            if times > 1 and takes_one:
                raise UsageError(f"{max(parameter.opts, key=len)}: given {times} times; give it once")
        return super().parse_args(ctx, args)


def add_command(
    app: typer.Typer,
    function: Callable[..., Any],
    *examples: str,
    name: str | None = None,
    cls: type[TyperCommand] = Command,
) -> None:
    """Add a command whose help is the function's docstring, followed by the examples, one per line.

    Typer keeps the line breaks of all paragraphs but the first; without them, the terminal's width breaks the lines.
    """
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    text = "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
    epilog = "\n".join([f"Example{'s' * (len(examples) > 1)}:", *examples]) if examples else None
    app.command(name, cls=cls, help=text, epilog=epilog)(function)
