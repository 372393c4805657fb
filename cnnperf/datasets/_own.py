"""Datasets that users bring: four arrays, or folders of image files; checked, cached and mapped as those that ship."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnnperf import registry
from cnnperf.datasets import Dataset, Roots, _arrays, open_arrays
from cnnperf.datasets._arrays import Arrays, ArraysMaker
from cnnperf.errors import DataError, names_listed, shorten
from cnnperf.units import shape_in_words

CHANNELS = (1, 3)
"""Channels of grey and of coloured images, the kinds that augmentation and reports know."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Ends of the names of image files, those of torchvision's ImageFolder; other files are ignored."""
DECODING = 1
"""Part of the cache key of a folder; to be incremented with every change of the decoded images."""


@dataclass(frozen=True, slots=True)
class Form:
    """The form to which image files are decoded."""

    size: tuple[int, int] | None
    """Height and width; None: those of the first file, which all others must have."""
    channels: int


Split = Sequence[tuple[Path, int]]
"""Image files and their labels."""


def free_name(name: str) -> str:
    """Return a dataset's name. Raises DataError for one that names no folder, or a dataset that ships."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,59}", name, re.ASCII):
        raise DataError(f"{shorten(repr(name), 80)}: not a name; give letters, digits, '_', '-' and '.', 60 at most")
    if name in registry.names("datasets"):
        raise DataError(f"{name}: a dataset that ships has this name; give another")
    return name


def arrays(
    name: str, given: Mapping[str, ArrayLike], classes: Sequence[str] | None, source: str, roots: Roots
) -> Dataset:
    """Check and cache four arrays, as `from_arrays` describes. given: the arrays by name."""
    content = {key: _checked(f"{name}: {key}", value, key.endswith("images")) for key, value in given.items()}
    _check_agreement(name, content)
    named = _classes(name, content, classes)
    digest = hashlib.sha256(json.dumps([_arrays.sha256_of(content), named]).encode()).hexdigest()
    maker = ArraysMaker(name=name, source=source, classes=named, write=lambda fresh: _arrays.save(content, fresh))
    return _opened(roots.arrays / f"{name}-{digest[:16]}", maker)


def folder(name: str, path: Path, form: Form, splits: tuple[str, str], source: str, roots: Roots) -> Dataset:
    """Decode and cache the image files of a folder, as `from_folder` describes."""
    if form.channels not in CHANNELS:
        raise DataError(f"{name}: channels {form.channels}: give 1 for grey or 3 for coloured images")
    train, test = (path / split for split in splits)
    classes = _subfolders(train)
    if len(classes) < 2:
        raise DataError(f"{train}: contains {len(classes)} folders; give a folder for each class, two or more")
    if others := [each for each in _subfolders(test) if each not in classes]:
        raise DataError(f"{test}: the class {shorten(others[0], 60)!r} is not in {train}; add its training images")
    files = {"train": _files(train, classes), "test": _files(test, classes)}
    labels = {label for _, label in files["train"]}
    if empty := [each for label, each in enumerate(classes) if label not in labels]:
        raise DataError(f"{train / empty[0]}: contains no image file ({', '.join(SUFFIXES)}); add some")
    if not files["test"]:
        raise DataError(f"{test}: contains no image file ({', '.join(SUFFIXES)}); add some")
    maker = ArraysMaker(name=name, source=source, classes=classes, write=lambda fresh: _decode(files, form, fresh))
    return _opened(roots.arrays / f"{name}-{_key(path, files, form)}", maker)


def searched(path: str, roots: Roots) -> tuple[str, Path]:
    """Return origin and path of a user's folder: below the first root that contains it, else in the working directory.

    An absolute path is its own origin. Raises DataError if there is no such folder.
    """
    try:
        named = Path(path).expanduser()
    except RuntimeError as error:  # Python's for the name of no user.
        raise DataError(f"{shorten(path, 100)}: {error}; give the path of a folder") from error
    below = [(origin, root / named) for origin, root in roots.ordered()]
    places = [(path, named)] if named.is_absolute() else [*below, ("working directory", named)]
    for origin, place in places:
        if place.is_dir():
            return origin, place
    where = names_listed(dict.fromkeys(str(place) for _, place in places))
    raise DataError(f"{shorten(path, 100)}: no such folder (searched: {where}); give the path of a folder")


def _opened(cached: Path, maker: ArraysMaker) -> Dataset:
    """Map arrays, made if they are missing; their source is that of this call, whoever made them."""
    dataset = open_arrays(_arrays.ensured(cached, maker))
    return replace(dataset, provenance=dataset.provenance.model_copy(update={"source": maker.source}))


def _checked(where: str, value: ArrayLike, are_images: bool) -> NDArray[Any]:
    """Return images as uint8 N×C×H×W, or labels as int64 N. Raises DataError for anything else."""
    try:
        array = np.asarray(value)
    except Exception as error:  # Tensors on a GPU, ragged lists and other packages' arrays each have their own.
        raise DataError(
            f"{where}: is no array ({shorten(error)}); give a NumPy array or a tensor of the CPU"
        ) from error
    got = f"got {shape_in_words(array.shape) or 'one number'} of {array.dtype}"
    if not are_images:
        if array.ndim != 1 or array.dtype.kind not in "iu" or not len(array):
            raise DataError(f"{where}: {got}; give a list of whole numbers, one for each image")
        return np.ascontiguousarray(array, np.int64)
    if array.dtype != np.uint8:
        raise DataError(f"{where}: {got}; give uint8, values from 0 to 255")
    images = array[:, None] if array.ndim == 3 else array
    if images.ndim != 4 or images.shape[1] not in CHANNELS or not images.size:
        is_last = images.ndim == 4 and images.shape[3] in CHANNELS
        cure = "; transpose(0, 3, 1, 2) moves the channels there" if is_last else ""
        raise DataError(f"{where}: {got}; give images × channels × height × width, with 1 or 3 channels{cure}")
    return np.ascontiguousarray(images)


def _check_agreement(name: str, content: Arrays) -> None:
    for split in ("train", "test"):
        images, labels = len(content[f"{split}_images"]), len(content[f"{split}_labels"])
        if images != labels:
            raise DataError(f"{name}: {images:,} {split}_images and {labels:,} {split}_labels; give one for each image")
    train, test = (content[f"{split}_images"].shape[1:] for split in ("train", "test"))
    if train != test:
        shapes = f"{shape_in_words(train)} and {shape_in_words(test)}"
        raise DataError(f"{name}: training and test images are {shapes}; give images of one shape")


def _classes(name: str, content: Arrays, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the classes, by default the labels. Raises DataError for labels without a class."""
    labels = content["train_labels"]
    count = int(labels.max()) + 1 if given is None else len(given)
    if given is None and count > len(labels):
        raise DataError(f"{name}: train_labels: got {count - 1} for {len(labels)} images; number the classes from 0")
    for key in ("train_labels", "test_labels"):
        low, high = int(content[key].min()), int(content[key].max())
        if low < 0 or high >= count:
            wrong = low if low < 0 else high
            raise DataError(f"{name}: {key}: got {wrong}; give labels from 0 to {count - 1}, one for each class")
    classes = tuple(map(str, range(count) if given is None else given))
    if len(set(classes)) < max(2, count):
        raise DataError(f"{name}: classes {shorten(classes, 100)}: give two or more, each once")
    return classes


