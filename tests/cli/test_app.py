"""The command line: output streams, files and exit statuses."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest
from forked import anew, command, workers_forked
from in_process import called
from processes import completed, until

from cnnperf.reports import formats
from cnnperf.suite import shipped

CELL = "synthetic[shape=1×28×28,train=600,test=200]/lenet"
SUITE = """
datasets = [{ name = "synthetic", shape = [1, 28, 28], train = 600, test = 200 }]
models = ["lenet", { name = "lenet", pool = "max" }]
threads = 1
[train]
steps = 4
validation_images = 100
batch_size = 50
"""


def cnnperf(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `cnnperf` as a user does, in separate processes."""
    return completed(sys.executable, "-m", "cnnperf", *arguments)


@pytest.fixture(scope="module")
def suite(once: Callable[[str, Callable[[Path], Any]], Any]) -> Path:
    """Write a suite that takes a moment, and return its path."""

    def make(folder: Path) -> Path:
        (folder / "small.toml").write_text(SUITE)
        return folder / "small.toml"

    made: Path = once("suite", make)
    return made


Finished = tuple[subprocess.CompletedProcess[str], Path]
TELLING = (
    "import atexit, sys; from cnnperf.cli import main; atexit.register(lambda: print('torch' in sys.modules)); main()"
)
"""The command line, which says last whether its process imported torch."""


@pytest.fixture(scope="module")
def finished(suite: Path, once: Callable[[str, Callable[[Path], Any]], Any]) -> Finished:
    """Run the suite once, and return the finished process and the run folder."""

    def make(folder: Path) -> Finished:
        out = folder / "run"
        return completed(sys.executable, "-c", TELLING, "run", suite, "--out", out), out

    made: Finished = once("finished", make)
    return made


def test_a_run_prints_the_leaderboard_and_writes_the_tables(finished: Finished) -> None:
    """A run prints the leaderboard on stdout, a line per finished task and the shares of time on stderr."""
    done, out = finished
    assert done.returncode == 0, done.stderr
    assert "lenet[pool=max]" in done.stdout
    assert f"✓ 1/2 {CELL}/cpu train" in done.stderr
    assert "✓ 2/2 " in done.stderr
    assert re.search(r"training \d+ %, evaluation \d+ %, overhead \d+ %", done.stderr)
    assert "\x1b[" not in done.stdout + done.stderr
    assert len(pd.read_csv(out / "leaderboard.csv")) == 2
    assert set(pd.read_csv(out / "curves.csv").model) == {"lenet", "lenet[pool=max]"}


