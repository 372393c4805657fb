"""`cnnperf run`: the number of times that a run's records are read."""

from __future__ import annotations

from pathlib import Path

from in_process import called

SUITE = """
datasets = [{ name = "synthetic", shape = [1, 28, 28], train = 600, test = 200 }]
models = ["lenet"]
threads = 1
train = { steps = 4, validation_images = 100, batch_size = 50 }
"""


def test_a_run_reads_its_records_once(tmp_path: Path, reads: list[Path]) -> None:
    """A new run reads no records, and a resumed run or dry run reads them once; the table is the same."""
    suite, run = tmp_path / "small.toml", tmp_path / "run"
    suite.write_text(SUITE)
    done = called("run", suite, "--out", run)
    assert (done.returncode, reads) == (0, []), done.stderr
    table = (run / "leaderboard.csv").read_bytes()
    for words in (("--dry-run",), ()):
        done = called("run", suite, "--resume", run, *words)
        assert (done.returncode, reads) == (0, [run]), done.stderr
        reads.clear()
    assert (run / "leaderboard.csv").read_bytes() == table
