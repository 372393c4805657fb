"""`cnnperf check`: arguments and exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from in_process import called
from processes import completed, environment

from cnnperf import record as store
from cnnperf.record import Measurement, Record


def check(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `cnnperf check` in this process."""
    return called("check", *arguments, COLUMNS="80")


@pytest.fixture
def runs(tmp_path: Path, trained: Callable[..., Record]) -> dict[str, Path]:
    """Store runs with three repeats each that differ in number of parameters or in batch size.

    The folder `nowhere` does not exist.
    """

    def run(name: str, parameters: int, **changes: object) -> Path:
        (tmp_path / name).mkdir()
        size = Measurement(metric="train.parameters", unit="count", better="lower", values=(parameters,))
        steps = Measurement(metric="train.steps", unit="count", better=None, values=(500,))
        for repeat in range(3):
            store.append(tmp_path / name, trained(measured=[size, steps], repeat=repeat, **changes))
        return tmp_path / name

    made = {"small": run("small", 7), "large": run("large", 8), "other": run("other", 7, batch_size=64)}
    return made | {"nowhere": tmp_path / "nowhere"}


@pytest.mark.parametrize(
    ("candidate", "code", "words"),
    [
        ("small", 0, "2 same, 2 indicative → exit 0"),
        ("large", 1, "1 worse, 1 same, 2 indicative → exit 1"),
        ("other", 2, "train.batch_size (128 against 64)"),
        ("nowhere", 2, "cannot be read"),
    ],
)
def test_what_it_ends_with(runs: dict[str, Path], candidate: str, code: int, words: str) -> None:
    """The exit status follows the verdicts; a comparison that is refused is one sentence on stderr."""
    done = check("--baseline", runs["small"], "--candidate", runs[candidate])
    assert done.returncode == code, done.stderr
    assert words in (done.stderr if code == 2 else done.stdout)
    assert (len(done.stderr.splitlines()), done.stdout == "") == ((1, True) if code == 2 else (0, False))


def test_inconclusive_ends_in_3(runs: dict[str, Path]) -> None:
    """Runs on one side that disagree with each other make a verdict inconclusive."""
    done = check("--baseline", runs["small"], runs["large"], "--candidate", runs["small"], "--format", "json")
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert document["exit_code"] == 3
    assert [v["outcome"] for v in document["verdicts"] if v["metric"] == "train.parameters"] == ["inconclusive"]


def test_a_collapse_that_one_repeat_cannot_prove_ends_in_3(
    runs: dict[str, Path], tmp_path: Path, trained: Callable[..., Record]
) -> None:
    """The output states how many repeats with different seeds are needed."""
    for name, accuracy in (("high", 0.9), ("low", 0.3)):
        (tmp_path / name).mkdir()
        store.append(tmp_path / name, trained(accuracy=accuracy))
    done = check("--baseline", tmp_path / "high", "--candidate", tmp_path / "low")
    assert done.returncode == 3, done.stdout
    assert "needs 3 repeats per side with different seeds" in done.stdout


def test_an_option_may_also_be_given_again(runs: dict[str, Path]) -> None:
    """A repeated option gives the same output as one option with several values."""
    again = check("--baseline", runs["small"], "--baseline", runs["large"], "--candidate", runs["small"])
    words = ("--candidate", runs["small"], "--baseline", runs["small"], runs["large"])
    at_once = completed(sys.executable, "-m", "cnnperf", "check", *words, env=environment(COLUMNS="80"))
    assert (again.returncode, again.stdout) == (at_once.returncode, at_once.stdout)


def test_json_and_quiet(runs: dict[str, Path]) -> None:
    """--json is --format json, and no other format; --quiet leaves out the notes, but not of a document."""
    words = ("--baseline", runs["small"], "--candidate", runs["large"])
    as_json = check(*words, "--format", "json").stdout
    assert check(*words, "--json").stdout == check(*words, "--json", "--quiet").stdout == as_json
    assert json.loads(as_json)["notes"]
    refused = check(*words, "--json", "--format", "markdown")
    assert (refused.returncode, refused.stderr) == (2, "cnnperf: --json is --format json; give one of them\n")
    loud, quiet = (check(*words, *more).stdout for more in ((), ("--quiet",)))
    assert loud.startswith(quiet)
    assert quiet.endswith("→ exit 1\n")
    assert len(quiet) < len(loud)


def test_markdown_is_for_summaries(runs: dict[str, Path]) -> None:
    """The markdown format begins with the counts of verdicts and a table."""
    done = check("--baseline", runs["small"], "--candidate", runs["large"], "--format", "markdown")
    assert done.stdout.startswith("**1 worse, 1 same, 2 indicative → exit 1**\n\n| | cell |")
