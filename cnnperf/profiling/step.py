"""One profiled step of a network, in training or inference, with or without hooks, each part marked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn
from torch.optim import Optimizer

from cnnperf import models
from cnnperf.profiling.hooks import Hooks
from cnnperf.profiling.rows import DATA, LOSS, OPTIMIZER
from cnnperf.training.augment import Batches
from cnnperf.training.evaluate import separate_random_numbers
from cnnperf.training.optimise import Update, autocast, optimizers, trainable

if TYPE_CHECKING:
    from cnnperf.devices import Device
    from cnnperf.training.recipe import Recipe

FORWARD, BACKWARD = "forward", "backward"

Marks = Mapping[str, tuple[Any, Any]]
"""Begin and end of each part of a step on the device's clock."""


class ProfiledStep(Protocol):
    """Takes one step; only the part inside `within` belongs to the network."""

    optimizers: list[Optimizer]

    def __call__(self, hooks: Hooks | None = None, within: AbstractContextManager[Any] = ...) -> Marks:
        """Take one step and return the times of its parts; hooks are already attached.

        Raises UsageError if the network returns no tensor.
        """


class TrainingStep:
    """Batch, forward, loss, backward and update; the update is made with a learning rate of 0."""

    def __init__(self, model: nn.Module, batches: Batches, recipe: Recipe, device: Device) -> None:
        self._update = Update(optimizers(trainable(model), recipe), recipe, device.torch_name)
        self.optimizers = self._update.optimizers
        # Set afterwards: equal rates would make one group of weights and biases, which are updated together.
        for group in chain.from_iterable(optimizer.param_groups for optimizer in self.optimizers):
            group["lr"] = 0.0
        self._model = model
        self._batches = batches
        self._smoothing = recipe.label_smoothing
        self._autocast = autocast(recipe, device.torch_name)
        self._mark = device.mark

    def __call__(self, hooks: Hooks | None = None, within: AbstractContextManager[Any] = nullcontext()) -> Marks:  # noqa: B008 - it holds nothing
        """Take one step."""
        mark = self._mark
        marks: dict[str, tuple[Any, Any]] = {}
        with _part(DATA, mark, marks, hooks):
            images, labels = next(self._batches)
            # Copied: otherwise they are views of the whole epoch's labels, which would count as saved.
            labels = labels.clone()

        def cross_entropy(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, label_smoothing=self._smoothing)

        with within:
            start = mark()
            with self._autocast:
                output = self._model(images)
            marks[FORWARD] = start, mark()
            logits = models.logits(output).float()
            loss = hooks.call(LOSS, cross_entropy, logits) if hooks else cross_entropy(logits)
            if hooks:
                hooks.watch_rest(loss)
            start = mark()
            self._update.backward(loss)
            marks[BACKWARD] = start, mark()
        with _part(OPTIMIZER, mark, marks, hooks):
            self._update.step()
            for parameter in self._model.parameters():
                parameter.grad = None
        return marks


class InferenceStep:
    """Batch and forward pass in inference mode."""

    def __init__(self, model: nn.Module, batches: Batches, recipe: Recipe, device: Device) -> None:
        self.optimizers: list[Optimizer] = []
        self._model = model
        self._batches = batches
        self._autocast = autocast(recipe, device.torch_name)
        self._mark = device.mark

    def __call__(self, hooks: Hooks | None = None, within: AbstractContextManager[Any] = nullcontext()) -> Marks:  # noqa: B008 - it holds nothing
        """Take one step."""
        mark = self._mark
        marks: dict[str, tuple[Any, Any]] = {}
        with _part(DATA, mark, marks, hooks):
            images, _ = next(self._batches)
        with within, torch.inference_mode(), self._autocast:
            start = mark()
            output = self._model(images)
            marks[FORWARD] = start, mark()
            models.logits(output)  # Raises if there are none.
        return marks


STEP_KINDS: dict[str, Callable[..., TrainingStep | InferenceStep]] = {"train": TrainingStep, "infer": InferenceStep}
"""The step classes by mode."""


@contextmanager
def _part(name: str, mark: Callable[[], Any], marks: dict[str, tuple[Any, Any]], hooks: Hooks | None) -> Iterator[None]:
    """Mark a part of the step other than forward and backward, and notify the listener."""
    if hooks:
        hooks.listener.part_begins(name)
    start = mark()
    yield
    marks[name] = start, mark()
    if hooks:
        hooks.listener.part_ends(name)


@contextmanager
def restored(model: nn.Module, device: str) -> Iterator[None]:
    """Restore weights, statistics, gradients, modes, threads and random state at the end, also after an error."""
    state = list(chain(model.parameters(), model.buffers()))
    before = [tensor.detach().clone() for tensor in state]
    gradients = [parameter.grad for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    threads = torch.get_num_threads()
    for parameter in model.parameters():
        parameter.grad = None
    try:
        with separate_random_numbers(device):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        for module, training in modes:
            module.training = training
        torch.set_num_threads(threads)
