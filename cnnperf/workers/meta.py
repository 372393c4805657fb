"""A trial of a model: built and run on a batch of two, on the meta device or, where that fails, for real."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnnperf import models
from cnnperf.errors import UsageError, shorten
from cnnperf.task import Choice
from cnnperf.units import shape_in_words

if TYPE_CHECKING:
    from torch import nn

PLACES = ("meta", "cpu")
"""Devices of the trial, in this order: on the meta device nothing is computed, but code that reads a tensor's values
(such as drop rates from `torch.linspace`) fails there."""


@dataclass(frozen=True, slots=True)
class Extras:
    """The outputs of a network besides its logits."""

    words: str
    """The whole output, such as `a tuple of 2`, or its class if it names its values."""
    names: tuple[str, ...] | None
    """Names of the outputs besides the logits; None if the network does not name its outputs."""


@dataclass(frozen=True, slots=True)
class TriedModel:
    """Preflight's facts of a model: its size, arithmetic and outputs."""

    weight_bytes: int
    flops: int
    """FLOPs of one image's forward pass."""
    extras: Extras | None = None
    """The further outputs in evaluation mode."""
    training_extras: Extras | None = None
    """The further outputs in training mode."""
    training_fault: str | None = None
    """The reason why the forward pass fails in training mode; None if it works."""
    batch: int | None = None
    """The only batch size that an ONNX file takes; None if it takes any."""
    unchecked: str | None = None
    """The reason why the output of an ONNX file has no reference; None if it returns logits."""


def try_model(choice: Choice, shape: tuple[int, int, int], num_classes: int) -> TriedModel:
    """Build a model for images of C×H×W and run a batch of two through it, in both modes.

    Raises UsageError if it cannot be built, fails in evaluation mode, or returns other than logits.
    """
    fault: BaseException | None = None
    for place in PLACES:
        try:
            return _tried(choice, shape, num_classes, place)
        except UsageError:
            raise
        except (Exception, SystemExit) as error:  # Building and running a model may raise anything.
            fault = error
    raise UsageError(
        f"{str(choice)!r} cannot be built and run on {shape_in_words(shape)} images; give options that fit "
        f"({type(fault).__name__}: {shorten(fault)})"
    ) from fault


def _tried(choice: Choice, shape: tuple[int, int, int], num_classes: int, place: str) -> TriedModel:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device(place):
        model = models.create(choice, shape, num_classes).eval()
        images = torch.zeros(2, *shape)
        with FlopCounterMode(display=False) as counter:
            output = model(images)
        extras = _extras(choice, output, num_classes)
        fault, in_training = None, None
        try:
            in_training = _extras(choice, model.train()(images), num_classes)
        except Exception as error:
            if place == "meta" and not isinstance(error, UsageError):
                raise
            fault = _training_fault(choice, shape, error)
    return TriedModel(
        weight_bytes=_size(model),
        flops=counter.get_total_flops() // 2,
        extras=extras,
        training_extras=in_training,
        training_fault=fault,
    )


def _training_fault(choice: Choice, shape: tuple[int, int, int], error: Exception) -> str:
    if isinstance(error, UsageError):
        return f"in training mode {error}"
    return (
        f"{str(choice)!r} runs on {shape_in_words(shape)} images in evaluation mode, but not in training mode; give "
        f"options or images that fit ({type(error).__name__}: {shorten(error)})"
    )


def _size(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def _extras(choice: Choice, output: Any, num_classes: int) -> Extras | None:
    """Return the outputs besides the logits; None if there are none. Raises UsageError for other logits."""
    logits = models.logits(output)
    if logits.shape != (2, num_classes):
        got = shape_in_words(logits.shape)
        raise UsageError(f"{str(choice)!r} must return logits of 2×{num_classes} for a batch of 2, got {got}")
    if output is logits:
        return None
    named = models.named_outputs(output)
    if named:
        others = tuple(name for name, value in named.items() if value is not logits and value is not None)
        return Extras(type(output).__name__, others)
    count = f" of {len(output)}" if isinstance(output, Sized) else ""
    return Extras(f"a {type(output).__name__}{count}", None)
