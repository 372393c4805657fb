"""Datasets that users bring: arrays and folders of image files, checked, cached and mapped as those that ship."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnperf.datasets import Dataset, Roots, _own, folder, from_arrays, from_folder, load_named, mnist
from cnnperf.datasets import available as available_now
from cnnperf.errors import DataError, UsageError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(256, size=(8, 3, 6, 5), dtype=np.uint8)
LABELS = np.arange(8) % 2


def small(roots: Roots, name: str = "small", **changes: Any) -> Dataset:
    """Cache eight training and four test images of two classes, with changes."""
    given = {
        "train_images": IMAGES,
        "train_labels": LABELS,
        "test_images": IMAGES[:4],
        "test_labels": LABELS[:4],
    }
    return from_arrays(name, **given | changes, roots=roots)


def test_arrays_become_a_dataset_as_those_that_ship(roots: Roots) -> None:
    """Arrays are mapped from the cache, with statistics, counts, names of classes, source and checksum."""
    made = small(roots, classes=("cat", "dog"), source="a camera")
    assert made.train_images.tobytes() == IMAGES.tobytes()
    assert made.test_labels.tolist() == [0, 1, 0, 1]
    assert made.train_labels.dtype == np.int64
    assert made.classes == ("cat", "dog")
    assert made.mean == pytest.approx(IMAGES.mean(axis=(0, 2, 3)) / 255)
    facts = made.provenance
    assert (facts.name, facts.source, facts.train_count, facts.test_count) == ("small", "a camera", 8, 4)
    assert (facts.shape, facts.num_classes, facts.fallback) == ((3, 6, 5), 2, None)
    assert made.folder.is_relative_to(roots.arrays)


def test_equal_arrays_are_written_once_and_altered_ones_again(roots: Roots) -> None:
    """Equal arrays and classes share a folder; other ones have their own; altered files are made again."""
    made = small(roots)
    file = made.folder / "train_images.npy"
    written = file.stat().st_mtime_ns
    assert small(roots, source="elsewhere").provenance == made.provenance.model_copy(update={"source": "elsewhere"})
    assert file.stat().st_mtime_ns == written
    others = (small(roots, classes="ab"), small(roots, test_labels=[1, 1, 1, 0]), small(roots, name="other"))
    assert len({each.folder for each in (made, *others)}) == 4
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert small(roots).train_images.tobytes() == IMAGES.tobytes()


def test_grey_images_and_tensors_are_taken(roots: Roots) -> None:
    """Images without a channel have one, and tensors of the CPU are arrays."""
    import torch

    grey = torch.from_numpy(IMAGES[:, 0])
    made = small(roots, train_images=grey, train_labels=torch.from_numpy(LABELS), test_images=grey[:4])
    assert made.train_images.shape == (8, 1, 6, 5)
    assert made.classes == ("0", "1")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "floats": (
        {"train_images": IMAGES / 255},
        r"small: train_images: got 8×3×6×5 of float64; give uint8, values from 0",
    ),
    "channels last": (
        {"test_images": IMAGES.transpose(0, 2, 3, 1)},
        r"test_images: got 8×6×5×3 of uint8; .* 1 or 3 channels; transpose\(0, 3, 1, 2\) moves the channels there$",
    ),
    "two channels": ({"train_images": IMAGES[:, :2]}, r"got 8×2×6×5 of uint8; give images × channels × .*channels$"),
    "no images": ({"train_images": IMAGES[:0], "train_labels": LABELS[:0]}, "train_images: got 0×3×6×5"),
    "no labels": ({"test_labels": []}, "test_labels: got 0 of float64; give a list of whole numbers"),
    "labels as floats": ({"train_labels": LABELS / 2}, "train_labels: got 8 of float64; give a list of whole numbers"),
    "one-hot labels": ({"train_labels": np.eye(8, 2, dtype=int)}, "train_labels: got 8×2 of int64; give a list"),
    "fewer labels": ({"train_labels": LABELS[:5]}, "small: 8 train_images and 5 train_labels; give one for each image"),
    "another shape": (
        {"test_images": IMAGES[:4, :, :5]},
        "training and test images are 3×6×5 and 3×5×5; give images of",
    ),
    "a label without class": (
        {"classes": "ab", "test_labels": [0, 1, 2, 0]},
        "test_labels: got 2; give labels from 0 to 1",
    ),
    "a negative label": ({"train_labels": -LABELS, "classes": "ab"}, "train_labels: got -1; give labels from 0 to 1"),
    "one class": (
        {"train_labels": LABELS * 0, "test_labels": LABELS[:4] * 0},
        r"small: classes \('0',\): give two or more, each once",
    ),
    "labels with gaps": ({"train_labels": 10**12 * LABELS}, "train_labels: got 1000000000000 for 8 images; number the"),
    "a class twice": ({"classes": ("a", "a")}, "give two or more, each once"),
    "no array": ({"train_labels": [[1], [1, 2]]}, "train_labels: is no array .*; give a NumPy array or a tensor"),
    "a path as name": ({"name": "../x"}, r"'../x': not a name; give letters"),
    "a name that ships": ({"name": "mnist"}, "mnist: a dataset that ships has this name; give another"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_arrays_that_do_not_agree_are_refused(roots: Roots, fault: str) -> None:
    """Each fault of the arrays is a sentence with the array, its form and the cure; nothing is cached."""
    changes, words = WRONG[fault]
    with pytest.raises(DataError, match=words):
        small(roots, **changes)
    assert not list(roots.arrays.glob("*"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Write a folder of image files: two classes, three training images and one test image each."""
    for split, count in (("train", 3), ("test", 1)):
        for label, name in enumerate(("cat", "dog")):
            place = tmp_path / "pictures" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(IMAGES[4 * label + number].transpose(1, 2, 0)).save(place / f"{number}.png")
    (tmp_path / "pictures" / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "pictures" / "train" / "cat" / "._0.png").write_text("no image")
    (tmp_path / "pictures" / "train" / ".hidden").mkdir()
    return tmp_path / "pictures"


