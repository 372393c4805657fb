"""`cnnperf run`: how often a run's records are read, and disturbed tasks."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
from fake_cuda import GPUS
from fake_nvml import Nvml
from in_process import called

from cnnperf.devices import cuda

SUITE = """
datasets = [{ name = "synthetic", shape = [1, 28, 28], train = 600, test = 200 }]
models = ["lenet"]
threads = 1
train = { steps = 4, validation_images = 100, batch_size = 50 }
"""


def test_a_run_reads_its_records_for_its_tables(tmp_path: Path, reads: list[Path]) -> None:
    """A run reads the records once for its tables and once if it is resumed; a dry run makes none."""
    suite, run = tmp_path / "small.toml", tmp_path / "run"
    suite.write_text(SUITE)
    done = called("run", suite, "--out", run)
    assert (done.returncode, reads) == (0, [run]), done.stderr
    reads.clear()
    table = (run / "leaderboard.csv").read_bytes()
    for words, times in ((("--dry-run",), 1), ((), 2)):
        done = called("run", suite, "--resume", run, *words)
        assert (done.returncode, reads) == (0, [run] * times), done.stderr
        reads.clear()
    assert (run / "leaderboard.csv").read_bytes() == table


def test_strict_ends_disturbed_tasks_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--strict 0` a disturbed task has this status, no figures and exit status 1; without it, marked figures."""
    suite = tmp_path / "small.toml"
    suite.write_text(SUITE)
    words = "a thread waited for a core for 40.0 % of the time"
    shares = {"waited_share": 0.4, "stolen_share": 0.0}
    monkeypatch.setattr("cnnperf.machine.disturbance.Disturbance.shares", property(lambda _: shares))
    done = called("run", suite, "--out", tmp_path / "marked")
    assert done.returncode == 0, done.stderr
    assert f", disturbed: {words}" in done.stderr
    assert f"† lenet: images/s: disturbed: {words}" in done.stdout
    assert "† disturbed: for more than 5 % of the time" in done.stdout
    done = called("run", suite, "--out", tmp_path / "strict", "--strict", "0")
    assert done.returncode == 1, done.stderr
    assert f"lenet: disturbed: {words}" in done.stdout
    [row], tasks = (
        list(csv.DictReader((tmp_path / "strict" / f"{table}.csv").read_text().splitlines()))
        for table in ("leaderboard", "tasks")
    )
    assert (row["status"], row["disturbed"], row["images_per_s"], row["rank"]) == ("disturbed", words, "", "")
    assert [task["status"] for task in tasks] == ["disturbed"]
    done = called("run", suite, "--out", tmp_path / "none", "--strict", "-1")
    assert done.returncode == 2
    assert done.stderr.startswith("cnnperf: --strict: got -1; give the number of further attempts")


def test_a_busy_gpu_is_measured_on_only_if_the_user_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on a GPU with another process has exit status 2, and the message names the option that permits it."""
    suite = tmp_path / "small.toml"
    suite.write_text(SUITE)
    monkeypatch.setattr(cuda, "gpus", lambda: GPUS)
    monkeypatch.setitem(sys.modules, "pynvml", Nvml((7, 1), uuids=[gpu.uuid for gpu in GPUS]))
    words = ("run", suite, "--device", "cuda:1", "--dry-run")
    done = called(*words)
    assert done.returncode == 2
    assert "devices.0: Imaginary 200 is used by process 7; end them, or give --allow-busy to" in done.stderr
    done = called(*words, "--allow-busy")
    assert "Imaginary 200 is used by process 7, which disturbs all figures" in done.stderr
