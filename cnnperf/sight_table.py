"""From records to what the networks see: the confusion of classes, and test images with what was said of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from cnnperf.record import Record
from cnnperf.run_table import of_task
from cnnperf.table import Column, Row, Table

_TASK = (*(Column(name) for name in ("run", "dataset", "data", "model", "device")), Column("repeat", unit="count"))

CONFUSION = (
    *_TASK,
    Column("label", unit="count"),
    Column("label_name"),
    Column("prediction", unit="count"),
    Column("prediction_name"),
    Column("images", unit="count"),
    Column("task"),
)

EXAMPLES = (
    *_TASK,
    Column("artifact"),
    Column("position", unit="count"),
    Column("label", unit="count"),
    Column("label_name"),
    Column("prediction", unit="count"),
    Column("prediction_name"),
    Column("probability", unit="fraction"),
    Column("task"),
)
"""`artifact` is a path in the run folder, `position` the image's place in it; probability is the prediction's."""

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
        with np.load(folder / record.artifacts["examples"]) as file:
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
        row |= {"artifact": record.artifacts["examples"], "position": position}
        row |= {"probability": float(arrays["probability"][position])}
        yield {column.name: row[column.name] for column in EXAMPLES}


def _named(arrays: Arrays, **classes: int) -> dict[str, Any]:
    names = arrays.get("classes")
    named = {f"{which}_name": None if names is None else str(names[index]) for which, index in classes.items()}
    return {**classes, **named}
