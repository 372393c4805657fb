"""The cache of arrays: complete or absent, verified, rebuilt, and with the right statistics."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import shutil
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from processes import started

from cnnperf.datasets import Dataset, Roots, _arrays, open_arrays, synthetic
from cnnperf.errors import DataError


def tiny(roots: Roots) -> Dataset:
    """Return a small dataset."""
    return synthetic.load(roots, None, shape=(2, 8, 8), train=20, test=10, num_classes=3)


def test_statistics_are_those_of_the_scaled_training_images(roots: Roots) -> None:
    """Mean and deviation per channel equal NumPy's over the whole array."""
    dataset = tiny(roots)

    scaled = dataset.train_images / 255

    np.testing.assert_allclose(dataset.mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, scaled.std(axis=(0, 2, 3)), rtol=1e-12)


def test_statistics_do_not_depend_on_the_chunks(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean and deviation are the same if the images are read in small chunks."""
    images = tiny(roots).train_images
    whole = _arrays._channel_statistics(images)

    monkeypatch.setattr(_arrays, "chunk_length", lambda _: 7)

    assert _arrays._channel_statistics(images) == whole


@pytest.mark.parametrize("name", _arrays.NAMES)
def test_an_altered_array_is_made_anew(roots: Roots, name: str) -> None:
    """One flipped bit in any array is detected at the next load, and the array is rebuilt."""
    dataset = tiny(roots)
    file = dataset.folder / f"{name}.npy"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    again = tiny(roots)

    assert file.read_bytes() == content
    assert again.provenance == dataset.provenance


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda file: file.write_bytes(b"{}"), lambda file: os.truncate(file, 9)]
)
@pytest.mark.parametrize("name", ["meta.json", "test_images.npy"])
def test_a_missing_or_torn_file_is_made_anew(roots: Roots, name: str, damage: object) -> None:
    """A missing, invalid or truncated file of the cache is rebuilt without an error."""
    dataset = tiny(roots)
    damage(dataset.folder / name)

    assert tiny(roots).provenance == dataset.provenance


def test_a_cache_that_cannot_be_written_says_how_to_move_it(tmp_path: Path) -> None:
    """The error names the folder, the reason and the environment variable."""
    blocked = tmp_path / "cache"
    blocked.touch()

    with pytest.raises(DataError) as caught:
        tiny(Roots(cache=blocked))

    folder = blocked / "arrays"
    assert str(caught.value).startswith(f"{folder}")
    assert "cannot be written (Not a directory)" in str(caught.value)
    assert "set CNNPERF_CACHE to another folder" in str(caught.value)


def test_a_full_disk_leaves_nothing_behind(roots: Roots) -> None:
    """A write that fails half way raises a DataError, and no folder of arrays is left."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(DataError, match=os.strerror(errno.EFBIG)):
            synthetic.load(roots, None, shape=(3, 32, 32), train=20, test=10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert [entry for entry in roots.arrays.iterdir() if entry.is_dir()] == []


def test_what_a_killed_build_left_is_removed(roots: Roots) -> None:
    """A half-written folder is not used as arrays, and is removed when they are built again."""
    folder = roots.arrays / tiny(roots).folder.name
    leftover = roots.arrays / f".{folder.name}-killed"
    folder.rename(leftover)

    tiny(roots)

    assert folder.is_dir()
    assert not leftover.exists()


def test_two_processes_make_the_same_arrays(roots: Roots) -> None:
    """Two processes that build the same arrays at once both get them."""
    program = (
        "from pathlib import Path; from cnnperf.datasets import Roots, synthetic;"
        f"dataset = synthetic.load(Roots(cache=Path({str(roots.cache)!r})), None);"
        "print(dataset.provenance.sha256, dataset.train_images.sum())"
    )
    command = [sys.executable, "-c", program]
    with started(command) as one, started(command) as other:
        outputs = [process.communicate()[0] for process in (one, other)]
        assert [process.returncode for process in (one, other)] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len([entry for entry in roots.arrays.iterdir() if entry.is_dir()]) == 1


@pytest.mark.parametrize("name", [*(f"{name}.npy" for name in _arrays.NAMES), "meta.json", "seal.json"])
def test_an_altered_file_is_refused_until_it_is_made_anew(roots: Roots, name: str) -> None:
    """With a flipped bit at any of 40 places of a file, the arrays open as they were or not at all; `load` restores."""
    dataset = copied(tiny(roots))
    file = dataset.folder / name
    content = file.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 40)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])

        with suppress(DataError):
            assert_same(open_arrays(dataset.folder, dataset.provenance), dataset)

    assert_same(tiny(roots), dataset)
    assert_same(open_arrays(dataset.folder, dataset.provenance), dataset)


