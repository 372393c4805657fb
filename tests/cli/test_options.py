"""Messages of the library name arguments; the command line prints the options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_process import called, workers_here

import cnnperf
from cnnperf.cli.options import ARGUMENTS, with_options
from cnnperf.errors import CnnperfError
from cnnperf.tables.report import report_of


def test_each_argument_that_a_message_names_is_one_of_the_library() -> None:
    """Whoever calls a function finds the word in its signature."""
    functions: tuple[Callable[..., Any], ...] = (cnnperf.ab, cnnperf.infer, cnnperf.profile, cnnperf.compare, report_of)
    known = {name for function in functions for name in inspect.signature(function).parameters}
    assert set(ARGUMENTS) - known == set()


def test_only_arguments_become_options() -> None:
    """A command in backquotes, and what stands in none, is left as it is."""
    assert with_options("`candidate_set`: out of `out`") == "--candidate-set: out of --out"
    assert with_options("run `cnnperf data fetch mnist`, out") == "run `cnnperf data fetch mnist`, out"


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
        (lambda out: cnnperf.infer("lenet", waiting="never"), "waiting", ("infer", "lenet", "--waiting", "never")),
        (lambda out: cnnperf.profile("lenet", out=out), "out", ("profile", "lenet", "--out")),
        (lambda out: list(cnnperf.run(cnnperf.load_suite("ci"), out / "records.jsonl")), "folder", ()),
    ],
)
def test_a_caller_is_told_of_arguments_and_a_user_of_options(
    ask: Callable[[Path], object], argument: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    """The two sentences differ in nothing else."""
    (tmp_path / "records.jsonl").touch()
    with workers_here(), pytest.raises(CnnperfError) as caught:
        ask(tmp_path)
    message = str(caught.value)
    assert f"`{argument}`" in message
    assert "--" not in message
    if command:
        done = called(*command, *([tmp_path] if command[-1] == "--out" else []))
        assert done.stderr.splitlines()[-1] == f"cnnperf: {with_options(message)}"
        assert f"--{argument.replace('_', '-')}" in done.stderr
