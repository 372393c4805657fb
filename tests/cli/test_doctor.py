"""`cnnperf doctor`: the report alone, a gate test too short to decide, and an interrupted gate test."""

from __future__ import annotations

import inspect
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from forked import workers_forked
from in_process import called
from processes import completed, descendants, environment, has_ended, started, until

from cnnperf.cli import doctor as command
from cnnperf.machine.doctor import CHECKS
from cnnperf.regression import gate_test
from cnnperf.regression.rule import Rule

DOCTOR = [sys.executable, "-m", "cnnperf", "doctor"]


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `cnnperf doctor` as a user does, in a separate process."""
    return completed(*DOCTOR, *arguments, env=environment(COLUMNS="80"))


def test_the_report_alone_is_a_line_a_subject() -> None:
    """With `--minutes 0` the report has one line per subject, and the exit status is 0."""
    done = doctor("--minutes", "0")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line[2:].startswith(subject) for line, subject in zip(done.stdout.splitlines(), CHECKS, strict=True)]


def test_the_help_states_the_replicates_of_the_rule() -> None:
    """The help has the replicates of the rule: its first look for unchanged cells, its second for slower ones."""
    first, second, _ = Rule().scheduled(len(gate_test.GATE_SUITE["models"]))
    words = " ".join(inspect.getdoc(command.doctor).split())  # type: ignore[union-attr]
    assert f"with themselves in {first} replicates or more" in words
    assert f"slowed by {100 * gate_test.SLOWDOWN:g} % in {second} or more" in words


@pytest.mark.parametrize("minutes", ["nan", "inf", "-1"])
def test_what_is_no_length_of_time_is_refused(minutes: str) -> None:
    """A time limit that is NaN, infinite or negative is refused with exit status 2."""
    done = called("doctor", "--minutes", minutes)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--minutes" in done.stderr


def test_a_moment_measures_every_cell_and_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one replicate a suite, each verdict is inconclusive, no false alarm is counted, and nothing is stored."""
    monkeypatch.setitem(gate_test.GATE_SUITE, "models", gate_test.GATE_SUITE["models"][:2])
    monkeypatch.setattr(gate_test, "compare_versions", partial(gate_test.compare_versions, pairs=12))
    with workers_forked():
        done = called("doctor", "--minutes", "0.01", CNNPERF_CACHE=str(tmp_path))
    assert done.returncode == 3, done.stderr
    assert sum("INCONCLUSIVE" in line and "n=1×" in line for line in done.stdout.splitlines()) == 4
    assert "A/A, nothing changed\n" in done.stdout
    assert "A/B, slowed by 5 %\n" in done.stdout
    assert "false alarms: 0 of the 0 decided unchanged cells were called worse" in done.stdout
    assert "gate test: inconclusive: " in done.stdout
    assert "nothing was stored" in done.stderr
    assert not (tmp_path / "gate-test").exists()


def test_ctrl_c_ends_it_with_what_there_is(tmp_path: Path) -> None:
    """After Ctrl-C the exit status is 130, a sentence says that nothing was stored, and no worker is left."""
    with started(DOCTOR, env=environment(CNNPERF_CACHE=str(tmp_path))) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("A/A"):
                break
        workers = until(lambda: descendants(running))
        running.send_signal(signal.SIGINT)
        rest = running.stderr.read()
        assert running.wait() == 130
    assert "interrupted; nothing was stored" in rest
    assert all(map(has_ended, workers))
