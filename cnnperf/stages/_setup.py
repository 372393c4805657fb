"""What stands before the first step counts: the data on the device, the network, and both warmed up."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cnnperf import models
from cnnperf.stages._augment import Batches
from cnnperf.stages._evaluate import Evaluator, separate_random_numbers
from cnnperf.stages._images import Images, Normalize, split
from cnnperf.stages._optimise import Step, autocast

if TYPE_CHECKING:
    from cnnperf.stages import Bench
    from cnnperf.stages._recipe import Recipe

INITIALISE_IMAGES = 5000
"""How many training images a model's `initialise` is shown."""
WARMUP_STEPS = 2
"""The first compiles, imports and allocates; the second shows how long a step takes."""


@dataclass(frozen=True, slots=True)
class Data:
    """The images on the device, and which of them are for what; indices are on the CPU."""

    train: Images
    """The training and the validation images."""
    train_indices: Tensor
    validation_indices: Tensor
    test: Images
    normalize: Normalize
    raw: Normalize | None
    """To pixels in [0, 1], where the recipe tests on them too."""

    @classmethod
    def load(cls, bench: Bench, recipe: Recipe) -> Data:
        """Put the dataset's images on the device and divide the training images."""
        data, device = bench.dataset, bench.device.torch_name
        channels_last = recipe.memory_format == "channels_last"
        train = Images.load(
            data.train_images,
            data.train_labels,
            device,
            channels_last=channels_last,
            padding=recipe.crop,
            padding_mode=recipe.crop_padding,
        )
        test = Images.load(data.test_images, data.test_labels, device, channels_last=channels_last)
        indices = split(len(train), recipe.validation_images)
        normalize = Normalize(recipe.normalize, data.mean, data.std, train)
        raw = None if recipe.normalize_eval else Normalize("unit", data.mean, data.std, train)
        return cls(train, *indices, test, normalize, raw)

    def batches(self, recipe: Recipe, seed: int) -> Batches:
        """Return the batches to train on."""
        return Batches(self.train, self.train_indices, recipe, self.normalize, seed)


@dataclass(frozen=True, slots=True)
class Network:
    """A network on the device, in the recipe's memory format, and what to call for its logits."""

    model: nn.Module
    forward: Callable[[Tensor], Tensor]
    """The model, or what it was compiled to."""

    @classmethod
    def build(cls, bench: Bench, recipe: Recipe, data: Data) -> Network:
        """Build the task's model; where its file offers `initialise(model, images)`, weights come from the data."""
        choice = bench.task.cell.model
        model = models.create(choice, data.train.shape, len(bench.dataset.classes)).to(bench.device.torch_name)
        if recipe.memory_format == "channels_last":
            model = model.to(memory_format=torch.channels_last)
        initialise = models.initialise_of(choice)
        if initialise:
            shown = data.train.positions(data.train_indices[:INITIALISE_IMAGES]).to(bench.device.torch_name)
            initialise(model, data.normalize(data.train.take(shown).float()))
        return cls(model.train(), torch.compile(model) if recipe.compile else model)

    def step(self, recipe: Recipe, device: str) -> Step:
        """Return the training step, its optimizers new."""
        return Step(self.forward, self.model, recipe, device)


def warm_up(bench: Bench, recipe: Recipe, data: Data, network: Network) -> tuple[Evaluator, float]:
    """Train (at a learning rate of 0) and evaluate a little, then put everything back as it was.

    Returns the evaluator, which knows by now what an image costs it, and the seconds that a step takes.
    """
    device = bench.device
    evaluator = Evaluator(
        network.forward, network.model, device, data.normalize, recipe.batch_size, autocast(recipe, device.torch_name)
    )
    state = list(chain(network.model.parameters(), network.model.buffers()))
    before = [tensor.detach().clone() for tensor in state]
    with separate_random_numbers(device.torch_name):
        step, batches = network.step(recipe, device.torch_name), data.batches(recipe, bench.task.seed)
        for _ in range(WARMUP_STEPS):
            device.synchronize()
            start = perf_counter()
            step(*next(batches), 0.0)
            device.synchronize()
            step_s = perf_counter() - start
    for _ in range(WARMUP_STEPS):
        evaluator(data.train, data.train_indices[: recipe.batch_size])
    evaluator.seconds = 0.0
    with torch.no_grad():
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
    return evaluator, step_s


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Keep the garbage collector, which stays on, from going through all of torch's objects in the middle of a step."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
