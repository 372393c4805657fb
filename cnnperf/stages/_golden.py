"""The run of torch that engines are held to: float32, and the same weights in float64."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from cnnperf.devices._tf32 import tf32
from cnnperf.stages._samples import GOLDEN_IMAGES, Golden, Inputs, chosen

BATCH = 100


def golden(model: nn.Module, inputs: Inputs, device: str, test_images: int) -> Golden:
    """Compute the logits of a fixed choice of test images, never in TF32; the model is in evaluation mode."""
    indices = chosen(test_images, len(inputs.dataset.test_labels))
    images = torch.from_numpy(inputs.test(indices))
    with torch.inference_mode(), tf32(False):
        logits = torch.cat([model(batch.to(device)).cpu() for batch in torch.split(images, BATCH)])
        # The CPU's float64, for a device's may be none, or slow.
        exact = copy.deepcopy(model).cpu().double()(images[:GOLDEN_IMAGES].double())
    labels = np.asarray(inputs.dataset.test_labels[indices])
    return Golden(indices, labels, logits.float().numpy(), exact.numpy())
