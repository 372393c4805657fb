"""`cnnperf selftest`: output streams, files and exit statuses."""

from __future__ import annotations

import getpass
import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from in_process import called
from processes import completed, descendants, environment, has_ended, started, until
from rich.console import Console

from cnnperf.claims import Bar, CheckedFigure
from cnnperf.cli import selftest as cli_selftest
from cnnperf.machine.fingerprint import fingerprint
from cnnperf.running.selftest import SELFTEST_FILE, ClaimOutcome, SelfTest

SELFTEST = [sys.executable, "-m", "cnnperf", "selftest"]


def selftest(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `cnnperf selftest`; the processes of its claims are real."""
    return called("selftest", *arguments)


TELLING = (
    "import atexit, sys; from cnnperf.cli import main; atexit.register(lambda: print('torch' in sys.modules)); main()"
)
"""The command line, which says last whether its process imported torch."""


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Test one claim, and return the finished process and its folder."""
    out = tmp_path_factory.mktemp("held") / "out"
    return completed(sys.executable, "-c", TELLING, "selftest", "--only", "arith*", "--out", out), out


def test_a_claim_is_put_to_the_test_and_a_folder_left(held: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """A claim is printed with a row per reading on stdout and a line on stderr; the folder has all readings."""
    done, out = held
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("held") == 9 + 1
    assert "grouped, backward" in done.stdout
    assert "1 claim: 1 held → exit 0" in done.stdout
    assert "1/1 arithmetic  held" in done.stderr
    document = json.loads((out / SELFTEST_FILE).read_text())
    assert document["device"] == "cpu"
    assert document["facts"]["torch"] == torch.__version__
    assert document["outcomes"][0]["readings"][0]["source"] == "by hand"


def test_the_last_line_counts_each_ending_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """A claim whose readings have no bar is counted as only reported, and not as held."""
    bars = {"a": Bar.within(0, "why"), "b": None, "c": None}
    outcomes = tuple(
        ClaimOutcome(
            name=name,
            claim="c",
            readings=(CheckedFigure(quantity="q", unit="s", figure=1, reading=1, source="s", bar=bar),),
        )
        for name, bar in bars.items()
    )
    test = SelfTest(
        started="now", device="cpu", label="l", facts={}, machine=fingerprint(), environment={}, threads=1, minutes=1
    )
    cli_selftest._print(Console(width=cli_selftest.WIDTH), test.model_copy(update={"outcomes": outcomes}))
    printed = capsys.readouterr().out
    assert "cpu (l) · 1 thread · " in printed
    assert "3 claims: 1 held, 2 only reported → exit 0" in printed


def test_a_claim_without_readings_says_which_option_to_raise() -> None:
    """The reason of an undecided claim names the option of the command line."""
    outcome = ClaimOutcome(name="a", claim="c", skipped="the 3 minutes were used up; raise `minutes`")
    assert cli_selftest._remarks(outcome) == ["the 3 minutes were used up; raise --minutes"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "tpu"], "--device: unknown device 'tpu'"),
        (["--only", "nothing*"], "--only: no claim matches 'nothing*'"),
        (["--minutes", "nan"], "--minutes: give a number above 0"),
        (["--minutes", "0"], "--minutes: give a number above 0"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(arguments: list[str], words: str) -> None:
    """An invalid argument ends in exit status 2, with one sentence on stderr and nothing on stdout."""
    done = selftest(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    """An absent device ends in exit status 2; nothing is printed on stdout, and no folder is made."""
    done = selftest("--device", "cuda", "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--device cuda: this machine has no CUDA device" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    """A folder with an earlier self-test is refused with exit status 2."""
    (tmp_path / SELFTEST_FILE).touch()
    done = selftest("--only", "arith*", "--out", tmp_path)
    assert done.returncode == 2
    assert "give another folder" in done.stderr


def test_the_parent_never_imports_torch(held: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """The parent process of a self-test does not import torch."""
    assert held[0].stdout.endswith("exit 0\nFalse\n"), held[0].stdout + held[0].stderr


def test_the_help_tells_it_from_doctor() -> None:
    """The help of `selftest` says what `doctor` does in contrast."""
    assert "In contrast, `cnnperf doctor` reports disturbances" in " ".join(selftest("--help").stdout.split())


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[psutil.Process], Path]:
    """Interrupt a self-test in its second claim; return the output, the processes at that time, and the folder."""
    folder = tmp_path_factory.mktemp("interrupted")
    command = [*SELFTEST, "--only", "[ad]*", "--out", folder / "out"]
    with started(command, env=environment(CNNPERF_CACHE=str(folder / "cache"))) as running:
        assert running.stderr is not None
        assert "arithmetic  held" in running.stderr.readline()
        # The claim, and the process that it has begun.
        workers = until(lambda: found if len(found := descendants(running)) > 1 else None)
        running.send_signal(signal.SIGINT)
        printed, _ = running.communicate()
        assert running.returncode == 130
    return printed, workers, folder


def test_ctrl_c_ends_it_with_what_there_is(interrupted: tuple[str, list[psutil.Process], Path]) -> None:
    """After Ctrl-C the exit status is 130, the results so far are in the folder, and no process is left."""
    printed, workers, folder = interrupted
    assert "interrupted; 1 claim: 1 held → exit 130" in printed
    assert all(map(has_ended, workers))
    assert json.loads((folder / "out" / SELFTEST_FILE).read_text())["interrupted"]


def test_the_folder_names_no_place_of_this_machine(interrupted: tuple[str, list[psutil.Process], Path]) -> None:
    """No file in the folder contains a path of this machine or the user's name as a folder."""
    folder = interrupted[2]
    files = [file for file in (folder / "out").rglob("*") if file.is_file()]
    assert {file.name for file in files} >= {SELFTEST_FILE, "arithmetic.log", "determinism.log"}
    for file in files:
        text = file.read_text()
        for place in (folder, Path.cwd(), sys.prefix, f"/{getpass.getuser()}/"):
            assert str(place) not in text, file