def _subfolders(path: Path) -> tuple[str, ...]:
    """Return the names of the folders in a folder, sorted; hidden ones are no classes."""
    try:
        return tuple(sorted(each.name for each in path.iterdir() if each.is_dir() and not each.name.startswith(".")))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); give a folder with a folder for each class; "
            "train and test name the splits"
        ) from error


def _files(path: Path, classes: Sequence[str]) -> Split:
    """Return the image files below the folders of the classes, sorted within a class."""
    found = []
    for label, name in enumerate(classes):
        files = (each for each in (path / name).rglob("*") if each.suffix.lower() in SUFFIXES)
        found += [(each, label) for each in sorted(files) if each.is_file() and not each.name.startswith(".")]
    return found


def _key(path: Path, files: Mapping[str, Split], form: Form) -> str:
    """Hash what determines the arrays; an image file is told by its name, size and time."""
    digest = hashlib.sha256(json.dumps([DECODING, form.size, form.channels]).encode())
    for split, named in files.items():
        for file, label in named:
            try:
                status = file.stat()
            except OSError as error:
                raise DataError(f"{file}: cannot be read ({error.strerror}); restore or remove it") from error
            place = file.relative_to(path).as_posix()
            digest.update(json.dumps([split, place, label, status.st_size, status.st_mtime_ns]).encode())
    return digest.hexdigest()[:16]


def _decode(files: Mapping[str, Split], form: Form, fresh: Path) -> None:
    """Write the arrays of the files. Raises DataError for a file that cannot be decoded, OSError if writing fails."""
    size = form.size or _image(files["train"][0][0], form, None).shape[1:]
    shape = (form.channels, *size)
    for split, named in files.items():
        np.save(fresh / f"{split}_labels.npy", np.array([label for _, label in named], np.int64))
        chunks = _chunks(named, form, (shape[1], shape[2]))
        _arrays.save_images(fresh / f"{split}_images.npy", len(named), shape, chunks)


def _chunks(named: Split, form: Form, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    length = _arrays.chunk_length((form.channels, *size))
    for start in range(0, len(named), length):
        yield np.stack([_image(file, form, size) for file, _ in named[start : start + length]])


def _image(file: Path, form: Form, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Decode a file to C×H×W. size: height and width that it must have, unless the form scales it; None: any.

    Raises DataError.
    """
    from PIL import Image, ImageOps  # Late: only decoding needs it.

    try:
        with Image.open(file) as opened:
            deep = opened.mode if opened.mode[0] in "IF" else ""
            image: Image.Image = opened.convert("L" if form.channels == 1 else "RGB")
    except MemoryError:
        raise
    except Exception as error:  # A damaged file has many exceptions.
        raise DataError(f"{file}: cannot be decoded ({shorten(error)}); replace or remove it") from error
    if deep:  # Conversion to 8 bits would cut the values off.
        raise DataError(f"{file}: has more than 8 bits per pixel and channel ({deep}); convert it to 8 bits")
    if form.size:
        image = ImageOps.fit(image, (form.size[1], form.size[0]), Image.Resampling.BILINEAR)
    elif size and (image.height, image.width) != size:
        got, needed = shape_in_words((image.height, image.width)), shape_in_words(size)
        raise DataError(
            f"{file}: is {got} pixels, the first image {needed}; give size = [height, width], to which all are scaled"
        )
    pixels = np.asarray(image)
    return pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1)
