"""From records to the tables of predictions: the confusion of classes, and test images with their predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from cnnperf.record import Record
from cnnperf.tables.facts import facts
from cnnperf.tables.runs import of_task
from cnnperf.tables.table import Column, Row, Table

_TASK = facts("run", "dataset", "data", "model", "device", "repeat")


def _of_image(source: str) -> tuple[Column, ...]:
    return (
        Column("label", unit="count", meaning="true class", source=source),
        Column("label_name", meaning="name of the true class", source=source),
        Column("prediction", unit="count", meaning="class that the network gave", source=source),
        Column("prediction_name", meaning="name of that class", source=source),
    )


CONFUSION = (
    *_TASK,
    *_of_image("train.confusion"),
    Column("images", unit="count", meaning="test images of this pair of classes", source="train.confusion"),
    *facts("task"),
)

EXAMPLES = (
    *_TASK,
    Column("artifact", meaning="file of the images, a path in the run folder", source="artifacts"),
    Column("position", unit="count", meaning="place of the image in that file, from 0", source="artifacts"),
    *_of_image("artifacts"),
    Column("probability", unit="fraction", meaning="probability that the network gave that class", source="artifacts"),
    *facts("task"),
)

Arrays = Mapping[str, Any]


def sight_tables(records: Mapping[str, Sequence[Record]], folders: Mapping[str, Path]) -> tuple[Table, Table]:
    """Lay out every test's confusion matrix, a row a pair of classes, and the test images that the trainings left."""
    confusion: list[Row] = []
    examples: list[Row] = []
    for run, of_run in records.items():
        for r in of_run:
            if r.task.stage == "train":
                arrays = _arrays(r, folders[run])
                confusion += _confusion(run, r, arrays)
                examples += _examples(run, r, arrays)
    return Table("confusion", CONFUSION, tuple(confusion)), Table("examples", EXAMPLES, tuple(examples))


def _arrays(record: Record, folder: Path) -> Arrays:
    """Read the examples of a training; none if it left none or they are gone."""
    if "examples" not in record.artifacts:
        return {}
    try:
        with np.load(folder / record.artifacts["examples"].path) as file:
            # The images are left where they are, for those who show them.
            return {name: file[name] for name in file.files if name != "image"}
    except (OSError, ValueError, BadZipFile):
        return {}


def _confusion(run: str, record: Record, arrays: Arrays) -> Iterator[Row]:
    for m in record.find("train.confusion"):
        number = int(m.tags["num_classes"])
        for pair, count in enumerate(m.values):
            label, prediction = divmod(pair, number)
            row = of_task(run, record) | _named(arrays, label=label, prediction=prediction) | {"images": int(count)}
            yield {column.name: row[column.name] for column in CONFUSION}


def _examples(run: str, record: Record, arrays: Arrays) -> Iterator[Row]:
    for position in range(len(arrays.get("label", ()))):
        label, prediction = (int(arrays[name][position]) for name in ("label", "prediction"))
        row = of_task(run, record) | _named(arrays, label=label, prediction=prediction)
        row |= {"artifact": record.artifacts["examples"].path, "position": position}
        row |= {"probability": float(arrays["probability"][position])}
        yield {column.name: row[column.name] for column in EXAMPLES}


def _named(arrays: Arrays, **classes: int) -> dict[str, Any]:
    names = arrays.get("classes")
    named = {f"{which}_name": None if names is None else str(names[index]) for which, index in classes.items()}
    return {**classes, **named}
