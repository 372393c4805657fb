"""`cnnperf run --shard` and `cnnperf merge`: two shards make the run that one machine would have made."""

from __future__ import annotations

import csv
from pathlib import Path

from in_process import called

SUITE = """
datasets = [{ name = "synthetic", shape = [1, 28, 28], train = 600, test = 200 }]
models = ["mlp", "lenet", { name = "lenet", batch_norm = true }]
threads = 1
train = { steps = 3, validation_images = 100, batch_size = 50 }
"""


def test_two_shards_equal_the_whole_run(tmp_path: Path) -> None:
    """The merged leaderboard has the cells, counts and accuracies of a run of the whole suite."""
    suite = tmp_path / "small.toml"
    suite.write_text(SUITE)
    assert called("run", suite, "--out", tmp_path / "whole").returncode == 0
    for number in (1, 2):
        done = called("run", suite, "--shard", f"{number}/2", "--out", tmp_path / f"shard{number}")
        assert done.returncode == 0, done.stderr
    done = called("merge", tmp_path / "shard2", "--out", tmp_path / "half")
    assert (done.returncode, "missing shard: small 1/2" in done.stderr) == (1, True), done.stderr
    done = called("merge", tmp_path / "shard1", tmp_path / "shard2", "--out", tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    assert facts(tmp_path / "merged") == facts(tmp_path / "whole")
    again = called("run", suite, "--resume", tmp_path / "merged", "--dry-run")
    assert "lenet" not in again.stdout  # No task is pending.


def test_a_shard_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """More shards than cells, and words that are no shard, end with exit status 2 and one sentence."""
    suite = tmp_path / "small.toml"
    suite.write_text(SUITE)
    for words, said in (("1/4", "only 3 cells"), ("2", "give i/n")):
        done = called("run", suite, "--shard", words, "--out", tmp_path / "run")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "--shard: " in done.stderr
        assert said in done.stderr


def facts(run: Path) -> list[tuple[str, ...]]:
    """Return what does not depend on time: cells, counts and accuracies of the leaderboard."""
    with open(run / "leaderboard.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return sorted((row["dataset"], row["model"], row["params"], row["test_accuracy"]) for row in rows)
