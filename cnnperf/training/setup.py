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
from cnnperf.record import Measurement, single
from cnnperf.training.augment import Batches
from cnnperf.training.evaluate import Evaluator, separate_random_numbers
from cnnperf.training.images import DeviceImages, Normalize, split
from cnnperf.training.optimise import Step, autocast
from cnnperf.training.peak import Memory

if TYPE_CHECKING:
    from cnnperf.bench import Bench
    from cnnperf.training.recipe import Recipe

INITIALISE_IMAGES = 5000
"""How many training images a model's `initialise` is shown."""
WARMUP_STEPS = 2
"""The first compiles, imports and allocates; the second shows how long a step takes."""
MEASURED_STEPS = 2
"""From the second on, the optimizer's state stands beside all else that a step needs."""


@dataclass(frozen=True, slots=True)
class Data:
    """The images on the device, and which of them are for what; indices are on the CPU."""

    train: DeviceImages
    """The training and the validation images."""
    train_indices: Tensor
    validation_indices: Tensor
    test: DeviceImages
    normalize: Normalize
    raw: Normalize | None
    """To pixels in [0, 1], where the recipe tests on them too."""

    @classmethod
    def load(cls, bench: Bench, recipe: Recipe) -> Data:
        """Put the dataset's images on the device and divide the training images."""
        data, device = bench.dataset, bench.device.torch_name
        channels_last = recipe.memory_format == "channels_last"
        train = DeviceImages.load(
            data.train_images,
            data.train_labels,
            device,
            channels_last=channels_last,
            padding=recipe.crop,
            padding_mode=recipe.crop_padding,
        )
        test = DeviceImages.load(data.test_images, data.test_labels, device, channels_last=channels_last)
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


class Rehearsal:
    """Steps (at a learning rate of 0) and evaluations that are no part of the training and leave no trace in it."""

    def __init__(self, bench: Bench, recipe: Recipe, data: Data, network: Network) -> None:
        self.evaluator = Evaluator(
            network.forward,
            network.model,
            bench.device,
            data.normalize,
            recipe.batch_size,
            autocast(recipe, bench.device.torch_name),
        )
        self._bench = bench
        self._recipe = recipe
        self._data = data
        self._network = network

    def warm_up(self) -> float:
        """Train and evaluate a little; returns the seconds that a step takes.

        The evaluator knows by now what an image costs it.
        """
        device = self._bench.device
        with self._without_trace():
            step, batches = self._beginning()
            for _ in range(WARMUP_STEPS):
                device.synchronize()
                start = perf_counter()
                step(*next(batches), 0.0)
                device.synchronize()
                step_s = perf_counter() - start
            for _ in range(WARMUP_STEPS):
                self._evaluate(1)
        return step_s

    def memory(self, memory: Memory) -> Iterator[Measurement]:
        """Yield how far training steps, and an evaluation, rise above what stands before the first step.

        The evaluation is of as many batches as there were steps; what the training keeps, such as the optimizer's
        state, stands meanwhile. Nothing is yielded where the system does not tell. The device must be returning memory,
        and must have been when the data was loaded and the network built: what was freed before leaves holes.
        """
        with self._without_trace():
            # What is compiled, imported and allocated once is no part of a step.
            step, batches = self._beginning()
            step(*next(batches), 0.0)
            self._evaluate(1, flip=self._recipe.test_flip)
            del step, batches
            is_reset = memory.begin()
            step, batches = self._beginning()
            for _ in range(MEASURED_STEPS):
                images, labels = next(batches)
                step(images, labels, 0.0)
            of_steps = memory.risen()
            memory.again()
            self._evaluate(MEASURED_STEPS, flip=self._recipe.test_flip)
            of_evaluation = memory.risen()
        if is_reset and of_steps is not None and of_evaluation is not None:
            yield single("train.peak_above_start_bytes", "bytes", of_steps, "lower")
            yield single("train.evaluation_peak_above_start_bytes", "bytes", of_evaluation, "lower")

    def _beginning(self) -> tuple[Step, Batches]:
        recipe, bench = self._recipe, self._bench
        return self._network.step(recipe, bench.device.torch_name), self._data.batches(recipe, bench.task.seed)

    def _evaluate(self, batches: int, *, flip: bool = False) -> None:
        self.evaluator(self._data.train, self._data.train_indices[: batches * self._recipe.batch_size], flip=flip)

    @contextmanager
    def _without_trace(self) -> Iterator[None]:
        state = list(chain(self._network.model.parameters(), self._network.model.buffers()))
        before = [tensor.detach().clone() for tensor in state]
        with separate_random_numbers(self._bench.device.torch_name):
            yield
        self.evaluator.seconds = 0.0
        with torch.no_grad():
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Keep the garbage collector, which stays on, from going through all of torch's objects in the middle of a step."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
