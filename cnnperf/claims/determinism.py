"""Equality of two trainings with the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cnnperf.claims import Bar, CheckedFigure, Context
from cnnperf.claims._stages import ran

CLAIM = "Same seed, same threads, a budget in steps, on the CPU: the loss curve is equal bit by bit."
LIMIT_S = 120.0

STEPS = 40
TRAINING: dict[str, Any] = {
    "datasets": [{"name": "synthetic", "shape": [1, 28, 28], "train": 2048, "test": 256}],
    "models": ["lenet"],
    "train": {"steps": STEPS, "batch_size": 64, "validation_images": 0},
}
BAR = Bar.within(0, "bit by bit")


def check(context: Context) -> Iterator[CheckedFigure]:
    """Train LeNet twice in fresh processes, and count the steps whose losses differ in any bit.

    On other devices than the CPU the count is only reported, because their kernels may add in any order.
    """
    first, second = (
        ran(context, "determinism", TRAINING, copy=copy).value("train", "train.loss") for copy in ("-1", "-2")
    )
    differing = sum(one != other for one, other in zip(first, second, strict=True))
    yield CheckedFigure(
        quantity=f"steps of {len(first)} whose loss differs",
        unit="count",
        figure=differing,
        reading=0,
        source="the same training in another process",
        relative=False,
        bar=BAR if context.device == "cpu" else None,
        raw={"first": first, "second": second},
    )