def test_json_is_one_document_and_quiet_is_nothing_else(finished: Finished, suite: Path) -> None:
    """With --json, stdout is the report as one document; with --quiet, nothing is on stderr, and stdout is as ever."""
    resumed = ("run", suite, "--resume", finished[1])
    loud, done = called(*resumed), called(*resumed, "--json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)["leaderboard"]["rows"]
    assert {row["model"] for row in rows} == {"lenet", "lenet[pool=max]"}
    assert done.stdout == called("report", finished[1], "--format", "json").stdout
    assert str(finished[1] / "leaderboard.csv") in loud.stderr
    quiet = called(*resumed, "--quiet")
    assert (quiet.stdout, quiet.stderr) == (loud.stdout, "")


def test_no_color_is_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal sees colours, and none where NO_COLOR is set."""
    colour = re.compile(r"\x1b\[(\d+;)*[39][0-7](;\d+)*m")
    # Typer reads the environment once, at its import, for the whole process.
    monkeypatch.setattr("typer.rich_utils.FORCE_TERMINAL", True)
    assert colour.search(called("run", "--help", TERM="xterm").stdout)
    assert not colour.search(called("run", "--help", TERM="xterm", NO_COLOR="1").stdout)


def test_a_dry_run_as_json(suite: Path) -> None:
    """The document of a dry run has each task with seconds, bytes and the reason why it is skipped."""
    document = json.loads(called("run", suite, "--dry-run", "--json").stdout)
    assert [task["task"] for task in document["tasks"]] == [f"{CELL}/cpu train", f"{CELL}[pool=max]/cpu train"]
    assert {*document["tasks"][0]} == {"task", "skip", "estimate_s", "weight_bytes"}
    assert document["downloads"] == {}


@pytest.mark.parametrize("format", formats())
def test_a_report_is_made_again_from_an_old_run(finished: Finished, tmp_path: Path, format: str) -> None:  # noqa: A002
    """A report in each format is the same on stdout and in a file."""
    done = called("report", finished[1], "--format", format, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert "lenet[pool=max]" in done.stdout.replace("\\", "")  # Markdown's brackets are escaped.
    file = tmp_path / f"report.{format}"
    assert called("report", finished[1], "--format", format, "--out", file, COLUMNS="200").stdout == ""
    assert file.read_text() == done.stdout


def test_a_folder_takes_all_tables(finished: Finished, tmp_path: Path) -> None:
    """`report` with a new folder writes the run's tables into it, byte for byte."""
    out = tmp_path / "not" / "there"
    assert called("report", finished[1], "--format", "csv", "--out", out).returncode == 0
    written = {file.name: file.read_bytes() for file in finished[1].glob("*.csv")}
    assert {"leaderboard.csv", "curves.csv", "tasks.csv", "runs.csv", "confusion.csv", "examples.csv"} <= set(written)
    assert {file.name: file.read_bytes() for file in out.glob("*.csv")} == written


def test_a_run_is_resumed(suite: Path, finished: Finished) -> None:
    """Resuming a finished run runs no task and prints the table."""
    done = called("run", suite, "--resume", finished[1])
    assert done.returncode == 0, done.stderr
    assert "✓" not in done.stderr
    assert "lenet[pool=max]" in done.stdout


def test_a_dry_run_says_what_would_be_done(suite: Path, tmp_path: Path) -> None:
    """A dry run prints tasks, minutes and size of weights, and makes no run folder."""
    done = called("run", suite, "--dry-run", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert f"{CELL}/cpu train" in done.stdout
    assert re.search(r"2 tasks, about \d+\.\d minutes, about \d+ MiB of weights", done.stdout)
    assert not (tmp_path / "run").exists()


def test_a_failed_task_ends_in_1_and_stands_in_the_table(tmp_path: Path) -> None:
    """After a failed task the other task runs, the failure is printed with its reason, and the exit status is 1."""
    file = tmp_path / "failing.toml"
    file.write_text(SUITE.replace('"lenet", {', '"broken:raised", {'))
    done = called("run", file, "--out", tmp_path / "run", COLUMNS="250")
    assert done.returncode == 1, done.stderr
    assert "✗ 1/2" in done.stderr
    assert "KeyError: 'surprise'" in done.stderr
    assert "broken:raised" in done.stdout
    assert "✓ 2/2" in done.stderr


WRONG = {
    "misspelt key": (SUITE + "sede = 1", "unknown setting 'sede'"),
    "wrong type": (SUITE + 'lr = "fast"', "train.lr: .*number.*got 'fast'"),
    "a number in quotes": (SUITE + 'lr = "0.1"', "train.lr: .*number.*got '0.1'"),
    "more test images than there are": (SUITE + "test_images = 2000", "train: test_images 2,000 is more than the 200"),
    "two budgets in an override": (
        SUITE.replace('pool = "max"', "train = { steps = 1, epochs = 1 }"),
        "models.1.train: .*exactly one of",
    ),
    "two budgets": (
        SUITE + "seconds = 5",
        "train: .*exactly one of epochs, steps, samples, seconds.*steps and seconds",
    ),
    "unknown option": (
        SUITE.replace("pool =", "poll ="),
        "models.1: lenet: unknown option 'poll'; did you mean 'pool'",
    ),
    "option out of range": (SUITE.replace('"max"', '"mean"'), "models.1.pool: .*'avg' or 'max'.*got 'mean'"),
    "dataset option": (SUITE.replace("test = 200", "test = 0"), "datasets.0"),
    "wrong override": (SUITE.replace('pool = "max"', "train = { lr = -1 }"), "models.1.train.lr: .*got -1"),
    "a model that is none": (
        SUITE.replace('"lenet", {', '"broken:not_a_network", {'),
        "models.0: .*was not called: nothing shows that it returns a torch.nn.Module",
    ),
    "wrong logits": (SUITE.replace('"lenet", {', '"broken:too_many_logits", {'), "models.0: .*2×10.*got 2×1000"),
    "foreign name": (SUITE.replace('"lenet", {', '"nowhere:net", {'), "models.0: cannot import 'nowhere:net'"),
    "batch too large": (SUITE.replace("batch_size = 50", "batch_size = 5000"), "train: batch_size 5,000 is more than"),
    "fp16 on a CPU": (SUITE + 'precision = "fp16"', "train: precision 'fp16' needs device cuda"),
    "not TOML": ("datasets = [x]", "not valid TOML: .*line 1, column 13"),
}


@pytest.mark.parametrize(("run", "fault"), [*((called, fault) for fault in WRONG), (cnnperf, "unknown option")])
def test_bad_input_is_one_sentence_and_exit_2(
    run: Callable[..., subprocess.CompletedProcess[str]], fault: str, tmp_path: Path
) -> None:
    """An invalid suite ends in exit status 2 and one sentence with file and fault; no run folder is made."""
    content, words = WRONG[fault]
    file = tmp_path / "wrong.toml"
    file.write_text(content)
    done = run("run", file, "--out", tmp_path / "run")
    assert done.returncode == 2, done.stderr
    assert re.search(words, done.stderr), done.stderr
    *waits, sentence = done.stderr.splitlines()
    assert sentence.startswith(f"cnnperf: {file}: ")
    assert all("the check waits" in line for line in waits), done.stderr  # On a busy machine.
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()


def test_each_bad_model_has_a_line(tmp_path: Path) -> None:
    """All bad models of a suite are named, each in a line of its own."""
    file = tmp_path / "wrong.toml"
    file.write_text(SUITE.replace('"lenet", {', '"nowhere:net", "mlpp:build", {'))
    done = called("run", file, "--out", tmp_path / "run")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        f"cnnperf: {file}: models.0: cannot import 'nowhere:net'",
        f"cnnperf: {file}: models.1: cannot import 'mlpp:build'",
    ]
    assert all(line.endswith("run pip install . in its project, or set PYTHONPATH=src") for line in lines)


def test_usage_errors_end_in_2(suite: Path, finished: Finished, tmp_path: Path) -> None:
    """An invalid argument ends in exit status 2 and a message without traceback."""
    for arguments, words in [
        (("run", tmp_path / "no.toml"), "no such file"),
        (("run", suite, "--only", "vgg*"), "--only: nothing matches 'vgg*'"),
        (("run", suite, "--device", "gpu"), "unknown device 'gpu'"),
        (("run", suite, "--out", finished[1]), "already contains a run"),
        (("run", suite, "--resume", tmp_path), "contains no records.jsonl"),
        (("run", suite, "--out", tmp_path, "--resume", finished[1]), "give one of them"),
        (("run", suite, "--data", tmp_path / "nowhere"), "--data: "),
        (("report", tmp_path), "give a run folder"),
        (("report", finished[1], "--by", "acuracy"), "unknown column 'acuracy'; did you mean 'test_accuracy'"),
        (("report", finished[1], "--out", tmp_path / "no" / "file"), "--out: "),
        (("run", suite, "--device", ""), "unknown device ''"),
        (("run", suite, "--stages", "train, infre"), "unknown stage 'infre'; did you mean 'infer'"),
        (("run", "x" * 300), "cannot be read"),
        (("data", "fetch", "os:getcwd"), "unknown dataset 'os:getcwd'"),
        (("data", "fetch", "synthetic"), "synthetic: there are no files to fetch or verify; name another"),
        (("list", "modles"), "cannot list 'modles'; did you mean 'models'"),
        (("data", "verify", "cifar"), "unknown dataset 'cifar'; did you mean 'cifar10'"),
    ]:
        done = called(*arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_a_device_that_is_not_there_is_skipped_and_ends_in_0(suite: Path, tmp_path: Path) -> None:
    """Tasks for an absent device are announced as skipped, and the exit status is 0."""
    done = called("run", suite, "--device", "cuda", "--out", tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    assert f"– 1/2 {CELL}/cuda train  skipped: this machine has no CUDA device" in done.stderr
    assert "skipped" in done.stdout


@pytest.mark.parametrize(
    ("run", "end", "first"),
    [
        (command, signal.SIGINT, "lenet"),
        (command, signal.SIGTERM, "broken:raised"),
        pytest.param(anew, signal.SIGINT, "lenet", marks=pytest.mark.slow),
    ],
)
def test_an_interrupt_says_how_to_resume_and_ends_in_130(
    run: Any, tmp_path: Path, end: signal.Signals, first: str
) -> None:
    """An interrupted run keeps and prints its finished tasks, successful or failed."""
    file, out = tmp_path / "long.toml", tmp_path / "run"
    file.write_text(SUITE.replace('"lenet", {', f'"{first}", "broken:hung", {{'))
    printed, messages = tmp_path / "printed", tmp_path / "messages"
    with workers_forked(), run("run", file, "--out", out, out=printed, err=messages) as running:
        hung = "logs/*hung*"
        until(lambda: any(b"child" in log.read_bytes() for log in out.glob(hung)) or running.poll() is not None)
        assert running.poll() is None
        running.send_signal(end)
        assert running.wait() == 130
    assert f"interrupted; resume with: cnnperf run {file} --resume {out}" in messages.read_text()
    assert first in printed.read_text()
    assert len(pd.read_csv(out / "leaderboard.csv")) == 1


def test_an_interrupt_before_a_task_ended_does_not_say_to_resume(tmp_path: Path) -> None:
    """A run that was interrupted in its first task has no records to resume; the command may be given again."""
    file, out = tmp_path / "long.toml", tmp_path / "run"
    file.write_text(SUITE.replace('"lenet", {', '"broken:hung", {'))
    messages = tmp_path / "messages"
    with workers_forked(), command("run", file, "--out", out, out=tmp_path / "printed", err=messages) as running:
        until(
            lambda: any(b"child" in log.read_bytes() for log in out.glob("logs/*hung*")) or running.poll() is not None
        )
        running.send_signal(signal.SIGINT)
        assert running.wait() == 130
    *_, last = messages.read_text().splitlines()
    assert last == f"interrupted before a task ended; start again with: cnnperf run {file} --out {out}"
    file.write_text(SUITE)  # A dry run would take a step of the network that hangs.
    assert called("run", file, "--out", out, "--dry-run").returncode == 0


def test_reference_runs_are_listed_and_reported_by_name(
    finished: Finished, as_reference: Callable[[Path, str], str]
) -> None:
    """`list` prints the names of reference runs and the folder of one, and a report and a check take these names."""
    name = as_reference(finished[1], "small")
    assert called("list", "references").stdout.split() == [name]
    assert called("list", "references", name).stdout.endswith("/reference/small\n")
    assert "lenet[pool=max]" in called("report", name).stdout
    checked = called("check", "--baseline", name, "--candidate", finished[1])
    assert (checked.returncode, "SAME" in checked.stdout) == (3, True), checked.stdout


def test_help_and_lists_do_not_import_torch_pandas_or_scipy() -> None:
    """Help, lists and version are printed without importing torch, pandas, scipy or numpy."""
    code = (
        "import sys, cnnperf.cli.app as cli\n"
        "try: cli.app()\n"
        "except SystemExit: pass\n"
        "print('slow:', [name for name in ('torch', 'pandas', 'scipy', 'numpy') if name in sys.modules])"
    )
    for arguments in (["--help"], ["run", "--help"], ["list", "models"], ["--version"]):
        done = completed(sys.executable, "-c", code, *arguments)
        assert done.stdout.endswith("slow: []\n"), (arguments, done.stdout, done.stderr)


def test_the_parent_of_a_run_never_imports_torch(finished: Finished) -> None:
    """The parent process of a whole run does not import torch."""
    assert finished[0].stdout.endswith("False\n"), finished[0].stderr


def test_the_schema_describes_every_shipped_suite() -> None:
    """The schema accepts the shipped suites, and rejects unknown keys and wrong types, in options and overrides too."""
    schema = json.loads(called("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for file in shipped().values():
        validator.validate(tomllib.loads(file.read_text()))
    assert "label_smoothing" in schema["properties"]["train"]["properties"]
    small = {"datasets": ["mnist"], "models": ["lenet"]}
    images = {"name": "synthetic", "shape": [3, 224, 224], "num_classes": 1000}
    foreign = {"name": "timm:create_model", "model_name": "vit_tiny_patch16_224", "train": {"lr": 0.1}}
    assert validator.is_valid(small | {"datasets": [images], "models": [foreign, {"name": "resnet", "depth": 32}]})
    override = {"models": [{"name": "lenet", "train": {"lr": "fast"}}]}
    option, misspelt = {"models": [{"name": "resnet", "depth": 3}]}, {"datasets": [images | {"clases": 10}]}
    flat = {"datasets": [images | {"shape": [3, 224]}]}
    others = ({"modles": []}, {"train": {"secnds": 1}}, {"train": {"lr": "fast"}})
    for wrong in (*others, override, option, misspelt, flat):
        assert not validator.is_valid(small | wrong), wrong


def test_a_terminal_sees_a_live_view(suite: Path, tmp_path: Path) -> None:
    """A terminal shows the current task, its number in the run and the time left."""
    parent, child = pty.openpty()
    words = ("run", suite, "--out", tmp_path / "run", "--only", "*/lenet/*")
    terminal = {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with workers_forked(), command(*words, out=tmp_path / "printed", err=child, **terminal) as run:
        screen = b""
        try:
            while chunk := os.read(parent, 65536):
                screen += chunk
        except OSError:  # Linux's way to say that the other side is closed.
            pass
        assert run.wait() == 0, screen
    os.close(parent)
    assert b"task 1 of 1" in screen
    assert b"left" in screen
    assert f"{CELL}/cpu train".encode() in screen
