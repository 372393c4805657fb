"""From records to the tables of predictions: the confusion of classes, and test images with their predictions."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnperf.bench import trains
from cnnperf.errors import CnnperfWarning, StageError, shorten
from cnnperf.record import Record
from cnnperf.tables.facts import fact, row_of
from cnnperf.tables.repeats import Repeats, first_key
from cnnperf.tables.table import Row, Table, column, row_type

LARGEST_EXAMPLES = 2**28
"""Maximum bytes of a file of examples, unpacked: 5 times those of 50 images of 3×128×128 with a thousand names."""
MOST_CLASSES = 100
"""Number of classes up to which pairs without an image have a row; a thousand classes have a million pairs."""
LABEL = ("true class", "name of the true class")
PREDICTION = ("class that the network gave", "name of that class")
"""Meaning of the number and the name of a class of an image."""


@row_type
class ConfusionRow(Row):
    """A pair of classes in a test: the true one and the one that the network gave."""

    run: str = fact()
    dataset: str = fact()
    data: str | None = fact()
    model: str = fact()
    device: str = fact()
    repeat: int = fact()
    label: int = column(unit="count", meaning=LABEL[0], source="train.confusion")
    label_name: str | None = column(meaning=f"{LABEL[1]}; empty without `examples.npz`", source="artifacts")
    prediction: int = column(unit="count", meaning=PREDICTION[0], source="train.confusion")
    prediction_name: str | None = column(meaning=f"{PREDICTION[1]}; empty without `examples.npz`", source="artifacts")
    images: int = column(
        unit="count", meaning="images of this pair of classes in the test after the training", source="train.confusion"
    )
    task: str = fact()

    first_key: str
    """Key of that task in repeat 0."""


@row_type
class ExampleRow(Row):
    """A test image and its prediction."""

    run: str = fact()
    dataset: str = fact()
    data: str | None = fact()
    model: str = fact()
    device: str = fact()
    repeat: int = fact()
    artifact: str = column(meaning="file of the images, a path in the run folder", source="artifacts")
    position: int = column(unit="count", meaning="place of the image in that file, from 0", source="artifacts")
    label: int = column(unit="count", meaning=LABEL[0], source="artifacts")
    label_name: str | None = column(meaning=LABEL[1], source="artifacts")
    prediction: int = column(unit="count", meaning=PREDICTION[0], source="artifacts")
    prediction_name: str | None = column(meaning=PREDICTION[1], source="artifacts")
    probability: float = column(
        unit="fraction", meaning="probability that the network gave that class", source="artifacts"
    )
    task: str = fact()


def prediction_tables(
    records: Mapping[str, Sequence[Record]], folders: Mapping[str, Path]
) -> tuple[Table[ConfusionRow], Table[ExampleRow]]:
    """Return each test's confusion matrix, a row per pair of classes, and the test images that the trainings stored.

    Above MOST_CLASSES classes, only pairs with an image have a row.
    """
    confusion: list[ConfusionRow] = []
    examples: list[ExampleRow] = []
    for run, of_run in records.items():
        for r in of_run:
            if trains(r.task.stage):
                # The images stay in the file, for formats that show them.
                arrays = read_examples(r, folders[run], without="image")
                confusion += _confusion(Repeats(run, (r,)), arrays)
                examples += _examples(Repeats(run, (r,)), arrays)
    return (
        Table("confusion", ConfusionRow.columns(), tuple(confusion)),
        Table("examples", ExampleRow.columns(), tuple(examples)),
    )


def read_examples(record: Record, folder: Path, *, without: str | None = None) -> Mapping[str, Any]:
    """Read the examples of a training, without one array; empty if it stored none or the file is missing.

    Warns of a file that is outside the run folder, has changed since the training wrote it, or holds no examples, and
    does not read it.
    """
    artifact = record.artifacts.get("examples")
    if artifact is None:
        return {}
    try:
        path = artifact.verified(folder)
    except StageError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            warnings.warn(f"test images are left out: {error}", CnnperfWarning, stacklevel=2)
        return {}
    try:
        return _arrays_of(path, without)
    except Exception as error:  # A damaged file has many exceptions: of the archive, its entries and their headers.
        reason = shorten(f"{type(error).__name__}: {error}", 150)
        warnings.warn(f"test images are left out: {path}: not readable ({reason})", CnnperfWarning, stacklevel=2)
        return {}


def _arrays_of(path: Path, without: str | None) -> dict[str, Any]:
    """Read a file of examples without one array; a damaged one raises many exceptions, unfit arrays ValueError."""
    with zipfile.ZipFile(path) as archive:
        size = sum(each.file_size for each in archive.infolist())
    if size > LARGEST_EXAMPLES:
        raise ValueError(f"holds {size:,} bytes, more than {LARGEST_EXAMPLES:,}")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if name != without}
    number = len(arrays["label"])
    kinds = {"label": "iu", "prediction": "iu", "probability": "f", "image": "u", "classes": "U"}
    for name, array in arrays.items():
        is_known = array.ndim == (4 if name == "image" else 1) and array.dtype.kind in kinds.get(name, "")
        if not is_known or (name != "classes" and len(array) != number):
            raise ValueError(f"{name}: shape {array.shape}, type {array.dtype}")
    images = arrays.get("image")
    if images is not None and (images.dtype != np.uint8 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]):
        raise ValueError(f"image: shape {images.shape}, type {images.dtype}")
    if not {"label", "prediction", "probability"} <= set(arrays):
        raise ValueError(f"holds {', '.join(arrays)}")
    return arrays


def _confusion(repeats: Repeats, arrays: Mapping[str, Any]) -> Iterator[ConfusionRow]:
    first, names = first_key(repeats.task), _names(arrays)
    for m in repeats.records[0].find("train.confusion"):
        number = int(m.tags["num_classes"])
        for pair, count in enumerate(m.values):
            if count or number <= MOST_CLASSES:
                label, prediction = divmod(pair, number)
                named = _named(names, label=label, prediction=prediction)
                yield row_of(ConfusionRow, repeats, **named, images=int(count), first_key=first)


def _examples(repeats: Repeats, arrays: Mapping[str, Any]) -> Iterator[ExampleRow]:
    names = _names(arrays)
    for position in range(len(arrays.get("label", ()))):
        label, prediction = (int(arrays[name][position]) for name in ("label", "prediction"))
        yield row_of(
            ExampleRow,
            repeats,
            artifact=repeats.records[0].artifacts["examples"].path,
            position=position,
            **_named(names, label=label, prediction=prediction),
            probability=float(arrays["probability"][position]),
        )


def _names(arrays: Mapping[str, Any]) -> Mapping[int, str]:
    return dict(enumerate(map(str, arrays.get("classes", ()))))


def _named(names: Mapping[int, str], **classes: int) -> dict[str, Any]:
    return {**classes, **{f"{which}_name": names.get(index) for which, index in classes.items()}}
