"""The table of training curves: one row per evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnnperf import record
from cnnperf.record import Measurement, Record, single
from cnnperf.tables.curves import curves, training_curves

Trained = Callable[..., Record]


def point(name: str, step: int, value: float, **remarks: Any) -> Measurement:
    """Make an evaluation during training."""
    remarks = {"step": step, "samples": 128 * step, "seconds": 0.5 * step, "epoch": step / 100, "n": 2000} | remarks
    return single(f"train.{name}", "fraction", value, "higher", remarks)


def test_curves_have_a_row_an_evaluation(tmp_path: Path, trained: Trained) -> None:
    """Accuracies at one step share a row, and the loss is the mean since the previous evaluation."""
    loss = Measurement(metric="train.loss", unit="1", better="lower", values=(4.0, 2.0, 1.0, 0.5, 0.3))
    points = [
        point("validation_accuracy", 4, 0.6),
        point("train_accuracy", 2, 0.3, n=500),
        point("validation_accuracy", 2, 0.4),
    ]
    record.append(tmp_path, trained(repeat=1, measured=[loss, *points]))
    frame = curves([tmp_path])
    shown = frame[["repeat", "seed", "step", "samples", "seconds", "epoch", "train_loss", "validation_accuracy", "n"]]
    assert shown.to_numpy().tolist() == [
        [1, 8, 2, 256, 1.0, 0.02, 3.0, 0.4, 2000],
        [1, 8, 4, 512, 2.0, 0.04, 0.75, 0.6, 2000],
    ]
    assert [row["train_accuracy"] for row in training_curves({"r": record.read(tmp_path)}).rows] == [0.3, None]


def test_curves_tell_the_readings_of_an_epoch_apart(trained: Trained) -> None:
    """Accuracies after the step and on raw pixels have columns of their own."""
    points = [
        point("train_accuracy", 2, 0.3, n=500),
        point("train_accuracy_after_step", 2, 0.5, n=100),
        point("epoch_test_accuracy", 2, 0.4),
        point("epoch_test_accuracy_raw", 2, 0.1),
    ]
    (row,) = training_curves({"r": (trained(measured=points),)}).rows
    names = ("train_accuracy", "train_accuracy_after_step", "test_accuracy", "test_accuracy_raw", "validation_accuracy")
    assert [row[name] for name in (*names, "n")] == [0.3, 0.5, 0.4, 0.1, None, 2000]
