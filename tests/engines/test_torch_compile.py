"""The compiled engine: every batch size is compiled, however many there are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnnperf.devices.cpu import acquire
from cnnperf.engines import EngineSource
from cnnperf.engines.torch_compile import load
from cnnperf.task import Choice


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list of batch sizes that a fake compiler receives."""
    sizes: list[int] = []

    def take_down(graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        sizes.append(max(len(each) for each in inputs if each.ndim == 4))
        return graph.forward  # type: ignore[no-any-return]

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=take_down))
    for name in ("recompile_limit", "fail_on_recompile_limit_hit"):
        monkeypatch.setattr(f"torch._dynamo.config.{name}", getattr(torch._dynamo.config, name))
    return sizes


def test_every_batch_size_of_a_search_is_compiled(compiled: list[int], tmp_path: Path) -> None:
    """All of ten batch sizes are compiled, although torch by default runs those after the eighth without compiling."""
    source = EngineSource(
        model=Choice(name="mlp"),
        shape=(1, 4, 4),
        num_classes=10,
        seed=0,
        weights=None,
        onnx=None,
        calibration=lambda count: np.zeros((count, 1, 4, 4), np.float32),
        folder=tmp_path,
        device=acquire(),
        threads=1,
        waiting="brief",
    )
    engine, sizes = load(source), [2**i for i in range(10)]
    for size in sizes:
        assert engine.run(np.zeros((size, 1, 4, 4), np.float32)).shape == (size, 10)
    assert compiled == sizes
