"""Evaluation outside the training clock, without effect on the training, planned for a quarter of its seconds."""

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
from cnnperf.training.recipe import SUBSETS

PLANNED_SHARE = 1 / 8
"""Share of the evaluation time planned for validation."""
VALIDATION_SHARE = 3 / 16
"""Maximum share for validation if the plan was wrong; the test takes the rest."""
FEW_POINTS = 10
"""Minimum points of a validation curve; fewer images are evaluated to reach it."""
TARGET_POINTS = 50
"""Maximum number of validations; higher if the time to a target accuracy is measured."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """A network's predictions for some images, on the CPU."""

    indices: Tensor
    labels: Tensor
    predictions: Tensor
    probabilities: Tensor
    """Probabilities of the predictions."""
    loss: float
    """Mean cross-entropy without label smoothing."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> Tensor:
        """Mask of the correct predictions."""
        return self.predictions == self.labels

    @property
    def accuracy(self) -> float:
        """Share of correct predictions."""
        return int(self.right.sum()) / len(self)


class Evaluator:
    """Runs a network in evaluation mode and measures the time spent."""

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
        """Seconds per image, as last measured."""
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

        flip: average the logits of each image and its mirror image. normalize: replaces the training's normalisation.
        """
        before = self.seconds
        with self._aside(), _evaluation_mode(self._model):
            outcome = self._classify(images, indices, flip, normalize or self._normalize)
        self.image_s = (self.seconds - before) / len(indices)
        return outcome

    def again(self, images: Tensor, labels: Tensor) -> int:
        """Return the number of correct predictions on a training batch now, in training mode, as in a step."""
        with self._aside(), unchanged(self._model.buffers()), self._autocast:
            return int((self._forward(images).argmax(1) == labels).sum())

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Leave weights and random numbers of the training unchanged, and count the time."""
        self._device.synchronize()
        start = perf_counter()
        with separate_random_numbers(self._device.torch_name), torch.inference_mode():
            yield
        self._device.synchronize()
        self.seconds += perf_counter() - start

    def _classify(self, images: DeviceImages, indices: Tensor, flip: bool, normalize: Normalize) -> Predictions:
        # The last batch is filled up with the first images, so that a compiled network sees one shape.
        count = len(indices)
        batches = math.ceil(count / self._batch_size)
        filled = indices[torch.arange(batches * self._batch_size) % count]
        positions = images.positions(filled).to(images.labels.device)
        first, *others = positions.view(batches, -1).unbind()
        found = self._logits(images, first, flip, normalize)
        # One tensor for all batches: small tensors kept from each batch would fragment the heap, and the next batch
        # would need new memory.
        gathered = found.new_empty((batches, *found.shape))
        gathered[0] = found
        for place, batch in enumerate(others, start=1):
            gathered[place] = self._logits(images, batch, flip, normalize)
        logits = gathered.flatten(0, 1)[:count]
        labels = images.labels[indices.to(images.labels.device)]
        loss = float(F.cross_entropy(logits, labels))
        if not math.isfinite(loss):
            raise StageError(
                f"the loss in evaluation is {loss}: weights or statistics of the network are not finite; lower lr"
            )
        probabilities, predictions = logits.softmax(dim=1).max(dim=1)
        return Predictions(indices, labels.cpu(), predictions.cpu(), probabilities.cpu(), loss)

    def _logits(self, images: DeviceImages, positions: Tensor, flip: bool, normalize: Normalize) -> Tensor:
        batch = normalize(images.take(positions).float())
        with self._autocast:
            logits = self._forward(batch).float()
            if flip:
                # A flipped view would give the network a memory layout that differs from its warm-up.
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
def unchanged(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Restore the tensors that a forward pass changes."""
    before = [(tensor, tensor.clone()) for tensor in tensors]
    try:
        yield
    finally:
        for tensor, value in before:
            tensor.copy_(value)


def separate_random_numbers(device: str) -> AbstractContextManager[None]:
    """Return a context that preserves torch's random state on the CPU and on the device."""
    found = torch.device(device)
    if found.type == "cpu":
        return torch.random.fork_rng([], device_type="cuda")
    return torch.random.fork_rng([found.index or 0], device_type=found.type)


def ladder(count: int) -> tuple[int, ...]:
    """Return the possible numbers of images to evaluate, out of `count`, in descending order."""
    return (count, *(size for size in SUBSETS if size < count))


def affordable(count: int, image_s: float, seconds: float) -> int:
    """Return the number of images, out of `count`, that can be evaluated in `seconds`, at least the minimum."""
    sizes = ladder(count)
    return next((size for size in sizes if size * image_s <= seconds), sizes[-1])


def pace(count: int, image_s: float, training_s: float, most: int) -> tuple[int, int]:
    """Choose the number of validation images and of evaluations for the remaining training seconds.

    The number of images is the largest that permits a few evaluations; the number of evaluations then fills the time,
    up to `most`.
    """
    seconds = PLANNED_SHARE * training_s
    images = affordable(count, image_s, seconds / FEW_POINTS)
    points = int(seconds / (images * image_s))
    return images, max(1, min(points, most))
