"""The A/A campaign: the conditions of a run, what a run stores, and the two commands."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil
import pytest
from campaign_runs import hold_to_its_differences, read
from forked import workers_forked
from in_process import called

from cnnperf.errors import UsageError
from cnnperf.regression import campaign, gate
from cnnperf.regression.ab import UnwatchedComparison
from cnnperf.regression.verdict import Comparison

SUITE = """
datasets = [{ name = "synthetic", train = 256, test = 64 }]
models = ["unruly:build"]
threads = 1
[train]
validation_images = 0
batch_size = 32
"""


def test_the_neighbour_lives_as_long_as_the_run() -> None:
    """The condition `neighbour` starts a busy child and ends it, also after an error; the others start none."""

    def children() -> list[psutil.Process]:
        return [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]

    before = children()
    for condition in ("quiet", "shared"):
        with campaign.neighbour(condition):
            assert children() == before
    with suppress(ZeroDivisionError), campaign.neighbour("neighbour"):
        [busy] = [each for each in children() if each not in before]
        raise ZeroDivisionError
    assert not busy.is_running()


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"condition": "noisy"}, "^`condition`: unknown condition 'noisy'"), ({"occasion": "a b"}, "^`occasion`: 'a b'")],
)
def test_what_cannot_be_carried_out(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """`measure_run` refuses a wrong argument in one sentence before it measures."""
    with pytest.raises(UsageError, match=words):
        campaign.measure_run("aa", tmp_path / "x", **{"occasion": "monday", **changes})
    assert not (tmp_path / "x").exists()


def test_one_run_through_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`campaign measure` measures as `cnnperf ab` does, beside an idle neighbour; `campaign report` reads its runs."""
    monkeypatch.setattr(campaign, "BUSY", "import time; time.sleep(600)")
    monkeypatch.setattr(gate, "refuse_short", lambda *_, **__: None)
    (tmp_path / "tiny.toml").write_text(SUITE)

    def command(*words: object) -> CompletedProcess[str]:
        with workers_forked():
            return called("campaign", *words, cwd=tmp_path)

    options = ("--condition", "neighbour", "--pairs", 12, "--threads", 1, "--minutes", 0)
    (tmp_path / "runs" / "monday-neighbour-01").mkdir(parents=True)  # Of a run that was broken off.
    done = command("measure", "tiny.toml", "--out", "runs", "--occasion", "monday", *options)
    assert done.returncode == 0, done.stderr
    assert "exit status of the verdicts: 3" in done.stderr
    assert (tmp_path / "runs" / "monday-neighbour-02" / campaign.RUN_FILE).exists()
    done = command("report", "runs", "--out", "tables")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("measured: 0 of 2 cell-metrics")
    assert "monday-neighbour-01" in done.stderr
    rows = read(tmp_path / "tables", "cell_metrics")
    assert {(row["condition"], row["pairs"], row["threads"], row["outcome"]) for row in rows} == {
        ("neighbour", "12", "1", "inconclusive")
    }
    hold_to_its_differences(tmp_path / "tables")
    refused = command("measure", "nowhere.toml", "--out", "runs", "--occasion", "monday")
    assert refused.returncode == 2
    assert refused.stderr.startswith("cnnperf: nowhere.toml: ")


def test_an_interrupted_run_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`measure_run` stores no run of an interrupted comparison, and raises KeyboardInterrupt."""
    asked: dict[str, Any] = {}

    def ab(suite: str, **given: Any) -> Comparison:
        asked.update(given)
        return Comparison(verdicts=(), notes=(), interrupted=True)

    monkeypatch.setattr(campaign, "ab", ab)
    watcher = UnwatchedComparison()
    with pytest.raises(KeyboardInterrupt):
        campaign.measure_run("aa", tmp_path, occasion="monday", watcher=watcher)
    assert (asked["watcher"], asked["baseline"]) == (watcher, ".")
    assert not list(tmp_path.rglob(campaign.RUN_FILE))
