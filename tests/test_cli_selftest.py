"""`cnnperf selftest`: what is printed where, what is left behind, and what it ends with."""

from __future__ import annotations

import getpass
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import completed, descendants, environment, has_ended, started, until

from cnnperf.claims._session import FILE

SELFTEST = [sys.executable, "-m", "cnnperf", "selftest"]


def selftest(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    return completed(*SELFTEST, *arguments)


def test_a_claim_is_put_to_the_test_and_a_folder_left(tmp_path: Path) -> None:
    """A row a reading on stdout, a line a claim on stderr, everything read in the folder."""
    done = selftest("--only", "arith*", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("held") == 9 + 1
    assert "grouped, backward" in done.stdout
    assert "1 claim: 1 held → exit 0" in done.stdout
    assert "1/1 arithmetic  held" in done.stderr
    document = json.loads((tmp_path / "out" / FILE).read_text())
    assert document["device"] == "cpu"
    assert document["facts"]["torch"] == torch.__version__
    assert document["outcomes"][0]["readings"][0]["source"] == "by hand"


def test_the_folder_names_no_place_of_this_machine(tmp_path: Path) -> None:
    """Neither a folder nor the user."""
    out = tmp_path / "out"
    assert selftest("--only", "determinism", "--minutes", "0.2", "--out", out).returncode in (0, 3)
    files = [file for file in out.rglob("*") if file.is_file()]
    assert {file.name for file in files} >= {FILE, "determinism.log"}
    for file in files:
        text = file.read_text()
        for place in (tmp_path, Path.cwd(), sys.prefix, f"/{getpass.getuser()}/"):
            assert str(place) not in text, file


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
    """Exit status 2, and nothing on stdout."""
    done = selftest(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    """Nothing is measured and no folder made."""
    done = selftest("--device", "cuda", "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--device cuda: this machine has no CUDA device" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    """That of an earlier self-test."""
    (tmp_path / FILE).touch()
    done = selftest("--only", "arith*", "--out", tmp_path)
    assert done.returncode == 2
    assert "give another folder" in done.stderr


def test_the_parent_never_imports_torch(tmp_path: Path) -> None:
    """The wall holds from the list of claims to the table."""
    code = "import sys, cnnperf.cli as cli\ntry: cli.app()\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    done = completed(sys.executable, "-c", code, "selftest", "--only", "arith*", "--out", tmp_path / "out")
    assert done.stdout.endswith("exit 0\nFalse\n"), done.stdout + done.stderr


def test_the_help_tells_it_from_doctor() -> None:
    """Whoever finds one finds what the other is for."""
    assert "differs from `cnnperf doctor`" in " ".join(selftest("--help").stdout.split())


def test_ctrl_c_ends_it_with_what_there_is(tmp_path: Path) -> None:
    """Exit status 130, the folder written, and no process left behind."""
    command = [*SELFTEST, "--only", "[ad]*", "--out", tmp_path / "out"]
    with started(command, env=environment(CNNPERF_CACHE=str(tmp_path / "cache"))) as running:
        assert running.stderr is not None
        assert "arithmetic  held" in running.stderr.readline()
        # The claim, and the process that it has begun.
        workers = until(lambda: found if len(found := descendants(running)) > 1 else None)
        running.send_signal(signal.SIGINT)
        assert running.stdout is not None
        printed = running.stdout.read()
        assert running.wait() == 130
    assert "interrupted; 1 claim: 1 held → exit 130" in printed
    assert all(map(has_ended, workers))
    assert json.loads((tmp_path / "out" / FILE).read_text())["interrupted"]
