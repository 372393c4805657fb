"""The run of torch that engines are compared with: float32, and the same weights in float64."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cnnperf.devices._tf32 import tf32
from cnnperf.inference.samples import GOLDEN_IMAGES, TEST_SEED, Golden, Inputs, chosen_images

BATCH = 100
HALF_DIGIT = 2.0**-24
"""Of float32, as a share of a number."""


def golden(model: nn.Module, inputs: Inputs, device: str, test_images: int) -> Golden:
    """Compute the logits of a fixed choice of test images, never in TF32; the model is in evaluation mode."""
    indices = chosen_images(test_images, len(inputs.dataset.test_labels))
    images = torch.from_numpy(inputs.test(indices))
    with torch.inference_mode(), tf32(False):
        logits = torch.cat([model(batch.to(device)).cpu() for batch in torch.split(images, BATCH)])
        # The CPU's float64, for a device's may be none, or slow.
        exact = copy.deepcopy(model).cpu().double()(images[:GOLDEN_IMAGES].double())
    labels = np.asarray(inputs.dataset.test_labels[indices])
    return Golden(indices, labels, logits.float().numpy(), exact.numpy())


def rounding(model: nn.Module, images: NDArray[np.float32]) -> float:
    """Return how far the logits move at most, in float64, where each weight is off by half of float32's last digit.

    Up or down at random, the same each time: as much as an export moves them that multiplies weights in float32.
    """
    exact = copy.deepcopy(model).cpu().double()
    batch = torch.from_numpy(images).double()
    dice = torch.Generator().manual_seed(TEST_SEED)
    with torch.inference_mode():
        before = exact(batch)
        for tensor in (*exact.parameters(), *exact.buffers()):
            if tensor.is_floating_point():
                signs = torch.randint(0, 2, tensor.shape, generator=dice, dtype=torch.float64) * 2 - 1
                tensor.mul_(1 + signs * HALF_DIGIT)
        return float((exact(batch) - before).abs().max())
