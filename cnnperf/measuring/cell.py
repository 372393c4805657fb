"""The cell of a request without a suite: one network with its options, and the images on which it is measured."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnperf import registry
from cnnperf.datasets import files_of
from cnnperf.errors import EngineError, UsageError
from cnnperf.onnx_file import signature
from cnnperf.task import DEFAULT_DATASET, Choice

Named = str | os.PathLike[str] | dict[str, Any]
"""A name, or a table with a name and options, as in a suite: `{"name": "resnet", "depth": 18}`."""

GENERATED_BYTES = 2**26
"""Approximate size of generated training images; 10,000 images of 3×224×224 would take 1.5 GB."""
MOST_TRAIN, MOST_TEST, FEWEST_GENERATED = 10_000, 2_000, 256
"""Most generated images to train on and to test on, and the fewest of either, whatever their size."""


def lists_of_cell(model: Named, dataset: Named, device: str) -> dict[str, Any]:
    """Return the lists of a suite of one cell."""
    return {"datasets": [_plain(dataset)], "models": [_plain(model)], "devices": [device]}


def name_of(choice: Named) -> str:
    """Return only the name."""
    return str(choice.get("name")) if isinstance(choice, dict) else os.fspath(choice)


def network_of(model: Named, options: Mapping[str, Any] | None) -> Named:
    """Return a network with further options. Raises UsageError for an option that it already has."""
    if not options:
        return model
    table = _table(model)
    if twice := ", ".join(table.keys() & options.keys()):
        raise UsageError(f"`options`: {twice} of {table['name']} is already given; give it once")
    return {**table, **options}


def dataset_of(
    dataset: Named | None, shape: Sequence[int] | None, classes: int | None, batch_size: int | None = None
) -> Named:
    """Return the dataset of a request, or generated images if it names their shape or their number of classes.

    shape: C×H×W. Large images are few. Raises UsageError if another dataset is named too.
    """
    if shape is None and classes is None:
        return DEFAULT_DATASET if dataset is None else dataset
    [generated] = registry.having("datasets", "stand_in")
    table = _table(generated if dataset is None else dataset)
    given: dict[str, Any] = {} if shape is None else {"shape": list(shape)}
    given |= {} if classes is None else {"num_classes": classes}
    if table["name"] != generated or table.keys() & given.keys():
        raise UsageError(
            f"`dataset`: `shape` and `classes` are those of generated images, got {table['name']} too; give one of them"
        )
    return {**({} if shape is None else _counts(shape, batch_size)), **table, **given}


def images_of_file(file: Choice) -> Named:
    """Return the dataset for an ONNX file: the default one if it fits, else generated images of the file's own shape.

    Free sizes are those of the default dataset. A file that cannot be read gets the default too, and is refused later.
    """
    default = files_of(DEFAULT_DATASET)
    try:
        found = signature(Path(file.name))
    except (UsageError, EngineError):
        return DEFAULT_DATASET
    own = found.images.sizes[1:] if found.images else (None, None, None)
    shape = [size or usual for size, usual in zip(own, default.shape, strict=True)]
    classes = found.classes or len(default.classes)
    if found.images and (tuple(shape), classes) == (default.shape, len(default.classes)):
        return DEFAULT_DATASET
    return dataset_of(None, shape, classes, found.batch)


def _counts(shape: Sequence[int], batch_size: int | None) -> dict[str, int]:
    size, fewest = max(1, math.prod(shape)), max(FEWEST_GENERATED, 2 * (batch_size or 0))
    train, test = GENERATED_BYTES // size, GENERATED_BYTES // (4 * size)
    return {"train": min(MOST_TRAIN, max(fewest, train)), "test": min(MOST_TEST, max(fewest, test))}


def _table(choice: Named) -> dict[str, Any]:
    return choice if isinstance(choice, dict) else {"name": os.fspath(choice)}


def _plain(choice: Named) -> str | dict[str, Any]:
    return choice if isinstance(choice, dict) else os.fspath(choice)
