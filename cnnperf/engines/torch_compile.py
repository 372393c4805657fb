"""PyTorch compiled by torch.compile (Inductor), one compilation a batch size."""

from __future__ import annotations

from typing import Literal

from cnnperf.engines import Source
from cnnperf.engines.torch import Eager, network

NEEDS: tuple[str, ...] = ()


def load(
    source: Source, *, mode: Literal["default", "reduce-overhead", "max-autotune-no-cudagraphs"] = "default"
) -> Eager:
    """Load the network with its weights; it compiles when it first sees a batch size."""
    import torch

    model = network(source)
    return Eager(model, torch.compile(model, mode=mode, dynamic=False), source)
