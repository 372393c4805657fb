"""A model on the meta device: built and run on a batch of two without computation."""

from __future__ import annotations

from dataclasses import dataclass

from cnnperf import models
from cnnperf.errors import UsageError, shorten
from cnnperf.task import Choice
from cnnperf.units import shape_in_words


@dataclass(frozen=True, slots=True)
class TriedModel:
    """Preflight's facts of a model: its size, arithmetic and outputs."""

    weight_bytes: int
    flops: int
    """FLOPs of one image's forward pass."""
    extras: str
    """Description of the outputs besides the logits; empty if there are none."""


def try_model(choice: Choice, shape: tuple[int, int, int], num_classes: int) -> TriedModel:
    """Build a model for images of C×H×W and run a batch of two through it, in evaluation mode. Raises UsageError."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with torch.device("meta"):
            model = models.create(choice, shape, num_classes).eval()
            with FlopCounterMode(display=False) as counter:
                output = model(torch.empty(2, *shape))
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{str(choice)!r} cannot be built and run on {shape_in_words(shape)} images; give options that fit "
            f"({type(error).__name__}: {shorten(error)})"
        ) from error
    logits = models.logits(output)
    if logits.shape != (2, num_classes):
        got = shape_in_words(logits.shape)
        raise UsageError(f"{str(choice)!r} must return logits of 2×{num_classes} for a batch of 2, got {got}")
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    extras = "" if output is logits else f"a {type(output).__name__} of {len(output)}"
    return TriedModel(weight_bytes=size, flops=counter.get_total_flops() // 2, extras=extras)
