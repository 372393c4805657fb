"""The images that engines get: the same for each engine, and scaled as in the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cnnperf.bench import Bench
from cnnperf.inference.inputs import Inputs
from cnnperf.record import Record


@pytest.mark.parametrize(("kind", "low", "high"), [("half", -1.0, 1.0), ("unit", 0.0, 1.0), ("dataset", -1.25, 3.75)])
def test_images_are_scaled_as_the_training_scaled_them(
    bench: Callable[..., Bench], trained: Callable[..., Record], kind: str, low: float, high: float
) -> None:
    """Images are scaled by the settings of the stage that wrote the weights, whatever its name."""
    made = bench()
    record = trained(normalize=kind).model_copy(update={"artifacts": {"weights": "weights.pt"}})
    other = trained(normalize="half").model_copy(update={"artifacts": {"onnx": "model.onnx"}})
    inputs = Inputs.of(replace(made, needs={"export": other, "imagined": record}))
    ends = inputs.shift + np.array([0, 255]) * inputs.scale
    np.testing.assert_allclose(ends.ravel(), [low, high], rtol=1e-6)


def test_the_choice_of_images_is_the_same_on_every_machine(bench: Callable[..., Bench]) -> None:
    """The chosen images have fixed places in the dataset, so that accuracies of two versions are comparable."""
    inputs = Inputs.of(bench())
    chosen = inputs.train(3)
    images = inputs.train(len(inputs.dataset.train_labels))
    places = [next(i for i, image in enumerate(images) if np.array_equal(image, each)) for each in chosen]
    assert places == [79, 218, 453]


def test_images_of_an_untrained_network_have_mean_0_and_deviation_1(bench: Callable[..., Bench]) -> None:
    """Images of an untrained network are scaled by the dataset's mean and deviation."""
    inputs = Inputs.of(bench())
    ends = inputs.shift + np.array([0, 255]) * inputs.scale
    np.testing.assert_allclose(ends.ravel(), [-1.25, 3.75], rtol=1e-6)
