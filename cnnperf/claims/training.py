"""A training to a known accuracy, tested again by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from cnnperf.claims import Bar, CheckedFigure, Context, NotApplicable
from cnnperf.claims._stages import Made, ran

if TYPE_CHECKING:
    from torch import Tensor

CLAIM = "LeNet reaches its known accuracy, and the accuracy printed is that of the weights saved."
LIMIT_S = 180.0

SUITE: dict[str, Any] = {
    "datasets": ["mnist"],
    "models": [{"name": "lenet", "activation": "relu", "pool": "max"}],
    "threads": 1,
    "seed": 5,
    "train": {"steps": 600, "lr": 0.003, "validation_images": 0, "test_images": 10_000, "normalize": "dataset"},
}
BATCH = 1000


KNOWN = {
    "mnist": (0.9854, 0.9876, 0.9866, 0.9864, 0.9855),
    "synthetic": (0.9123, 0.9186, 0.9199, 0.9197, 0.9206),
}
"""Test accuracies by training images: SUITE with seeds 0 to 4, on an x86-64 CPU with torch 2.14.1."""
T_99 = 4.604
"""Quantile of Student's t with 4 degrees of freedom: 99 % lie within ±t."""
HELD = "99 % prediction interval of one more training, from five seeds"
EQUAL = Bar.within(0.0003, "sums in another order may turn one or two images of 10,000 whose two best logits are equal")


def check(context: Context) -> Iterator[CheckedFigure]:
    """Train on MNIST, or on generated images of its shape if it is unavailable, and test by hand on the CPU."""
    made = ran(context, "training", SUITE)
    [accuracy] = made.value("train", "train.test_accuracy")
    data = made.dataset.provenance
    if data.name not in KNOWN:
        raise NotApplicable(f"no accuracy is known for {data.name}")
    mean, half_width = predicted(KNOWN[data.name])
    yield CheckedFigure(
        quantity=f"LeNet on {data.name}, {SUITE['train']['steps']} steps",
        unit="fraction",
        figure=accuracy,
        reading=mean,
        source="mean of five seeds on a CPU",
        relative=False,
        bar=Bar.within(half_width, HELD),
        raw={"reading": KNOWN[data.name]},
    )
    yield CheckedFigure(
        quantity="the same weights, tested by hand",
        unit="fraction",
        figure=accuracy,
        reading=by_hand(made),
        source="a forward pass on the CPU over all test images",
        relative=False,
        bar=EQUAL,
    )


def predicted(known: Sequence[float]) -> tuple[float, float]:
    """Return the mean of five trainings, and the half-width of Student's t prediction interval for another training."""
    return fmean(known), T_99 * stdev(known) * math.sqrt(1 + 1 / len(known))


def by_hand(made: Made) -> float:
    """Return the share of test images that the weights classify correctly, computed with torch and NumPy only."""
    import torch

    from cnnperf import models

    data = made.dataset
    channels, height, width = data.test_images.shape[1:]
    model = models.create(made.record("train").task.cell.model, (channels, height, width), len(data.classes))
    model.load_state_dict(torch.load(made.artifact("train", "weights"), weights_only=True, map_location="cpu"))
    model.eval()
    mean, std = (torch.tensor(each)[:, None, None] for each in (data.mean, data.std))
    right = 0
    with torch.inference_mode():
        for start in range(0, len(data.test_labels), BATCH):
            pixels: Tensor = torch.from_numpy(data.test_images[start : start + BATCH].copy()).float() / 255
            labels = torch.from_numpy(data.test_labels[start : start + BATCH].copy())
            right += int((model((pixels - mean) / std).argmax(1) == labels).sum())
    return right / len(data.test_labels)
