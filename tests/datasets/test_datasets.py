"""The interface of datasets: roots, sources, arrays mapped in another process, and no import of torch."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from processes import completed

from cnnperf import datasets, registry
from cnnperf.datasets import Availability, Roots, mnist, open_arrays, synthetic
from cnnperf.errors import DataError, UsageError


def test_roots_read_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The folder of `--data` precedes that of $CNNPERF_DATA, which precedes the cache that $CNNPERF_CACHE names."""
    (tmp_path / "option").mkdir()
    monkeypatch.setenv("CNNPERF_DATA", str(tmp_path))
    monkeypatch.setenv("CNNPERF_CACHE", str(tmp_path / "cache"))

    roots = Roots.from_environment(tmp_path / "option")

    assert roots.ordered() == (
        ("--data", tmp_path / "option"),
        ("$CNNPERF_DATA", tmp_path),
        ("cache", tmp_path / "cache" / "data"),
    )


def test_an_empty_variable_names_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable counts as unset, and the cache is then the platform's folder."""
    monkeypatch.setenv("CNNPERF_DATA", "")
    monkeypatch.setenv("CNNPERF_CACHE", "")

    roots = Roots.from_environment()

    assert roots.environment is None
    assert roots.cache.name == "cnnperf"


@pytest.mark.parametrize("variable", ["CNNPERF_CACHE", "CNNPERF_DATA"])
def test_the_home_folder_of_no_user_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """A folder in the home of an unknown user is an error that names the cure."""
    monkeypatch.setenv(variable, "~no-such-user/cnnperf")
    with pytest.raises(DataError, match="set HOME to a folder, or CNNPERF_CACHE and CNNPERF_DATA to absolute paths"):
        Roots.from_environment()


@pytest.mark.parametrize(("field", "origin"), [("data", "`data`"), ("environment", "$CNNPERF_DATA")])
def test_a_root_that_is_not_there_is_named_with_its_origin(roots: Roots, field: str, origin: str) -> None:
    """A root that does not exist is an error, even if another root could serve."""
    missing = roots.cache / "missing"

    with pytest.raises(DataError) as caught:
        mnist.load(replace(roots, **{field: missing}), None)

    assert str(caught.value).startswith(f"{origin}: {missing} cannot be read (No such file or directory);")


def test_a_root_that_is_a_file_is_refused(roots: Roots, tmp_path: Path) -> None:
    """A root that is a file is an error."""
    file = tmp_path / "train-images-idx3-ubyte"
    file.touch()

    with pytest.raises(DataError, match=f"`data`: {file} is a file; name the folder that contains MNIST/"):
        replace(roots, data=file).ordered()


def test_available_asks_nothing_of_the_network(roots: Roots, mnist_root: Path) -> None:
    """`available` names the root, the cached arrays or the bytes to download; generated data need no download."""
    with_data = replace(roots, data=mnist_root)

    assert datasets.available("mnist", roots) == Availability(
        "download", roots.cache / "data" / "MNIST" / "raw", 11_594_722
    )
    assert datasets.available("mnist", with_data) == Availability("--data", mnist_root / "MNIST" / "raw", 0)
    mnist.load(with_data, None)
    assert datasets.available("mnist", roots) == Availability("cache", roots.arrays / "mnist", 0)
    assert datasets.available("synthetic", roots) == Availability("generated", None, 0)


def test_only_datasets_with_files_have_a_source(roots: Roots) -> None:
    """A request for the files of a generated or unknown dataset is an error."""
    assert datasets.files_of("cifar10").shape == (3, 32, 32)
    with pytest.raises(DataError, match="synthetic: there are no files to fetch"):
        datasets.verify("synthetic", roots)
    with pytest.raises(UsageError, match="unknown dataset 'cifar'; did you mean 'cifar10'"):
        datasets.verify("cifar", roots)


def test_options_are_what_the_caller_does_not_give() -> None:
    """The options of a dataset are exactly the keyword parameters of its `load`."""
    fields = {
        name: set(registry.options(registry.find("datasets", name), datasets.GIVEN).model_fields)
        for name in registry.names("datasets")
    }

    assert fields == {
        "mnist": set(),
        "cifar10": set(),
        "folder": {"path", "size", "channels", "train", "test"},
        "synthetic": {"shape", "train", "test", "num_classes", "seed"},
    }


def test_arrays_open_without_torch(roots: Roots, mnist_root: Path) -> None:
    """Opening arrays, and loading a cached dataset, imports neither torch nor pandas nor scipy."""
    folder = synthetic.load(roots, None, shape=(1, 8, 8), train=20, test=10).folder
    with_data = replace(roots, data=mnist_root)
    mnist.load(with_data, None)
    program = f"""
import sys
from pathlib import Path
from cnnperf.datasets import Roots, available, mnist, open_arrays
print(open_arrays(Path({str(folder)!r})).train_images.shape)
roots = Roots(data=Path({str(mnist_root)!r}), cache=Path({str(roots.cache)!r}))
print(len(mnist.load(roots, None).train_images), available("cifar10", roots).download_bytes)
print(sorted({{"torch", "torchvision", "pandas", "scipy"}} & set(sys.modules)))
"""

    done = completed(sys.executable, "-c", program, check=True)

    assert done.stdout.splitlines() == ["(20, 1, 8, 8)", "20 170498071", "[]"]


def test_mapped_arrays_are_written_to_no_file(roots: Roots) -> None:
    """A change to a mapped array is not written to its file."""
    dataset = synthetic.load(roots, None, shape=(1, 8, 8), train=20, test=10)
    before = dataset.train_images[0].copy()

    dataset.train_images[0] = 255 - before

    assert np.array_equal(open_arrays(dataset.folder).train_images[0], before)


def test_open_arrays_carries_what_load_found(roots: Roots) -> None:
    """`open_arrays` returns the provenance that it is given, and raises an error if the sha256 differs."""
    dataset = synthetic.load(roots, None, shape=(1, 8, 8), train=20, test=10)
    kept = dataset.provenance.model_copy(update={"fallback": "no connection"})

    assert open_arrays(dataset.folder, kept).provenance == kept
    with pytest.raises(DataError, match=rf"expected sha256 0ff, found {kept.sha256}; run again"):
        open_arrays(dataset.folder, kept.model_copy(update={"sha256": "0ff"}))


def test_open_arrays_names_a_folder_that_it_cannot_map(roots: Roots, tmp_path: Path) -> None:
    """An empty folder and a truncated file each raise an error that names the folder."""
    with pytest.raises(DataError, match=f"{tmp_path}: contains no cached arrays; run again"):
        open_arrays(tmp_path)
    folder = synthetic.load(roots, None, shape=(1, 8, 8), train=20, test=10).folder
    os.truncate(folder / "test_images.npy", 200)

    with pytest.raises(DataError, match=f"{folder}: cached arrays cannot be read"):
        open_arrays(folder)
