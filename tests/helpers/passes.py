"""A pass of forward and backward under hooks, for the profile's tests."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from cnnperf.devices.cpu import acquire
from cnnperf.models import logits
from cnnperf.profiling.hooks import Hooks, Listener
from cnnperf.profiling.layer_time import LayerTimer
from cnnperf.profiling.layers import Structure, discover


class Noted(Listener):
    """A listener that keeps the order in which layers begin."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def forward_begins(self, layer: str) -> None:
        """Keep the beginning of a layer's forward."""
        self.words.append(f"forward {layer}")

    def backward_begins(self, layer: str) -> None:
        """Keep the beginning of a layer's backward."""
        self.words.append(f"backward {layer}")


def structure_of(model: nn.Module, images: Tensor) -> Structure:
    """Return the layers of a network."""
    return discover(model, lambda: model(images))


def listen(
    model: nn.Module, images: Tensor, listener: Listener, within: AbstractContextManager[Any] | None = None
) -> None:
    """Run forward and backward with a sum as the loss, and tell the listener of each layer."""
    structure = structure_of(model, images)
    with Hooks(structure, listener) as hooks, within or nullcontext():
        loss = hooks.call("(loss)", torch.sum, logits(model(images)))
        hooks.watch_rest(loss)
        loss.backward()


def times(model: nn.Module, images: Tensor, samples: int = 5) -> Mapping[str, Mapping[str, float]]:
    """Return the least seconds of each layer over a few passes, since disturbances only add time."""
    device, structure = acquire(), structure_of(model, images)
    least: dict[str, dict[str, float]] = {"forward": {}, "backward": {}}
    for _ in range(samples):
        timer = LayerTimer(device)
        with Hooks(structure, timer) as hooks:
            start = device.mark()
            output = model(images)
            middle = device.mark()
            loss = hooks.call("(loss)", torch.sum, logits(output))
            hooks.watch_rest(loss)
            begin = device.mark()
            loss.backward()
            end = device.mark()
        read = timer.read(device.elapsed_s(start, middle), device.elapsed_s(begin, end))
        for direction, of_layer in read.items():
            for layer, seconds in of_layer.items():
                least[direction][layer] = min(seconds, least[direction].get(layer, seconds))
    return least
