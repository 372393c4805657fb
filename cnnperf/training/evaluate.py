"""Evaluation: outside the training clock, without a trace in the training, at most a quarter of its seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn

from cnnperf.devices import Device
from cnnperf.errors import StageError
from cnnperf.training.images import DeviceImages, Normalize

SHARE = 1 / 4
"""What evaluation may cost, as a share of the training seconds, unless the fewest images already cost more."""
PLANNED_SHARE = 1 / 8
"""What of it is planned for validation …"""
VALIDATION_SHARE = 3 / 16
"""… and what validation may come to where the plan was wrong; the test takes what is left."""
SUBSETS = (5000, 2000)
"""How many images are evaluated where all are too many; the last is the floor."""
FEW_POINTS = 10
"""A validation curve with fewer points is drawn on fewer images instead."""
POINTS = 20
TARGET_POINTS = 50
"""How often is validated at most; more often if it is the time to a target that is asked."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """A network's predictions for some images, on the CPU."""

    indices: Tensor
    labels: Tensor
    predictions: Tensor
    probabilities: Tensor
    """Of the predictions."""
    loss: float
    """Mean cross-entropy, labels not smoothed."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> Tensor:
        """Which predictions are right."""
        return self.predictions == self.labels

    @property
    def accuracy(self) -> float:
        """Share of right predictions."""
        return int(self.right.sum()) / len(self)


class Evaluator:
    """Runs a network in evaluation mode and keeps account of the time."""

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        model: nn.Module,
        device: Device,
        normalize: Normalize,
        batch_size: int,
        autocast: Any,
    ) -> None:
        self.seconds = 0.0
        self.image_s = 0.0
        """Seconds an image, as last measured."""
        self._forward = forward
        self._model = model
        self._device = device
        self._normalize = normalize
        self._batch_size = batch_size
        self._autocast = autocast

    def __call__(
        self, images: DeviceImages, indices: Tensor, *, flip: bool = False, normalize: Normalize | None = None
    ) -> Predictions:
        """Classify the images with these indices (on the CPU), in batches of the training's size.

        flip: by the mean of the logits of each image and of its mirror image. normalize: instead of the training's.
        """
        before = self.seconds
        with self._aside(), _evaluation_mode(self._model):
            outcome = self._classify(images, indices, flip, normalize or self._normalize)
        self.image_s = (self.seconds - before) / len(indices)
        return outcome

    def again(self, images: Tensor, labels: Tensor) -> int:
        """Return how many of a training batch are right by now; in training mode, as in a step."""
        with self._aside(), _kept(self._model.buffers()), self._autocast:
            return int((self._forward(images).argmax(1) == labels).sum())

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Let nothing be learned or drawn that training would notice, and count the time."""
        self._device.synchronize()
        start = perf_counter()
        with separate_random_numbers(self._device.torch_name), torch.inference_mode():
            yield
        self._device.synchronize()
        self.seconds += perf_counter() - start

    def _classify(self, images: DeviceImages, indices: Tensor, flip: bool, normalize: Normalize) -> Predictions:
        # The last batch is filled up with the first images: a compiled network has one shape to serve.
        count = len(indices)
        batches = math.ceil(count / self._batch_size)
        filled = indices[torch.arange(batches * self._batch_size) % count]
        positions = images.positions(filled).to(images.labels.device)
        first, *others = positions.view(batches, -1).unbind()
        found = self._logits(images, first, flip, normalize)
        # One tensor for all batches: a small one kept from each would lie in a hole of the heap into which a layer's
        # output would have fitted, and the next batch would take fresh memory.
        gathered = found.new_empty((batches, *found.shape))
        gathered[0] = found
        for place, batch in enumerate(others, start=1):
            gathered[place] = self._logits(images, batch, flip, normalize)
        logits = gathered.flatten(0, 1)[:count]
        labels = images.labels[indices.to(images.labels.device)]
        loss = float(F.cross_entropy(logits, labels))
        if not math.isfinite(loss):
            raise StageError(
                f"the loss in evaluation is {loss}: the network's weights or statistics are not finite; lower lr"
            )
        probabilities, predictions = logits.softmax(dim=1).max(dim=1)
        return Predictions(indices, labels.cpu(), predictions.cpu(), probabilities.cpu(), loss)

    def _logits(self, images: DeviceImages, positions: Tensor, flip: bool, normalize: Normalize) -> Tensor:
        batch = normalize(images.take(positions).float())
        with self._autocast:
            logits = self._forward(batch).float()
            if flip:
                # A view read backwards would give the network another order in memory than it was warmed up on.
                mirrored = torch.empty_like(batch).copy_(batch.flip(-1))
                logits = (logits + self._forward(mirrored).float()) / 2
        return logits


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _kept(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Put tensors that a forward pass changes back as they were."""
    before = [(tensor, tensor.clone()) for tensor in tensors]
    try:
        yield
    finally:
        for tensor, value in before:
            tensor.copy_(value)


def separate_random_numbers(device: str) -> AbstractContextManager[None]:
    """Return a context that leaves torch's random numbers as they were, on the CPU and on the device."""
    found = torch.device(device)
    if found.type == "cpu":
        return torch.random.fork_rng([], device_type="cuda")
    return torch.random.fork_rng([found.index or 0], device_type=found.type)


def ladder(count: int) -> tuple[int, ...]:
    """Return how many of `count` images may be evaluated, the most first."""
    return (count, *(size for size in SUBSETS if size < count))


def affordable(count: int, image_s: float, seconds: float) -> int:
    """Return how many of `count` images can be evaluated in `seconds`; where not even the fewest can, those."""
    sizes = ladder(count)
    return next((size for size in sizes if size * image_s <= seconds), sizes[-1])


def pace(count: int, image_s: float, training_s: float, most: int) -> tuple[int, int]:
    """Choose how many validation images to evaluate and how often, given the training seconds to come.

    As many images as leave room for a few evaluations, then as many evaluations as there is time for, up to `most`.
    """
    seconds = PLANNED_SHARE * training_s
    images = affordable(count, image_s, seconds / FEW_POINTS)
    points = int(seconds / (images * image_s))
    return images, max(1, min(points, most))
