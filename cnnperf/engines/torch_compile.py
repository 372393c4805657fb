"""PyTorch compiled by torch.compile (Inductor), one compilation per batch size."""

from __future__ import annotations

from typing import Literal

from cnnperf.engines import EngineSource
from cnnperf.engines.torch import Eager, MemoryFormat, network

PACKAGES: tuple[str, ...] = ("torch", "torch._dynamo")
COMPILE_S = 4.0

MOST_BATCH_SIZES = 256
"""Limit of recompilations: beyond torch's default of eight it silently runs eager; a batch search tries thirteen."""


def load(
    source: EngineSource,
    *,
    mode: Literal["default", "reduce-overhead", "max-autotune-no-cudagraphs"] = "default",
    memory_format: MemoryFormat = "contiguous",
) -> Eager:
    """Load the network with its weights; the first call with a batch size compiles."""
    import torch
    from torch._dynamo import config

    config.recompile_limit, config.fail_on_recompile_limit_hit = MOST_BATCH_SIZES, True
    model = network(source, memory_format)
    return Eager(model, torch.compile(model, mode=mode, dynamic=False), source, runs_modules=False)
