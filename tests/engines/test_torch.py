"""PyTorch, eager: the layout of the weights is an option that does not change the logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cnnperf.devices.cpu import acquire
from cnnperf.engines import EngineSource
from cnnperf.engines.torch import load
from cnnperf.task import Choice


def test_channels_last_computes_the_same_in_another_layout(tmp_path: Path) -> None:
    """With `channels_last`, convolutions return that layout and the logits are the same; the default is contiguous."""
    source = EngineSource(
        model=Choice(name="lenet"),
        shape=(3, 32, 32),
        num_classes=10,
        seed=0,
        weights=None,
        onnx=None,
        calibration=lambda count: np.empty((count, 3, 32, 32), np.float32),
        folder=tmp_path,
        device=acquire(),
        threads=1,
        waiting="brief",
    )
    images = np.random.default_rng(0).standard_normal((4, 3, 32, 32), dtype=np.float32)
    plain, other = load(source), load(source, memory_format="channels_last")
    assert plain.model.conv1.weight.is_contiguous()
    assert other.model.conv2(torch.rand(2, 6, 16, 16)).is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(other.run(images), plain.run(images), rtol=1e-4, atol=1e-6)
