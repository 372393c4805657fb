"""Messages of the library name arguments; the command line prints the options instead."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from in_process import called, workers_here
from typer.main import get_command

import cnnperf
from cnnperf.cli.app import app
from cnnperf.cli.options import ARGUMENTS, OTHERS, table_of, with_options
from cnnperf.errors import CnnperfError
from cnnperf.measuring.record import make_record
from cnnperf.measuring.suite import measure_suite
from cnnperf.regression import campaign
from cnnperf.reports import writer
from cnnperf.running.runner import folder_to_run
from cnnperf.running.selftest import selftest as run_selftest
from cnnperf.suite import Suite
from cnnperf.tables.choice import choose
from cnnperf.tables.dictionary import described
from cnnperf.tables.report import report_of

selftest: Callable[..., object] = partial(run_selftest, device="cpu", minutes=1.0, only=None, out=None, watcher=None)


def measure_run(out: Path, **changes: Any) -> object:
    """Measure a run of a campaign with some arguments changed."""
    return campaign.measure_run("aa", out, **{"occasion": "monday", **changes})


CAMPAIGN = ("campaign", "measure", "aa", "--out", "x", "--occasion")
BATCH = ("--batch-size",)
SMALL = ("--samples", "3", "--pairs", "-1")


def test_each_argument_that_a_message_names_is_one_of_the_library() -> None:
    """Each argument that becomes an option is a parameter of a function of the library."""
    functions: tuple[Callable[..., Any], ...] = (cnnperf.ab, cnnperf.infer, cnnperf.profile, cnnperf.compare, report_of)
    functions += (
        cnnperf.run,
        Suite.narrowed,
        Suite.executed,
        measure_suite,
        make_record,
        campaign.measure_run,
        folder_to_run,
        run_selftest,
        writer,
        described,
        choose,
    )
    known = {name for function in functions for name in inspect.signature(function).parameters}
    assert {*ARGUMENTS, *OTHERS} - known == set()


def test_only_arguments_become_options() -> None:
    """Only arguments in backquotes become options; commands in backquotes and other text are unchanged."""
    assert with_options("`candidate_set`: out of `out`") == "--candidate-set: out of --out"
    assert with_options("`batch_sizes`, `engines`, `model`, `models`") == "--batch-size, --engine, MODEL, `models`"
    assert with_options("run `cnnperf data fetch mnist`, out") == "run `cnnperf data fetch mnist`, out"


def sentences(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each string in a file that has a space and is no docstring."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and " " in node.value
            and id(node) not in said
        ):
            yield node.lineno, node.value


def options(command: Any) -> Iterator[str]:
    """Yield the long options of a command and of its subcommands."""
    for parameter in command.params:
        yield from (word for word in parameter.opts if word.startswith("--"))
    for below in getattr(command, "commands", {}).values():
        yield from options(below)


def test_no_text_of_the_library_names_an_option() -> None:
    """No text of the library outside the command line names one of its options."""
    known = set(options(get_command(app)))
    assert {"--minutes", "--out", "--occasion"} <= known
    package = Path(cnnperf.__file__).parent
    found = [
        f"{file.relative_to(package)}:{line}: {text}"
        for file in sorted(package.rglob("*.py"))
        if file.relative_to(package).parts[0] != "cli"
        for line, text in sentences(file)
        if known.intersection(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("ask", "argument", "command"),
    [
        (lambda out: cnnperf.ab("ci", minutes=float("inf")), "minutes", ("ab", "ci", "--minutes", "inf")),
        (lambda out: cnnperf.ab("ci", pairs=13), "pairs", ("ab", "ci", "--pairs", "13")),
        (lambda out: cnnperf.ab("ci", only="nothing"), "only", ("ab", "ci", "--only", "nothing")),
        (
            lambda out: cnnperf.ab("ci", candidate_set=["lr"]),
            "candidate_set",
            ("ab", "ci", "--candidate-set", "lr"),
        ),
        (lambda out: cnnperf.ab("ci", candidate="no such"), "candidate", ("ab", "ci", "--candidate", "no such")),
        (lambda out: cnnperf.infer("x.onnx", train=1.0), "train", ("infer", "x.onnx", "--train", "1")),
        (lambda out: selftest(minutes=0.0), "minutes", ("selftest", "--minutes", "0")),
        (lambda out: selftest(only="x"), "only", ("selftest", "--only", "x")),
        (lambda out: selftest(device="foo"), "device", ("selftest", "--device", "foo")),
        (lambda out: folder_to_run(cnnperf.load_suite("smoke"), None, out / "x"), "resume", ()),
        (lambda out: folder_to_run(cnnperf.load_suite("smoke"), out, out), "resume", ()),
        (lambda out: folder_to_run(cnnperf.load_suite("smoke"), out, None), "out", ("run", "smoke", "--out")),
        (lambda out: measure_run(out, occasion="a b"), "occasion", (*CAMPAIGN, "a b")),
        (lambda out: measure_run(out, condition="loud"), "condition", (*CAMPAIGN, "monday", "--condition", "loud")),
        (lambda out: writer("cvs"), "format", ("report", "x", "--format", "cvs")),
        (lambda out: cnnperf.infer("lenet", pairs=-1), "pairs", ("infer", "lenet", "--pairs", "-1")),
        (lambda out: cnnperf.infer("lenet", train=-3.0), "train", ("infer", "lenet", "--train", "-3")),
        (lambda out: cnnperf.infer("lenet", train=float("nan")), "train", ("infer", "lenet", "--train", "nan")),
        (lambda out: cnnperf.infer("lenet", threads=0), "threads", ("infer", "lenet", "--threads", "0")),
        (lambda out: cnnperf.infer("lenet", samples=3, pairs=-1), "samples", ("infer", "lenet", *SMALL)),
        (
            lambda out: cnnperf.infer("lenet", batch_sizes=[10**8]),
            "batch_sizes",
            ("infer", "lenet", *BATCH, "100000000"),
        ),
        (
            lambda out: cnnperf.infer("lenet", batch_sizes=[4, 4]),
            "batch_sizes",
            ("infer", "lenet", *BATCH, "4", *BATCH, "4"),
        ),
        (lambda out: cnnperf.infer("lenet", engines=["foo"]), "engines", ("infer", "lenet", "--engine", "foo")),
        (lambda out: cnnperf.infer("lenat"), "model", ("infer", "lenat")),
        (lambda out: cnnperf.infer("json:loads"), "model", ("infer", "json:loads")),
        (lambda out: cnnperf.infer("lenet", dataset="foo"), "dataset", ("infer", "lenet", "--dataset", "foo")),
        (lambda out: cnnperf.profile("lenet", device="foo"), "device", ("profile", "lenet", "--device", "foo")),
        (lambda out: cnnperf.profile("lenet", samples=0), "samples", ("profile", "lenet", "--samples", "0")),
        (lambda out: cnnperf.profile("lenet", batch_size=0), "batch_size", ("profile", "lenet", *BATCH, "0")),
        (
            lambda out: cnnperf.profile("lenet", dataset="synthetic", batch_size=70_000),
            "batch_size",
            ("profile", "lenet", "--dataset", "synthetic", *BATCH, "70000"),
        ),
        (lambda out: cnnperf.profile("some.onnx"), "model", ("profile", "some.onnx")),
        (lambda out: cnnperf.load_suite("smoke").narrowed(device="foo"), "device", ("run", "smoke", "--device", "foo")),
        (lambda out: cnnperf.load_suite("smoke").narrowed(repeats=0), "repeats", ("run", "smoke", "--repeats", "0")),
        (
            lambda out: cnnperf.load_suite("smoke").narrowed(stages=["train", "train"]),
            "stages",
            ("run", "smoke", "--stages", "train,train"),
        ),
        (lambda out: cnnperf.infer("lenet", waiting="never"), "waiting", ("infer", "lenet", "--waiting", "never")),
        (lambda out: cnnperf.profile("lenet", out=out), "out", ("profile", "lenet", "--out")),
        (lambda out: list(cnnperf.run(cnnperf.load_suite("ci"), out / "records.jsonl")), "folder", ()),
    ],
)
def test_a_caller_is_told_of_arguments_and_a_user_of_options(
    ask: Callable[[Path], object], argument: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    """The library's message names the argument; the command's message differs only by naming the option."""
    (tmp_path / "records.jsonl").touch()
    with workers_here(), pytest.raises(CnnperfError) as caught:
        ask(tmp_path)
    message = str(caught.value)
    assert f"`{argument}`" in message
    assert "--" not in message
    assert re.search("; |give |known: |such as ", message), "no cure"
    assert "Input should" not in message
    assert "more)" not in message
    if command:
        done = called(*command, *([tmp_path] if command[-1] == "--out" else []))
        assert done.stderr.splitlines()[-1] == f"cnnperf: {with_options(message)}"
        assert with_options(f"cnnperf: `{argument}`") in done.stderr


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("32", 32),
        ("0.5", 0.5),
        ("false", False),
        ("[1, 2]", [1, 2]),
        ("vit_tiny", "vit_tiny"),
        ('"32"', "32"),
        ("", ""),
    ],
)
def test_options_are_read_as_in_a_suite(text: str, value: object) -> None:
    """The value of an option has the type that it has in TOML; other text is a string."""
    assert table_of([f"width={text}"]) == {"width": value}