def test_unchanged_files_are_not_hashed_again(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened arrays are hashed only if size, time or inode of a file has changed; `load` stores the new stamps."""
    dataset = tiny(roots)
    hashed: list[object] = []
    digest = _arrays.sha256_of
    monkeypatch.setattr(_arrays, "sha256_of", lambda arrays: hashed.append(arrays) or digest(arrays))

    open_arrays(dataset.folder)
    assert not hashed
    shutil.copytree(dataset.folder, roots.arrays / "copy")
    dataset.folder.rename(roots.arrays / "moved away")
    (roots.arrays / "copy").rename(dataset.folder)
    open_arrays(dataset.folder)
    assert len(hashed) == 1

    tiny(roots)
    hashed.clear()
    open_arrays(dataset.folder)
    assert not hashed


def test_a_cache_of_an_earlier_version_is_sealed(roots: Roots) -> None:
    """Arrays without a seal are used and sealed; with a mean that is not theirs, they are refused and made anew."""
    dataset = tiny(roots)
    seal, meta = dataset.folder / "seal.json", dataset.folder / "meta.json"
    seal.unlink()
    assert_same(open_arrays(dataset.folder), dataset)
    before = hashlib.sha256(meta.read_bytes()).hexdigest()
    assert_same(tiny(roots), dataset)
    assert hashlib.sha256(meta.read_bytes()).hexdigest() == before
    assert seal.exists()

    seal.unlink()
    meta.write_text(meta.read_text().replace(str(dataset.mean[0]), str(dataset.mean[0] + 0.01)))
    with pytest.raises(DataError, match=r"meta\.json: was altered, its statistics are not those of the arrays"):
        open_arrays(dataset.folder)
    assert_same(tiny(roots), dataset)


@pytest.mark.parametrize("name", ["meta.json", "seal.json", "train_labels.npy"])
@pytest.mark.parametrize("damage", [Path.mkdir, os.mkfifo, Path.touch])
def test_an_object_that_is_no_file_is_made_anew(roots: Roots, name: str, damage: object) -> None:
    """A folder, a FIFO or an empty file in place of a file of the cache is an error at once, and is replaced."""
    dataset = tiny(roots)
    (dataset.folder / name).unlink()
    damage(dataset.folder / name)

    with pytest.raises(DataError, match=str(dataset.folder)):
        open_arrays(dataset.folder)

    assert_same(tiny(roots), dataset)


def copied(dataset: Dataset) -> Dataset:
    """Copy the arrays into memory, where a change of their files does not reach them."""
    return replace(dataset, **{name: np.array(getattr(dataset, name)) for name in _arrays.NAMES})


def assert_same(found: Dataset, expected: Dataset) -> None:
    """Fail unless two datasets are equal in arrays and metadata."""
    for name in _arrays.NAMES:
        array, other = getattr(found, name), getattr(expected, name)
        assert array.dtype == other.dtype
        assert np.array_equal(array, other)
    for name in ("mean", "std", "classes", "provenance"):
        assert getattr(found, name) == getattr(expected, name)
