"""PyTorch, eager, in inference mode: the baseline of other engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cnnperf import models
from cnnperf.engines import INTEROP_THREADS, EngineSource, NormalisedImages
from cnnperf.task import Scalar

if TYPE_CHECKING:
    from torch import Tensor, nn

PACKAGES: tuple[str, ...] = ("torch",)
BASELINE_OF = "networks"
MemoryFormat = Literal["contiguous", "channels_last"]


class Eager:
    """A torch module in evaluation and inference mode."""

    batch = None
    takes_pixels = False
    unchecked = None

    def __init__(
        self, model: nn.Module, forward: Callable[[Tensor], Tensor], source: EngineSource, *, runs_modules: bool
    ) -> None:
        import torch

        numerics = source.device.numerics
        self._torch = torch
        self._forward = forward
        self._device = source.device
        self.is_exact = numerics is None or not numerics.tf32
        self.model = model
        self.runs_modules = runs_modules
        self.file: Path | None = source.weights
        self.facts: Mapping[str, Scalar] = {
            "threads": torch.get_num_threads(),
            "interop_threads": torch.get_num_interop_threads(),
            "waiting": source.waiting,
            "input": "host" if numerics is None else "bound on the device",
            **({} if numerics is None else asdict(numerics)),
        }

    def bind(self, images: NormalisedImages) -> Callable[[], object]:
        """Return the call that computes the logits of these images, which are on the device."""
        tensor = self._torch.from_numpy(images).to(self._device.torch_name)

        def call() -> Tensor:
            with self._torch.inference_mode():
                return self._forward(tensor)

        return call

    def run(self, images: NormalisedImages) -> NDArray[np.float32]:
        """Return the logits, N×classes."""
        logits: Tensor = self.bind(images)()  # type: ignore[assignment]
        found: NDArray[np.float32] = logits.cpu().numpy()
        return found

    def synchronize(self) -> None:
        """Wait until the device has completed all queued work."""
        self._device.synchronize()

    def values(self, images: NormalisedImages) -> None:
        """Return None: this engine runs no exported graph."""

    def node_times(self, images: NormalisedImages, runs: int) -> None:
        """Return None: this engine has no profiler of nodes."""


def network(source: EngineSource, memory_format: MemoryFormat = "contiguous") -> nn.Module:
    """Build the network with its trained weights, or with weights drawn from the seed; in evaluation mode.

    In channels_last, 4-dimensional weights have the layout N×H×W×C and, by torch's rules, so have the outputs.
    """
    import torch

    source.device.ready_torch()
    torch.set_num_threads(source.threads)
    if torch.get_num_interop_threads() != INTEROP_THREADS:  # Torch accepts this setting once per process.
        torch.set_num_interop_threads(INTEROP_THREADS)
    torch.manual_seed(source.seed)
    model = models.create(source.model, source.shape, source.num_classes)
    if source.weights:
        models.load_weights(model, source.weights)
    if memory_format == "channels_last":
        model.to(memory_format=torch.channels_last)
    return model.eval().to(source.device.torch_name)


def load(source: EngineSource, *, memory_format: MemoryFormat = "contiguous") -> Eager:
    """Load the network with its weights."""
    model = network(source, memory_format)
    return Eager(model, model, source, runs_modules=True)
