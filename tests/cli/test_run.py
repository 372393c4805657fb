"""`cnnperf run` and `cnnperf report`: how often they read a run's records."""

from __future__ import annotations

from pathlib import Path

import pytest
from in_process import called

from cnnperf.record import FILE

RUNS = sorted((Path(__file__).parent.parent / "golden" / "smoke").iterdir())
SUITE = """
datasets = [{ name = "synthetic", shape = [1, 28, 28], train = 600, test = 200 }]
models = ["lenet"]
threads = 1
train = { steps = 4, validation_images = 100, batch_size = 50 }
"""


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the run folders whose records were read, one entry a time."""
    found: list[Path] = []
    read_bytes = Path.read_bytes

    def noted(path: Path) -> bytes:
        if path.name == FILE:
            found.append(path.parent)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    return found


def test_a_run_reads_its_records_once(tmp_path: Path, reads: list[Path]) -> None:
    """A new one never, one that is resumed when it begins; the tables are of what is known."""
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


def test_a_report_reads_each_run_once(reads: list[Path]) -> None:
    """Also where it judges one of two runs by the other."""
    done = called("report", *RUNS)
    assert done.returncode == 0, done.stderr
    assert sorted(reads) == RUNS
