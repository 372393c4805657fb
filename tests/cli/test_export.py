"""`cnnperf export`: its folder on stdout, and its refusals."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from in_process import called

RUN = Path(__file__).parent.parent / "golden" / "smoke" / "20250102T030405Z-box"


def test_the_folder_is_in_the_run_or_as_given(tmp_path: Path) -> None:
    """The folder's name goes to stdout, and an earlier export is replaced."""
    pytest.importorskip("pyarrow")
    run = shutil.copytree(RUN, tmp_path / "run")
    for _ in range(2):
        done = called("export", run, "--to", "parquet")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{run / 'parquet'}\n", "")
    done = called("export", RUN, "--to", "parquet", "--out", tmp_path / "a" / "b")
    assert done.stdout == f"{tmp_path / 'a' / 'b'}\n"
    assert (tmp_path / "a" / "b" / "samples.parquet").read_bytes()[:4] == b"PAR1"
    assert len(list((tmp_path / "a" / "b").iterdir())) == len(list((run / "parquet").iterdir()))


def test_an_unknown_store_and_a_file_in_the_way_are_refused(tmp_path: Path) -> None:
    """Both are one sentence with the cure, and nothing is written."""
    done = called("export", RUN, "--to", "parket", "--out", tmp_path / "new")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "cnnperf: --to: unknown store 'parket'; did you mean 'parquet'? (known: parquet)\n"
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    done = called("export", RUN, "--to", "parquet", "--out", tmp_path / "file")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("cannot be written (File exists); give another folder with --out\n")


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow, the sentence says what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = called("export", RUN, "--to", "parquet", "--out", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs pyarrow; pip install 'cnnperf[parquet]'" in done.stderr
