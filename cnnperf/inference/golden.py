"""Reference outputs of torch: in float32, and with the same weights in float64."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cnnperf.inference.inputs import TEST_BATCH, TEST_SEED, Golden, Inputs, chosen_images, golden_images
from cnnperf.tf32 import tf32

HALF_DIGIT = 2.0**-24
"""Relative rounding error of float32."""


def golden(model: nn.Module, inputs: Inputs, device: str, test_images: int) -> Golden:
    """Compute the logits of a fixed choice of test images, never in TF32; the model is in evaluation mode."""
    indices = chosen_images(test_images, len(inputs.dataset.test_labels))
    images = torch.from_numpy(inputs.test(indices))
    with torch.inference_mode(), tf32(False):
        logits = torch.cat([model(batch.to(device)).cpu() for batch in torch.split(images, TEST_BATCH)])
        # Float64 on the CPU, because a device may lack it or be slow.
        few = images[: golden_images(images.shape[1:])]
        exact = copy.deepcopy(model).cpu().double()(few.double())
    labels = np.asarray(inputs.dataset.test_labels[indices])
    return Golden(indices, labels, logits.float().numpy(), exact.numpy())


def rounding(model: nn.Module, images: NDArray[np.float32]) -> float:
    """Return the largest change of the logits, in float64, if each weight changes by half of float32's last digit.

    The signs are random with a fixed seed. An export that multiplies weights in float32 has an effect of this size.
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
