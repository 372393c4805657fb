"""Faults of the files that a task leaves for the next: altered, poisoned, missing, or of another kind."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from faulty import SUITE, assert_ended, cnnperf, write_suite
from matrix import Trials
from poison import Poison

from cnnperf import Record, read
from cnnperf.errors import StageError
from cnnperf.record import keep, kept, kept_file, single

STAGES = 'stages = ["train", "export", "infer"]\ninfer = { engines = ["onnxruntime"], batch_sizes = [1], pairs = 0 }\n'
SLOW = 0.04
"""Share of the trials of a fault that takes some seconds."""


class Left:
    """A run of the first stages of a suite, and the suite with all stages."""

    def __init__(self, folder: Path, stages: str) -> None:
        self.folder = folder
        self.suite = write_suite(folder, STAGES + SUITE)
        self.original = folder / "original"
        done = cnnperf("run", self.suite, "--stages", stages, "--out", self.original, limit_s=500)
        assert done.returncode == 0, done.stderr

    def resumed(self, pattern: str, damage: Callable[[Path], object]) -> tuple[subprocess.CompletedProcess[str], str]:
        """Damage one file of a copy of the run and resume it; return how it ended, and the error of the next task."""
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(self.original, run)
        [file] = run.glob(f"artifacts/*/{pattern}")
        damage(file)
        done = cnnperf("run", self.suite, "--resume", run, limit_s=500)
        failed = [record for record in read(run) if record.status == "failed"]
        return done, failed[0].error or "" if failed else ""


@pytest.fixture(scope="module")
def trained_only(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """Return a run that has only trained."""
    return Left(tmp_path_factory.mktemp("trained"), "train")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Left:
    """Return a run that has trained and exported."""
    return Left(tmp_path_factory.mktemp("exported"), "train,export")


def flip(numbers: random.Random) -> Callable[[Path], None]:
    """Return a function that flips one bit of a file."""

    def flipped(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[numbers.randrange(len(content))] ^= 1 << numbers.randrange(8)
        file.write_bytes(content)

    return flipped


def assert_named(done: subprocess.CompletedProcess[str], error: str, name: str) -> None:
    """Fail unless the run ended with exit status 1, and the error is one sentence that names the file."""
    assert_ended(done, 1)
    faults = ("its content has changed", "cannot be read", "not a regular file")
    assert any(f"{name}: {fault}" in error for fault in faults), error
    assert len(error) <= 500
    assert "\n" not in error


def test_a_bit_altered_in_the_weights(trained_only: Left, trials: Trials) -> None:
    """The export of weights with a flipped bit fails, and names the file."""
    trials.run(
        lambda numbers: assert_named(*trained_only.resumed("weights.pt", flip(numbers)), "weights.pt"), scale=SLOW
    )


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "layers.npz"])
def test_a_bit_altered_in_an_export(exported: Left, trials: Trials, name: str) -> None:
    """An engine that reads a file of the export with a flipped bit fails, and names the file."""
    trials.run(lambda numbers: assert_named(*exported.resumed(name, flip(numbers)), name), scale=SLOW)


def test_poisoned_weights(trained_only: Left) -> None:
    """A pickle in place of the weights is not run."""
    made = trained_only.folder / "made"

    def poison(file: Path) -> None:
        file.write_bytes(pickle.dumps(Poison(made)))

    assert_named(*trained_only.resumed("weights.pt", poison), "weights.pt")
    assert not made.exists()


def replaced_by_folder(file: Path) -> None:
    """Put a folder in the place of a file."""
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: os.truncate(file, 0), replaced_by_folder])
def test_missing_weights(trained_only: Left, damage: Callable[[Path], object]) -> None:
    """Weights that are missing, empty or a folder are named."""
    assert_named(*trained_only.resumed("weights.pt", damage), "weights.pt")


def test_a_bit_altered_in_saved_measurements(tmp_path: Path, trials: Trials, trained: Callable[..., Record]) -> None:
    """A task that runs again takes no altered measurement of its killed process, and none that it was writing."""
    task = trained("lenet").task
    measured = [single("infer.latency", "s", value, "lower") for value in (0.125, 0.25, 0.5)]
    file = kept_file(tmp_path, task)

    def one(numbers: random.Random) -> None:
        file.unlink(missing_ok=True)
        for each in measured:
            keep(tmp_path, task, [each])
        assert kept(tmp_path, task) == tuple(measured)
        if numbers.random() < 0.5:
            os.truncate(file, numbers.randrange(file.stat().st_size))
        else:
            flip(numbers)(file)
        found: tuple[object, ...] = ()
        with suppress(StageError):
            found = kept(tmp_path, task)
        assert found == tuple(measured[: len(found)])

    trials.run(one, scale=10)
