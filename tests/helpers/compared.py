"""Records of two runs that are compared, and the verdict on one metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cnnperf.record import Measurement, Record
from cnnperf.regression.verdict import Comparison, Verdict

CELL = "cifar10/lenet/cpu"
Repeats = Callable[..., list[Record]]
Held = Callable[..., Comparison]


def once(
    metric: str, unit: str, value: float, better: str | None = "lower", remarks: Mapping[str, Any] = {}, **tags: Any
) -> Measurement:
    """Make a measurement of one value."""
    return Measurement.model_validate(
        {"metric": metric, "unit": unit, "better": better, "values": (value,), "tags": tags, "remarks": remarks}
    )


STEPS = once("train.steps", "count", 500, None)


def of(comparison: Comparison, metric: str) -> Verdict:
    """Return the verdict on one metric."""
    [verdict] = [v for v in comparison.verdicts if v.metric == metric]
    return verdict


def parity(value: float = 1, lost: int = 40, images: int = 10_000) -> list[Measurement]:
    """Make the measurements of an 8-bit engine's parity, with at most one image in a hundred lost."""
    counts = {"torch": lost, "engine": 0}
    right = [once(f"infer.right_in_{s}_only", "count", n, None, {"n": images}) for s, n in counts.items()]
    return [once("infer.parity", "1", value, None), *right]


def inferred(training: Record, repeat: int, accuracy: float, measured: Iterable[Measurement] = ()) -> Record:
    """Make the record of an engine's repeat, which reads the training of repeat 0."""
    more = tuple(measured)
    accurate = once("infer.test_accuracy", "fraction", accuracy, "higher", {"n": 10_000}, engine="onnxruntime")
    changes = {"stage": "infer", "needs": (training.key,), "repeat": repeat, "seed": training.task.seed + repeat}
    settings = {**training.task.settings, "max_accuracy_drop": 0.01}
    task = training.task.model_copy(update=changes | {"settings": settings})
    return training.model_copy(update={"task": task, "key": task.key, "measurements": (accurate, *more)})