def test_a_folder_becomes_a_dataset(roots: Roots, pictures: Path) -> None:
    """Image files are decoded in the order of their names, and the folders of a split are its classes, sorted."""
    made = from_folder("pictures", pictures, roots=roots)
    assert made.train_images.tobytes() == IMAGES[[0, 1, 2, 4, 5, 6]].tobytes()
    assert made.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert made.test_images.tobytes() == IMAGES[[0, 4]].tobytes()
    assert made.classes == ("cat", "dog")
    assert (made.provenance.name, made.provenance.source) == ("pictures", str(pictures))


def test_a_folder_is_the_image_folder_of_torchvision(roots: Roots, pictures: Path) -> None:
    """Files, classes and pixels are those that torchvision reads from the same folder."""
    from torchvision.datasets import ImageFolder

    (pictures / "train" / "cat" / "._0.png").unlink()
    (pictures / "train" / ".hidden").rmdir()
    made, theirs = from_folder("pictures", pictures, roots=roots), ImageFolder(str(pictures / "train"))
    assert list(made.classes) == theirs.classes
    assert made.train_labels.tolist() == theirs.targets
    assert made.train_images.tobytes() == b"".join(
        np.asarray(image).transpose(2, 0, 1).tobytes() for image, _ in theirs
    )


