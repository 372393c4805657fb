"""The tables of the confusion matrix and of example images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnnperf.errors import CnnperfWarning
from cnnperf.record import Artifact, Measurement, Record
from cnnperf.tables.predictions import prediction_tables


def test_pairs_of_classes_and_images_have_rows_with_names(tmp_path: Path, trained: Callable[..., Record]) -> None:
    """Each pair of classes and each image has a row, with the classes' names if the artifact has them."""
    tags = {"num_classes": 2, "rows": "label", "columns": "prediction"}
    counts = Measurement(metric="train.confusion", unit="count", better=None, values=(4, 1, 2, 3), tags=tags)
    record = trained(measured=[counts]).model_copy(update={"artifacts": {"examples": Artifact(path="examples.npz")}})
    found = {"label": [1, 0], "prediction": [0, 0], "probability": [0.75, 0.5], "image": np.zeros((2, 1, 2, 2))}
    np.savez(tmp_path / "examples.npz", classes=np.array(["cat", "dog"]), **found)
    confusion, examples = prediction_tables({"suite/run": (record,)}, {"suite/run": tmp_path})
    assert [(row["label_name"], row["prediction_name"], row["images"]) for row in confusion.rows] == [
        ("cat", "cat", 4),
        ("cat", "dog", 1),
        ("dog", "cat", 2),
        ("dog", "dog", 3),
    ]
    assert [(r["position"], r["label_name"], r["prediction"], r["probability"]) for r in examples.rows] == [
        (0, "dog", 0, 0.75),
        (1, "cat", 0, 0.5),
    ]
    np.savez(tmp_path / "examples.npz", **found)
    confusion, examples = prediction_tables({"suite/run": (record,)}, {"suite/run": tmp_path})
    assert {row["label_name"] for row in (*confusion.rows, *examples.rows)} == {None}
    (tmp_path / "examples.npz").unlink()
    confusion, examples = prediction_tables({"suite/run": (record,)}, {"suite/run": tmp_path})
    assert (len(confusion.rows), len(examples.rows)) == (4, 0)


def test_of_many_classes_only_the_pairs_with_images_have_rows(tmp_path: Path, trained: Callable[..., Record]) -> None:
    """A table of 101 classes has only pairs with an image, one of 100 classes all pairs."""
    rows = {}
    for number in (100, 101):
        values = [0] * number**2
        values[3 * number + 4] = 7
        tags = {"num_classes": number, "rows": "label", "columns": "prediction"}
        counts = Measurement(metric="train.confusion", unit="count", better=None, values=tuple(values), tags=tags)
        confusion, _ = prediction_tables({"run": (trained(measured=[counts]),)}, {"run": tmp_path})
        rows[number] = [(row["label"], row["prediction"], row["images"]) for row in confusion.rows]
    assert rows[101] == [(3, 4, 7)]
    assert (len(rows[100]), sum(images for *_, images in rows[100])) == (10_000, 7)


def test_images_that_have_changed_are_left_out_with_a_warning(tmp_path: Path, trained: Callable[..., Record]) -> None:
    """A changed file of images gives no rows and a warning that names it."""
    path = tmp_path / "examples.npz"
    np.savez(path, label=[1], prediction=[0], probability=[0.75])
    record = trained().model_copy(update={"artifacts": {"examples": Artifact.of(tmp_path, path.name)}})
    _, examples = prediction_tables({"suite/run": (record,)}, {"suite/run": tmp_path})
    assert len(examples.rows) == 1
    np.savez(path, label=[1], prediction=[1], probability=[0.75])
    with pytest.warns(CnnperfWarning, match=r"^test images are left out: .*examples\.npz: its content has changed"):
        _, examples = prediction_tables({"suite/run": (record,)}, {"suite/run": tmp_path})
    assert not examples.rows
