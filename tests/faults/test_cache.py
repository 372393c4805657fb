"""Faults of the cache of images: altered, truncated and missing files, before a run and in the middle of it."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from faulty import LONGEST, SUITE, assert_ended, cnnperf, write_suite
from matrix import Trials
from processes import environment

from cnnperf import read
from cnnperf.datasets import Dataset, Roots, open_arrays, synthetic
from cnnperf.errors import DataError

MODEL = """
import os
from pathlib import Path

from torch import nn


def build(in_channels, num_classes, image_size):
    file = Path(os.environ.get("ALTERED", "/nonexistent"))
    if file.exists():
        content = bytearray(file.read_bytes())
        content[int(os.environ["PLACE"])] ^= int(os.environ["BITS"])
        file.write_bytes(content)
        os.environ.pop("ALTERED")
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size[0] * image_size[1], num_classes))
"""
"""A network whose first building, in preflight after the images were found, alters one byte of a file."""
SLOW = 0.04
"""Share of the trials of a fault that takes some seconds."""


class Runs:
    """Runs of one small suite with a cache of their own, the first of them undisturbed."""

    def __init__(self, folder: Path) -> None:
        (folder / "altering.py").write_text(MODEL, encoding="utf-8")
        self._suite = write_suite(folder, SUITE.replace('"mlp"', '"altering:build"'))
        self._folder = folder
        self.cache = folder / "cache"
        done, self.expected = self.run()
        assert done.returncode == 0, done.stderr
        [self.arrays] = [path for path in (self.cache / "arrays").iterdir() if path.is_dir()]

    def run(self, **variables: str) -> tuple[subprocess.CompletedProcess[str], dict[str, tuple[float, ...]]]:
        """Run the suite, and return how it ended and its test accuracy by task; empty unless the task is ok."""
        env = environment(CNNPERF_CACHE=str(self.cache), **variables)
        env["PYTHONPATH"] += f":{self._folder}"
        out = self._folder / "run"
        done = cnnperf("run", self._suite, "--out", out, env=env, limit_s=500)
        records = read(out) if (out / "records.jsonl").exists() else ()
        if out.exists():
            shutil.rmtree(out)
        # Points of a curve depend on the time that steps take.
        accuracies = {
            record.task.label: m.values
            for record in records
            if record.status == "ok"
            for m in record.find("train.test_accuracy")
            if not m.is_point
        }
        return done, accuracies


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Return runs of one suite, after an undisturbed one."""
    return Runs(tmp_path_factory.mktemp("runs"))


def test_a_byte_altered_before_a_run(runs: Runs, trials: Trials) -> None:
    """The images are made anew, and the results are those of the undisturbed run."""

    def one(numbers: random.Random) -> None:
        file = numbers.choice(sorted(runs.arrays.iterdir()))
        alter(file, numbers)
        done, accuracies = runs.run()
        assert_ended(done, 0)
        assert accuracies == runs.expected != {}

    trials.run(one, scale=SLOW)


def test_a_byte_altered_between_preflight_and_training(runs: Runs, trials: Trials) -> None:
    """The task fails with a sentence that names the folder, or its results are those of the undisturbed run."""

    def one(numbers: random.Random) -> None:
        file = numbers.choice(sorted(runs.arrays.iterdir()))
        place, bits = numbers.randrange(file.stat().st_size), 1 << numbers.randrange(8)
        done, accuracies = runs.run(ALTERED=str(file), PLACE=str(place), BITS=str(bits))
        assert_ended(done, 0, 1)
        if done.returncode == 0:
            assert accuracies == runs.expected
        else:
            assert str(runs.arrays) in "".join((done.stdout + done.stderr).split())

    trials.run(one, scale=SLOW)


@pytest.mark.parametrize("damage", ["truncated", "empty", "folder", "missing"])
def test_a_damaged_file_of_the_cache(runs: Runs, damage: str) -> None:
    """A truncated or empty file, a folder in its place, or none at all: it is made anew, and the results are equal."""
    for file in sorted(runs.arrays.iterdir()):
        content = file.read_bytes()
        file.unlink()
        if damage == "folder":
            file.mkdir()
        elif damage != "missing":
            file.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    done, accuracies = runs.run()
    assert_ended(done, 0)
    assert accuracies == runs.expected


def test_a_byte_altered_in_the_cache(tmp_path: Path, trials: Trials) -> None:
    """Opened arrays are equal to the original or refused in one short sentence; a load restores them."""
    roots = Roots(cache=tmp_path)

    def load() -> Dataset:
        return synthetic.load(roots, None, shape=(2, 8, 8), train=20, test=10, num_classes=3)

    original = load()
    expected = facts(original)

    def one(numbers: random.Random) -> None:
        alter(numbers.choice(sorted(original.folder.iterdir())), numbers)
        said, found = "", expected
        try:
            found = facts(open_arrays(original.folder, original.provenance))
        except DataError as error:
            said = str(error)
        assert found == expected
        assert len(said) <= LONGEST
        assert "\n" not in said
        assert facts(load()) == expected

    trials.run(one, scale=2)


def facts(dataset: Dataset) -> tuple[object, ...]:
    """Return all that a dataset holds, as values that do not change with the files."""
    arrays = (dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels)
    described = [(array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes()) for array in arrays]
    return (*described, dataset.mean, dataset.std, dataset.classes, dataset.provenance)


def alter(file: Path, numbers: random.Random) -> None:
    """Flip one bit of a file."""
    content = bytearray(file.read_bytes())
    content[numbers.randrange(len(content))] ^= 1 << numbers.randrange(8)
    file.write_bytes(content)