def test_a_folder_is_decoded_once(roots: Roots, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unchanged folder is not decoded again, wherever it lies; a file with another time is."""
    decoded: list[object] = []
    decode = _own._decode
    monkeypatch.setattr(_own, "_decode", lambda *given: decoded.append(given) or decode(*given))
    first = from_folder("pictures", pictures, roots=roots)
    from_folder("pictures", pictures, roots=roots)
    moved = pictures.rename(pictures.with_name("moved"))
    assert from_folder("pictures", moved, roots=roots).folder == first.folder
    assert len(decoded) == 1
    os.utime(moved / "test" / "dog" / "0.png")
    again = from_folder("pictures", moved, roots=roots)
    assert len(decoded) == 2
    assert again.provenance.sha256 == first.provenance.sha256
    from_folder("pictures", moved, size=(4, 4), roots=roots)
    from_folder("pictures", moved, channels=1, roots=roots)
    assert len(decoded) == 4


def test_images_are_scaled_and_cropped(roots: Roots, pictures: Path) -> None:
    """With a size, an image of another form is scaled and cropped at its centre; grey images have one channel."""
    wide = np.zeros((6, 18, 3), np.uint8)
    wide[:, 6:12] = 200
    Image.fromarray(wide).save(pictures / "train" / "cat" / "0.png")
    made = from_folder("pictures", pictures, size=(6, 6), channels=1, roots=roots)
    assert made.train_images.shape == (6, 1, 6, 6)
    assert (made.train_images[0] == 200).all()


def unreadable(place: Path) -> None:
    """Replace a file by text."""
    (place / "train" / "dog" / "1.png").write_text("no image")


def larger(place: Path) -> None:
    """Replace a file by an image of another size."""
    Image.new("RGB", (9, 7)).save(place / "train" / "dog" / "1.png")


def deeper(place: Path) -> None:
    """Replace a file by an image of 16 bits."""
    Image.fromarray(np.full((6, 5), 40_000, np.uint16)).save(place / "train" / "dog" / "1.png")


def without(path: str) -> Callable[[Path], None]:
    """Return a function that moves a part of the folder away."""
    return lambda place: (place / path).rename(place.parent / "away") and None


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file that is no image": (unreadable, r"train/dog/1\.png: cannot be decoded \(.*\); replace or remove it"),
    "another size": (larger, r"dog/1\.png: is 7×9 pixels, the first image 6×5; give size = \[height, width\]"),
    "16 bits": (deeper, r"dog/1\.png: has more than 8 bits per pixel and channel \(I.*\); convert it"),
    "no test images": (
        without("test"),
        r"test: cannot be read \(No such file .*\); give a folder with a folder for each",
    ),
    "one class": (without("train/dog"), r"train: contains 1 folders; give a folder for each class, two or more"),
    "a class only in the test": (
        lambda place: (place / "test" / "cow").mkdir(),
        r"test: the class 'cow' is not in .*train; add its training images",
    ),
    "a class without images": (
        lambda place: (place / "train" / "elk").mkdir(),
        r"train/elk: contains no image file \(\.jpg, ",
    ),
    "an empty test": (
        lambda place: [(place / "test" / name / "0.png").unlink() for name in ("cat", "dog")],
        r"test: contains no image file",
    ),
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_a_folder_of_another_form_is_refused(roots: Roots, pictures: Path, fault: str) -> None:
    """Each fault of the folder is a sentence with the file or folder and the cure; nothing is cached."""
    damage, words = DAMAGE[fault]
    damage(pictures)
    with pytest.raises(DataError, match=words):
        from_folder("pictures", pictures, roots=roots)
    assert not list(roots.arrays.glob("pictures*"))


def test_a_path_is_searched_in_the_roots_first(
    roots: Roots, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path lies below the first root that has it, else in the working directory; else it is an error."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    with_root = replace(roots, data=empty, environment=pictures.parent)
    assert folder.load(with_root, None, path="pictures").provenance.source == "$CNNPERF_DATA"
    assert folder.load(roots, None, path=str(pictures)).provenance.source == str(pictures)
    monkeypatch.chdir(pictures.parent)
    here = folder.load(roots, None, path="pictures").provenance
    assert (here.source, here.name) == ("working directory", "folder")
    with pytest.raises(DataError, match=r"nowhere: no such folder \(searched: .*empty.*cache.*\); give the path"):
        folder.load(with_root, None, path="nowhere")


FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def test_the_dataset_of_the_format_of_suites(
    roots: Roots, mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fashion-MNIST, as suites/README.md adds it, is found by its place, loaded with its options and cached."""
    text = (Path(__file__).parents[2] / "suites" / "README.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n# mypkg/data\.py\n(.*?)```", text, re.DOTALL)
    (tmp_path / "of_a_user.py").write_text(
        f"{code}\n\ndef listed(roots): return [1]\n"
        "def loose(roots): return Dataset(*[1] * 6, ('a', 'b'), 2, 'nowhere')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    # The format and the names of the files are those of MNIST.
    (tmp_path / "FashionMNIST").symlink_to(mnist_root / "MNIST", target_is_directory=True)
    made = load_named("of_a_user:fashion", roots, None, {"root": str(tmp_path)})
    digits = mnist.load(replace(roots, data=mnist_root), None)
    assert made.train_images.tobytes() == digits.train_images.tobytes()
    assert made.test_labels.tolist() == digits.test_labels.tolist()
    assert made.classes == FASHION
    assert made.provenance.sha256 == digits.provenance.sha256
    assert available_now("of_a_user:fashion", roots).origin == "generated"
    with pytest.raises(
        UsageError, match=r"'of_a_user:fashion' failed \(RuntimeError: Dataset not found.*; correct its"
    ):
        load_named("of_a_user:fashion", roots, None, {"root": "nowhere"})
    with pytest.raises(
        UsageError, match=r"'of_a_user:listed' returned list; it must return a cnnperf.datasets.Dataset"
    ):
        load_named("of_a_user:listed", roots, None, {})
    with pytest.raises(
        UsageError, match=r"'of_a_user:loose' returned a dataset without stored .*from_arrays or from_f"
    ):
        load_named("of_a_user:loose", roots, None, {})
