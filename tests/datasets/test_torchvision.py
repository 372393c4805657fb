"""Files in torchvision's layout: the first root with the folder is used, every file is verified, none is written."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cnnperf import datasets
from cnnperf.datasets import DownloadError, Roots, _torchvision, cifar10, mnist
from cnnperf.errors import DataError


def test_the_first_root_that_holds_the_folder_serves(roots: Roots, mnist_root: Path, tmp_path: Path) -> None:
    """A root without the folder is skipped, and of two roots with the folder the first is used."""
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copytree(mnist_root, roots.cache / "data")

    assert mnist.load(replace(roots, data=empty), None).provenance.source == "cache"
    assert mnist.load(replace(roots, data=empty, environment=mnist_root), None).provenance.source == "$CNNPERF_DATA"
    assert mnist.load(replace(roots, data=mnist_root), None).provenance.source == "--data"


@pytest.mark.parametrize("name", sorted(mnist.MD5))
def test_a_corrupted_file_is_named_with_both_checksums(roots: Roots, mnist_root: Path, name: str) -> None:
    """One flipped bit in any of MNIST's four files raises an error with the file and both checksums."""
    file = mnist_root / "MNIST" / "raw" / name
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    with pytest.raises(DataError) as caught:
        mnist.load(replace(roots, data=mnist_root), None)

    found = re.escape(md5(file))
    assert re.fullmatch(
        rf"{re.escape(str(file))}: corrupted, expected md5 {mnist.MD5[name]}, found {found}; restore it, or move .*",
        str(caught.value),
    )


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_every_file_of_cifar10_is_verified(roots: Roots, cifar_root: Path, name: str) -> None:
    """A file whose checksum is not torchvision's is refused before it is unpickled."""
    file = cifar_root / "cifar-10-batches-py" / name
    file.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")

    with pytest.raises(DataError, match=f"{file}: corrupted, expected md5"):
        cifar10.load(replace(roots, data=cifar_root), None)


def test_a_missing_file_is_named(roots: Roots, cifar_root: Path) -> None:
    """A folder that lacks a file raises an error that names the file."""
    file = cifar_root / "cifar-10-batches-py" / "data_batch_5"
    file.unlink()

    with pytest.raises(DataError, match=rf"{file}: cannot be read \(No such file or directory\), expected a file with"):
        cifar10.load(replace(roots, data=cifar_root), None)


def test_the_source_is_never_written(roots: Roots, cifar_root: Path, mnist_root: Path) -> None:
    """Loading twice changes no size and no modification time below a root."""
    before = snapshot(mnist_root)

    for _ in range(2):
        mnist.load(replace(roots, data=mnist_root), None)
        cifar10.load(replace(roots, data=cifar_root), None)

    assert snapshot(mnist_root) == before


def test_a_second_load_hashes_no_source(roots: Roots, mnist_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verified files are not verified again until their size or modification time changes."""
    with_data = replace(roots, data=mnist_root)
    mnist.load(with_data, None)
    checked = []
    monkeypatch.setattr(_torchvision.Downloadable, "check", lambda _, folder: checked.append(folder) or ())

    mnist.load(with_data, None)
    assert checked == []
    os.utime(mnist_root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte")
    mnist.load(with_data, None)
    assert checked == [mnist_root / "MNIST" / "raw"]


def test_a_file_that_goes_bad_later_is_seen(roots: Roots, mnist_root: Path) -> None:
    """A file that is corrupted after the first load raises an error, although its arrays are cached."""
    with_data = replace(roots, data=mnist_root)
    mnist.load(with_data, None)
    (mnist_root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(b"")

    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte: corrupted"):
        mnist.load(with_data, None)


def test_altered_arrays_are_decoded_anew(roots: Roots, mnist_root: Path) -> None:
    """Cached arrays with a wrong sha256 are replaced by newly decoded ones."""
    with_data = replace(roots, data=mnist_root)
    images = mnist.load(with_data, None).train_images.tobytes()
    file = roots.arrays / "mnist" / "train_images.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"!")

    assert mnist.load(with_data, None).train_images.tobytes() == images


def test_arrays_outlive_their_files(roots: Roots, mnist_root: Path) -> None:
    """Without the files, complete cached arrays are used; with incomplete ones a DownloadError is raised."""
    made = mnist.load(replace(roots, data=mnist_root), None)

    assert mnist.load(roots, None).provenance == made.provenance
    (made.folder / "train_labels.npy").unlink()
    with pytest.raises(DownloadError):
        mnist.load(roots, None)


def test_without_leave_to_download_it_says_where_it_looked(roots: Roots, tmp_path: Path) -> None:
    """The error names every root and the command that fetches the data."""
    with pytest.raises(DownloadError) as caught:
        mnist.load(replace(roots, environment=tmp_path), None)

    assert str(caught.value) == (
        f"mnist: found in none of {tmp_path} ($CNNPERF_DATA), {roots.cache / 'data'} (cache); "
        "run `cnnperf data fetch mnist`"
    )


def test_verify_says_what_held(roots: Roots, mnist_root: Path) -> None:
    """`verify` reports which files match their md5, and which arrays their sha256, if there are any."""
    with_data = replace(roots, data=mnist_root)
    raw = mnist_root / "MNIST" / "raw"

    assert datasets.verify("mnist", with_data) == f"mnist: 4 files in {raw} (--data) match their md5"
    sha256 = mnist.load(with_data, None).provenance.sha256
    arrays = f"arrays in {roots.arrays / 'mnist'} match sha256 {sha256}"
    assert datasets.verify("mnist", with_data) == f"mnist: 4 files in {raw} (--data) match their md5; {arrays}"
    assert datasets.verify("mnist", roots) == f"mnist: {arrays}"


def test_verify_trusts_no_stamp(roots: Roots, mnist_root: Path) -> None:
    """`verify` detects a changed file with unchanged size and modification time."""
    with_data = replace(roots, data=mnist_root)
    mnist.load(with_data, None)
    file = mnist_root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    status, content = file.stat(), file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(DataError, match=f"{file}: corrupted"):
        datasets.verify("mnist", with_data)


def test_verify_names_altered_arrays(roots: Roots, mnist_root: Path) -> None:
    """The error has both checksums and the fix; with neither files nor arrays, `verify` raises an error too."""
    with pytest.raises(DataError, match="mnist: found in none of"):
        datasets.verify("mnist", roots)
    with_data = replace(roots, data=mnist_root)
    dataset = mnist.load(with_data, None)
    file = dataset.folder / "test_labels.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"!")

    with pytest.raises(DataError, match=rf"expected sha256 {dataset.provenance.sha256}, found \w{{64}}; the next run"):
        datasets.verify("mnist", with_data)


def md5(file: Path) -> str:
    """Return a file's checksum as torchvision computes it."""
    from torchvision.datasets.utils import calculate_md5

    return calculate_md5(file)


def snapshot(root: Path) -> dict[Path, tuple[int, int]]:
    """Return size and time of everything below a root."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in [root, *root.rglob("*")]}
