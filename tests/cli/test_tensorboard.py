"""`cnnperf tensorboard`: a log folder whose name is printed on stdout, without torch; errors in one sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from in_process import called
from processes import completed

from cnnperf import record
from cnnperf.record import Artifact, Record

CODE = (
    "import atexit, sys; from cnnperf.cli import main; atexit.register(lambda: print('torch' in sys.modules)); main()"
)


def real(*words: object) -> subprocess.CompletedProcess[str]:
    """Run cnnperf in a separate process, which prints at its end whether torch was imported."""
    return completed(sys.executable, "-c", CODE, *words)


def test_stdout_is_what_tensorboard_wants_to_know(tmp_path: Path, trained: Callable[..., Record]) -> None:
    """The log folder, in the run folder or as given, is printed on stdout and has events, even without examples."""
    record.append(tmp_path, trained())
    for run, options, folder, last in (
        (real, (), tmp_path / "tensorboard", "False\n"),
        (called, ("--out", tmp_path / "x"), tmp_path / "x", ""),
    ):
        done = run("tensorboard", tmp_path, *options)
        assert (done.returncode, done.stdout) == (0, f"{folder}\n{last}"), done.stderr
        assert f"tensorboard --logdir {folder}" in done.stderr
        assert list((folder / "cifar10/lenet/cpu/train-0").glob("events.*"))


def test_test_images_that_are_gone_or_changed_are_left_out(tmp_path: Path, trained: Callable[..., Record]) -> None:
    """If stored test images are missing or changed, the exit status is 0; a warning names changed ones."""
    path = tmp_path / "examples.npz"
    path.write_bytes(b"as it was")
    record.append(tmp_path, trained().model_copy(update={"artifacts": {"examples": Artifact.of(tmp_path, path.name)}}))
    path.write_bytes(b"as it is")
    done = called("tensorboard", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "examples.npz: its content has changed since its task wrote it" in done.stderr
    path.unlink()
    done = called("tensorboard", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "examples.npz" not in done.stderr


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    """A folder without records is refused with exit status 2."""
    done = called("tensorboard", tmp_path)
    assert done.returncode == 2
    assert "records.jsonl" in done.stderr
