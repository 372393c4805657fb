"""`cnnperf ab`: arguments, refusals, exit statuses and stored files."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from forked import anew, command, workers_forked
from in_process import called
from processes import descendants, has_ended, until

from cnnperf.regression import gate
from cnnperf.regression.samples_file import SAMPLES_FILE

SUITE = """
datasets = [{ name = "synthetic", train = 256, test = 64 }]
models = ["unruly:build"]
threads = 1
[train]
validation_images = 0
batch_size = 32
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Write a suite of one tiny network, and return its path."""
    path = tmp_path / "tiny.toml"
    path.write_text(SUITE)
    return path


def ab(suite: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `cnnperf ab`; the workers of its versions are real processes."""
    baseline = () if "--baseline" in arguments else ("--baseline", ".")
    return called("ab", suite, *baseline, "--out", suite.parent / "out", *arguments, cwd=suite.parent, COLUMNS="80")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--candidate", "nonsense"), "is not a Python interpreter"),
        (("--baseline", "/bin/false"), "is not a working Python (exit status 1"),
        (("--candidate-set", "precision=bf16"), "must be section.key=value"),
        (("--candidate-set", "trian.precision=bf16"), "only settings of [train] can be changed, got 'trian'"),
        (("--candidate-set", "train.precison=bf16"), "did you mean 'precision'?"),
        (("--candidate-set", "train.precision=7"), "got 7"),
        (("--candidate-set", "train.validation_images=64"), "changes nothing that is measured"),
        (("--minutes", "inf"), "--minutes: got inf; give a number above 0, or leave --minutes out"),
        (("--candidate-set", "infer.batch_sizes=[1]"), "only settings of [train] can be changed, got 'infer'"),
        (
            ("--candidate-set", "train.batch_size=32"),
            "train.batch_size=32 changes nothing: both sides already have batch_size = 32;",
        ),
        (("--only", "resnet"), "nothing matches 'resnet'"),
        (("--pairs", "13"), "--pairs: got 13; give an even number from 12 to 60"),
        (("--minutes", "0"), "--minutes: 0 is too short; 6 replicates, the fewest for a verdict, take about 1 minute"),
        (("--json", "--format", "markdown"), "--json is --format json; give one of them"),
    ],
)
def test_what_cannot_be_carried_out(suite: Path, arguments: tuple[str, ...], words: str) -> None:
    """An invalid argument ends in exit status 2, with one sentence on stderr after at most the plan."""
    done = ab(suite, *arguments)
    assert done.returncode == 2, done.stderr
    *before, sentence = done.stderr.splitlines()
    assert words in sentence
    assert all(line.startswith("planned: ") for line in before)
    assert done.stdout == ""


def test_a_folder_that_holds_a_comparison_is_refused(suite: Path) -> None:
    """A folder with a comparison is refused in one sentence with exit status 2, and its samples are unchanged."""
    folder = suite.parent / "out"
    folder.mkdir()
    (folder / SAMPLES_FILE).write_text("{}\n")
    done = ab(suite)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"cnnperf: --out: {folder} already contains a run; give another folder\n"
    assert [(file.name, file.read_text()) for file in folder.iterdir()] == [(SAMPLES_FILE, "{}\n")]


def test_an_interpreter_without_cnnperf(suite: Path, tmp_path: Path) -> None:
    """A candidate interpreter without cnnperf ends in exit status 2, and the message names the side."""
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')  # Neither what is installed nor PYTHONPATH.
    bare.chmod(0o755)
    done = ab(suite, "--candidate", bare)
    assert done.returncode == 2, done.stderr
    assert re.search(r"--candidate: .*bare has no cnnperf", done.stderr)


def test_a_dry_run(suite: Path) -> None:
    """A dry run prints the plan, as lines or as a document, and makes no folder."""
    lines, document = (ab(suite, "--dry-run", *more).stdout for more in ((), ("--json",)))
    assert json.loads(document)["plan"] == lines.splitlines()
    assert lines.startswith("baseline this tree, candidate this tree\n")
    assert "2 cell-metrics, 1 to 11 minutes: 8 replicates if nothing changed, 22 at most" in lines
    assert not (suite.parent / "out").exists()


@pytest.mark.parametrize("workers", [workers_forked, pytest.param(nullcontext, marks=pytest.mark.slow)])
def test_a_setting_changed_for_the_candidate(
    suite: Path, workers: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too few replicates in the time limit end in inconclusive verdicts and exit status 3, after the printed plan."""
    monkeypatch.setattr(gate, "refuse_short", lambda *_, **__: None)
    suite.write_text(SUITE.replace("threads = 1", "threads = 2"))
    changed = ("--candidate-set", "train.memory_format=channels_last", "--threads", 1, "--pairs", 12)
    with workers():
        done = ab(suite, "--minutes", 0, *changed, "--format", "markdown")
    assert done.returncode == 3, done.stderr
    first, second, *_ = done.stderr.splitlines()
    assert first.startswith("planned: 0 to 0 minutes for 2 cell-metrics")
    assert second.startswith("planned: about ")
    assert done.stdout.startswith("**2 inconclusive → exit 3**")
    real = r"slower in . of 1; a verdict needs . replicates, about \d+ more minutes?|drifted or never became steady"
    forked = r"slower in . of 1; a verdict needs . replicates, about 1 more minute"
    assert re.search(forked if workers is workers_forked else real, done.stdout)
    header, *lines = map(json.loads, (suite.parent / "out" / SAMPLES_FILE).read_text().splitlines())
    assert [len(line["wall_s"]) for line in lines] == [12] * 2 * 2
    assert {task["threads"] for tasks in header["contests"].values() for task in tasks} == {1}


@pytest.mark.parametrize("run", [command, pytest.param(anew, marks=pytest.mark.slow)])
def test_interrupted(suite: Path, run: Any) -> None:
    """After Ctrl-C the exit status is 130, the results so far are printed, and no worker is left."""
    printed, messages = suite.parent / "printed", suite.parent / "messages"
    with (
        workers_forked(),
        run("ab", suite, "--baseline", ".", "--out", suite.parent / "out", out=printed, err=messages) as process,
    ):
        until(lambda: messages.read_text().count("\n") >= 2 or process.poll() is not None)
        assert process.poll() is None
        workers = until(lambda: descendants(process))
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    first, second, *_ = messages.read_text().splitlines()
    assert first.startswith("planned: 1 to ")
    assert second.startswith("planned: about ")
    assert "interrupted: verdicts use the replicates measured so far" in printed.read_text()
    assert all(map(has_ended, workers))
