"""The images that engines are given: the same bytes for each, scaled as the training scaled them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cnnperf.bench import Bench
from cnnperf.inference.samples import Inputs
from cnnperf.record import Record


@pytest.mark.parametrize(("kind", "low", "high"), [("half", -1.0, 1.0), ("unit", 0.0, 1.0), ("dataset", -1.25, 3.75)])
def test_images_are_scaled_as_the_training_scaled_them(
    bench: Callable[..., Bench], trained: Callable[..., Record], kind: str, low: float, high: float
) -> None:
    """By the settings of whatever stage left the weights; its name does not matter."""
    made = bench()
    record = trained(normalize=kind).model_copy(update={"artifacts": {"weights": "weights.pt"}})
    other = trained(normalize="half").model_copy(update={"artifacts": {"onnx": "model.onnx"}})
    inputs = Inputs.of(replace(made, needs={"export": other, "imagined": record}))
    ends = inputs.shift + np.array([0, 255]) * inputs.scale
    np.testing.assert_allclose(ends.ravel(), [low, high], rtol=1e-6)


def test_the_choice_of_images_is_the_same_on_every_machine(bench: Callable[..., Bench]) -> None:
    """Another choice would be another test: accuracies of two versions could not be compared."""
    inputs = Inputs.of(bench())
    chosen = inputs.train(3)
    images = inputs.train(len(inputs.dataset.train_labels))
    places = [next(i for i, image in enumerate(images) if np.array_equal(image, each)) for each in chosen]
    assert places == [79, 218, 453]


def test_images_of_an_untrained_network_have_mean_0_and_deviation_1(bench: Callable[..., Bench]) -> None:
    """By the dataset's own figures."""
    inputs = Inputs.of(bench())
    ends = inputs.shift + np.array([0, 255]) * inputs.scale
    np.testing.assert_allclose(ends.ravel(), [-1.25, 3.75], rtol=1e-6)
