"""Preparation of a training: data on the device, the network, and the warm-up."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn

from cnnperf import models
from cnnperf.record import Measurement, single
from cnnperf.training.augment import WHOLE, Batches, Part
from cnnperf.training.evaluate import Evaluator, separate_random_numbers, unchanged
from cnnperf.training.images import DeviceImages, Normalize, split
from cnnperf.training.optimise import Step, autocast, trainable
from cnnperf.training.peak import Memory
from cnnperf.training.processes import Forward, OneProcess

if TYPE_CHECKING:
    from cnnperf.bench import Bench
    from cnnperf.task import Choice
    from cnnperf.training.recipe import Recipe

INITIALISE_IMAGES = 5000
"""Number of training images passed to a model's `initialise`."""
WARMUP_STEPS = 2
"""Warm-up steps: the first compiles, imports and allocates; the second measures the time of a step."""
MEASURED_STEPS = 2
"""Steps of the memory measurement: from the second on, the optimizer's state is allocated."""


@dataclass(frozen=True, slots=True)
class Data:
    """The images on the device, and the indices of each purpose on the CPU."""

    train: DeviceImages
    """The training and the validation images."""
    train_indices: Tensor
    validation_indices: Tensor
    test: DeviceImages
    normalize: Normalize
    raw: Normalize | None
    """Normalisation to pixels in [0, 1], if the recipe also tests on them."""
    part: Part = WHOLE
    """The part of each batch that this process trains on."""

    @classmethod
    def load(cls, bench: Bench, recipe: Recipe, part: Part = WHOLE) -> Data:
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
        return cls(train, *indices, test, normalize, raw, part)

    def batches(self, recipe: Recipe, seed: int) -> Batches:
        """Return the batches to train on, of each the part of this process."""
        return Batches(self.train, self.train_indices, recipe, self.normalize, seed, self.part)


@dataclass(frozen=True, slots=True)
class Network:
    """A network on the device, in the recipe's memory format, and its forward function."""

    model: nn.Module
    forward: Forward
    """The model, or its compiled form; returns the logits alone."""
    trained: Forward | None = None
    """The forward function of training steps; None: the same."""

    @classmethod
    def build(cls, bench: Bench, recipe: Recipe, data: Data) -> Network:
        """Build the task's model; if its file defines `initialise(model, images)`, weights are drawn from the data."""
        choice = bench.task.cell.model
        network = cls.create(choice, data.train.shape, len(bench.dataset.classes), recipe, bench.device.torch_name)
        initialise = models.initialise_of(choice)
        if initialise:
            shown = data.train.positions(data.train_indices[:INITIALISE_IMAGES]).to(bench.device.torch_name)
            initialise(network.model, data.normalize(data.train.take(shown).float()))
        return network

    @classmethod
    def create(
        cls, choice: Choice, shape: tuple[int, int, int], num_classes: int, recipe: Recipe, device: str
    ) -> Network:
        """Create a model for images of C×H×W, in training mode."""
        model = models.create(choice, shape, num_classes).to(device)
        if recipe.memory_format == "channels_last":
            model = model.to(memory_format=torch.channels_last)
        return cls(model.train(), _logits_of(torch.compile(model) if recipe.compile else model))

    def step(self, recipe: Recipe, device: str) -> Step:
        """Return the training step with new optimizers."""
        return Step(self.trained or self.forward, self.model, recipe, device)


def has_idle_parameters(bench: Bench, recipe: Recipe, data: Data, network: Network) -> bool:
    """Return whether a training step leaves a parameter without a gradient, as that of an auxiliary head.

    The network is left as it was.
    """
    device = bench.device.torch_name
    with separate_random_numbers(device), unchanged(network.model.buffers()):
        images, labels = next(data.batches(recipe, bench.task.seed))
        with autocast(recipe, device):
            logits = network.forward(images)
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
    parameters = trainable(network.model)
    is_idle = any(parameter.grad is None for parameter in parameters)
    for parameter in parameters:
        parameter.grad = None
    return is_idle


def _logits_of(network: Callable[[Tensor], Any]) -> Forward:
    """Return the network's forward function without its outputs besides the logits."""

    def forward(images: Tensor) -> Tensor:
        output = network(images)
        return output if isinstance(output, Tensor) else models.logits(output)

    return forward


class TrialSteps:
    """Steps (at a learning rate of 0) and evaluations before the training, without effect on it."""

    def __init__(
        self, bench: Bench, recipe: Recipe, data: Data, network: Network, processes: OneProcess | None = None
    ) -> None:
        """processes: None for one."""
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
        self._processes = processes or OneProcess()

    def warm_up(self) -> float:
        """Run a few steps and evaluations; return the seconds per step.

        Afterwards the evaluator knows its seconds per image.
        """
        device = self._bench.device
        with self._without_trace():
            step, batches = self._beginning()
            for _ in range(WARMUP_STEPS):
                device.synchronize()
                start = perf_counter()
                self._take(step, batches)
                device.synchronize()
                step_s = perf_counter() - start
            for _ in range(WARMUP_STEPS):
                self._evaluate(1)
        return step_s

    def memory(self, memory: Memory) -> Iterator[Measurement]:
        """Yield the peak memory of training steps and of an evaluation, above the memory before the first step.

        Before the first step the order and the augmentation of an epoch are drawn. The evaluation has as many batches
        as there were steps; the training's state, such as the optimizer's, stays allocated. Nothing is yielded if the
        system does not report it. The device must return freed memory, also while the data was loaded and the network
        built, because reuse of freed memory does not raise the peak.
        """
        with self._without_trace():
            # Excludes one-time compilation, imports and allocations. The batches are kept: the random numbers of an
            # epoch, drawn with its first batch, grow with the dataset and not with the work of a step.
            step, batches = self._beginning()
            self._take(step, batches)
            self._evaluate(1, flip=self._recipe.test_flip)
            del step
            is_reset = memory.begin()
            step = self._new_step()
            for _ in range(MEASURED_STEPS):
                self._processes.tell(0.0)
                images, labels = next(batches)
                step(images, labels, 0.0)
            of_steps = memory.risen()
            del images, labels  # An evaluation during a training holds no batch of a step.
            memory.again()
            self._evaluate(MEASURED_STEPS, flip=self._recipe.test_flip)
            of_evaluation = memory.risen()
        if is_reset and of_steps is not None and of_evaluation is not None:
            yield single("train.peak_above_start_bytes", "bytes", of_steps, "lower")
            yield single("train.evaluation_peak_above_start_bytes", "bytes", of_evaluation, "lower")

    def _beginning(self) -> tuple[Step, Batches]:
        return self._new_step(), self._data.batches(self._recipe, self._bench.task.seed)

    def _new_step(self) -> Step:
        self._processes.begin()
        return self._network.step(self._recipe, self._bench.device.torch_name)

    def _take(self, step: Step, batches: Batches) -> None:
        self._processes.tell(0.0)
        step(*next(batches), 0.0)

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
        self._processes.align(self._network.model)


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Prevent the garbage collector, which stays on, from traversing all of torch's objects during a step."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
