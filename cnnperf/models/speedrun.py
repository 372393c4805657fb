"""A small network for the highest accuracy at a fixed budget, after the CIFAR-10 speed runs (Jordan 2024, airbench)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from cnnperf.models._blocks import require_size
from cnnperf.models._recipes import augmentation, mirrored

PATCH = 4
"""Side of the patches that the first convolution whitens, in pixels."""
EIGENVECTORS = 24
"""Maximum number of patch directions that the first convolution keeps."""
WHITENING_IMAGES = 5000
"""Number of images used to compute the patches' covariance."""


class Scale(nn.Module):
    """Multiply by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: Tensor) -> Tensor:
        """Any shape → the same shape."""
        return values * self.factor


def build(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Build a frozen patch-whitening convolution, three 3×3 convolutions and a linear layer on the global maximum.

    The whitening convolution pads by 1: a 32×32 image gives 16×16; padding by 2 would give 17×17 and 23.9 MFLOP.
    Norms have a shift; their scale is frozen at 1. The first filters of each 3×3 convolution start as the identity
    (Dirac initialisation), the others at random. The whitening filters depend on data: see `initialise`. 232,992
    parameters and 22.4 MFLOP forward for 3×32×32 and 10 classes. Raises UsageError below 8×8.
    """
    require_size("speedrun", image_size, 8)
    filters = 2 * min(EIGENVECTORS, in_channels * PATCH**2)
    whitening = nn.Conv2d(in_channels, filters, PATCH, stride=2, padding=1, bias=False)
    whitening.weight.requires_grad_(False)
    return nn.Sequential(
        OrderedDict(
            whitening=whitening,
            gelu=nn.GELU(),
            block1=_block(filters, 48, nn.MaxPool2d(2)),
            block2=_block(48, 96, nn.MaxPool2d(2)),
            block3=_block(96, 192, nn.Identity()),
            pool=nn.AdaptiveMaxPool2d(1),
            flatten=nn.Flatten(),
            linear=nn.Linear(192, num_classes, bias=False),
            scale=Scale(0.2),
        )
    )


@torch.no_grad()
def initialise(model: nn.Module, images: Tensor) -> None:
    """Set the first convolution to whiten the patches of these images: N×C×H×W, float, already normalised.

    The filters are the eigenvectors of the patches' covariance with the largest eigenvalues, each divided by the square
    root of its eigenvalue, and their negatives (Page, "How to Train Your ResNet 8", 2019).
    """
    weight = model.get_parameter("whitening.weight")
    patches = nn.functional.unfold(images[:WHITENING_IMAGES], PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
    eigenvalues, eigenvectors = torch.linalg.eigh(patches.T.cov())
    kept = len(weight) // 2
    filters = (eigenvectors / (eigenvalues + 5e-4).sqrt()).T.flip(0)[:kept]
    weight.copy_(torch.cat([filters, -filters]).view_as(weight))


def recipe(dataset: str) -> dict[str, object]:
    """Return training settings: Muon for the convolutions (Jordan 2024), alternating flip and small shifts.

    No weight decay: Muon's weights are rescaled to a fixed norm at each step. Photos are also tested with their mirror
    images, as in speed runs.
    """
    return augmentation(dataset, flip="alternating", crop=2) | {
        "optimizer": "muon",
        "muon_lr": 0.14,
        "muon_momentum": 0.6,
        "muon_steps": 3,
        "lr": 0.5,
        "bias_lr": 0.05,
        "momentum": 0.85,
        "weight_decay": 0.0,
        "schedule": "one-cycle",
        "batch_size": 256,
        "label_smoothing": 0.1,
        "test_flip": mirrored(dataset),
        "memory_format": "channels_last",
    }


def _block(in_channels: int, out_channels: int, pool: nn.Module) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight[:in_channels])
    norm = nn.BatchNorm2d(out_channels)
    norm.weight.requires_grad_(False)
    return nn.Sequential(OrderedDict(conv=conv, pool=pool, norm=norm, gelu=nn.GELU()))
