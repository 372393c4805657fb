"""Seconds of every torch layer's forward pass in evaluation mode, on the images of an engine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cnnperf.devices import Device
from cnnperf.profiling.hooks import Hooks
from cnnperf.profiling.layer_time import LayerTimer
from cnnperf.profiling.layers import discover


class LayerTimes(NamedTuple):
    """One layer, or `(unattributed)`."""

    name: str
    kind: str
    """The module's class."""
    times: list[float]
    """Seconds, one value per run."""


def layer_times(model: nn.Module, images: NDArray[np.float32], device: Device, runs: int) -> Iterator[LayerTimes]:
    """Time each layer in runs with hooks; their overhead makes the sum exceed the latency.

    images: N×C×H×W.
    """
    batch = torch.from_numpy(images).to(device.torch_name)
    times: dict[str, list[float]] = defaultdict(list)
    with torch.inference_mode():
        structure = discover(model, lambda: model(batch))
        for _ in range(runs):
            timer = LayerTimer(device)
            with Hooks(structure, timer):
                start = device.mark()
                model(batch)
                end = device.mark()
                device.synchronize()
            for layer, seconds in timer.read(device.elapsed_s(start, end), None)["forward"].items():
                times[layer].append(seconds)
    kinds = {layer.name: layer.kind for layer in structure.layers}
    for layer, seconds_of in times.items():
        yield LayerTimes(layer, kinds.get(layer, ""), seconds_of)
