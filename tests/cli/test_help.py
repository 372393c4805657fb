"""The help: its paragraphs fit the terminal, and every command has an example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from in_process import called
from typer.main import get_command

from cnnperf.cli.app import app
from cnnperf.cli.screen import planned
from cnnperf.inference.settings import Infer
from cnnperf.profiling.settings import Profile
from cnnperf.sides import PAIRS

ROOT = get_command(app)
WIDTH = 78
"""Columns of text in a terminal of 80."""


def commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the words and the object of every command and group of commands."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, *path, name)


COMMANDS = dict(commands(ROOT))


def lines(*words: str, columns: int = 80) -> list[str]:
    """Return the lines of a command's help without colours and indentation."""
    done = called(*words, "--help", COLUMNS=str(columns))
    assert (done.returncode, done.stderr) == (0, "")
    return [line.strip() for line in re.sub(r"\x1b\[[\d;]*m", "", done.stdout).splitlines()]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_line_of_a_paragraph_ends_before_the_width(words: tuple[str, ...]) -> None:
    """Paragraphs are filled: the first word of the next line would not fit on the line."""
    prose = [line for line in lines(*words) if not line.startswith(("╭", "│", "╰"))]
    for line, following in pairwise(prose):
        if line.startswith("Example"):
            break
        if line and following:
            assert len(f"{line} {following.split()[0]}") > WIDTH, line


@pytest.mark.parametrize("words", [words for words, command in COMMANDS.items() if not hasattr(command, "commands")])
def test_the_help_of_options_has_half_of_the_width(words: tuple[str, ...]) -> None:
    """Names and values of options leave at least 39 of 80 columns, and an option without a value names no type."""
    printed = re.sub(r"\x1b\[[\d;]*m", "", called(*words, "--help", COLUMNS="80").stdout)
    options = printed.partition("─ Options ─")[2].partition("╰")[0].splitlines()[1:]
    assert all(len(line) == 80 for line in options)
    # A line that continues the help of an option begins where that help does.
    begins = {len(line) - len(line[1:].lstrip()) for line in options if line.startswith("│" + " " * 12)}
    assert all(80 - begin - 2 >= 39 for begin in begins), begins
    assert not re.search(r"(?m)^│ --(?!help).*<bool>", "\n".join(options))


@pytest.mark.parametrize("words", [words for words, command in COMMANDS.items() if not hasattr(command, "commands")])
def test_every_command_has_examples_that_fit_on_a_line(words: tuple[str, ...]) -> None:
    """Each example fits into 80 columns, and names its command and only options that the command has."""
    title, *examples = COMMANDS[words].epilog.split("\n")
    assert title == f"Example{'s' * (len(examples) > 1)}:"
    assert set(examples) < set(lines(*words))
    known = {name for option in COMMANDS[words].params for name in option.opts}
    for example in examples:
        assert f"cnnperf {' '.join(words)}" in example
        assert set(re.findall(r"(?<=\s)--[\w-]+", example.split("cnnperf ")[1])) <= known


@pytest.mark.parametrize(
    ("command", "option", "default"),
    [
        ("profile", "--samples", f"default: {Profile.model_fields['samples'].default}."),
        ("infer", "--samples", f"default: {Infer.model_fields['samples'].default}."),
        ("infer", "--pairs", f"Default: {Infer.model_fields['pairs'].default}."),
        ("infer", "--batch-size", "Default: {} and {}.".format(*Infer.model_fields["batch_sizes"].default)),
    ],
)
def test_a_stated_default_is_that_of_the_stage(command: str, option: str, default: str) -> None:
    """The default that the help of an option states is the default of the stage's settings."""
    [found] = [each for each in COMMANDS[(command,)].params if option in each.opts]
    assert found.help.endswith(default)


@pytest.mark.parametrize("words", [("ab",), ("campaign", "measure")], ids=" ".join)
def test_the_stated_pairs_are_those_of_a_turn(words: tuple[str, ...]) -> None:
    """The stated range of `--pairs` is that of a turn, and the default is its upper end."""
    [found] = [each for each in COMMANDS[words].params if "--pairs" in each.opts]
    assert found.help.endswith("from {} to {}.".format(*PAIRS))
    assert found.default == PAIRS[1]


def test_what_a_dry_run_adds_up_is_named_as_in_its_output() -> None:
    """The help of `--dry-run` names minutes and size of weights, as the output does."""
    [found] = [each for each in COMMANDS[("run",)].params if "--dry-run" in each.opts]
    *_, total = planned((), {})
    assert total.endswith(" MiB of weights")
    assert "minutes and size of weights" in found.help


def test_an_option_of_one_value_is_given_once() -> None:
    """An option that is repeated is refused, instead of the last one counting; one of many values may be repeated."""
    done = called("run", "smoke", "--only", "lenet", "--only", "mlp", "--dry-run")
    assert (done.returncode, done.stderr) == (2, "cnnperf: --only: given 2 times; give it once\n")
    done = called("profile", "nowhere", "--option", "a=1", "--option", "b=2", "--quiet", "--quiet", "--dry-run")
    assert "nowhere" in done.stderr
