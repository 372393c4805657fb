"""Small networks, which a suite names as `tiny_networks:convolutional` and so on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import record_function
from torch.utils.checkpoint import checkpoint

from cnnperf.models import resnet


def convolutional(in_channels: int, num_classes: int, image_size: tuple[int, int], dropout: float = 0.0) -> nn.Module:
    """Build two convolutions with batch norm between, dropout, and a dense layer."""
    features = 8 * (image_size[0] // 4) * (image_size[1] // 4)
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(features, num_classes),
    )


def transposed(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Build two transposed convolutions, in groups of several channels and of one channel, and a dense layer."""
    return nn.Sequential(
        nn.AvgPool2d(7),
        nn.Conv2d(in_channels, 4, 1),
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.Tanh(),
        nn.ConvTranspose2d(6, 6, 2, groups=6),
        nn.Flatten(),
        nn.Linear(6 * (2 * (image_size[0] // 7) + 1) * (2 * (image_size[1] // 7) + 1), num_classes),
    )


def pooled(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Build a convolution, max pooling of stride 1 whose output size is rounded up, and a dense layer."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 7, stride=7),
        nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(4 * (image_size[0] // 7) * (image_size[1] // 7), num_classes),
    )


def wide(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Build one convolution with large activations, and a dense layer on their means.

    For 256 images of 28×28 the activations take 37 MiB: the C library keeps no freed block of more than 32.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, 48, 1),
        nn.Sigmoid(),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, num_classes),
    )


def residual(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Build a ResNet with one block per stage, which has every kind of layer of the deeper ones."""
    return resnet.build(in_channels, num_classes, depth=8)


def dense(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Build one dense layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size[0] * image_size[1], num_classes))


class Recording(nn.Module):
    """A dense layer that keeps the mode and the number of images of each call."""

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.inner = dense(in_channels, num_classes, image_size)
        self.calls: list[tuple[bool, bool, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        """Classify images."""
        self.calls.append((self.training, torch.is_inference_mode_enabled(), len(images)))
        return self.inner(images)


class Branching(nn.Module):
    """A network whose path depends on the images, which no graph can represent."""

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.inner = dense(in_channels, num_classes, image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images, with negated logits if they are bright."""
        logits = self.inner(images)
        return -logits if float(images.mean()) > 0 else logits


branching = Branching


class Unheard(nn.Module):
    """A network with an operator that ONNX does not have."""

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.inner = dense(in_channels, num_classes, image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images."""
        return self.inner(torch.special.bessel_j0(images))


unheard = Unheard


class Paired(nn.Module):
    """A dense layer that returns a tuple of its logits and a dict with the largest one."""

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.inner = dense(in_channels, num_classes, image_size)

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Classify images."""
        logits = self.inner(images)
        return logits, {"largest": logits.amax(1)}


paired = Paired


class Scheduled(nn.Module):
    """A dense layer whose scale is read from a tensor while it is built, which the meta device does not allow."""

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.inner = dense(in_channels, num_classes, image_size)
        self.scale = float(torch.linspace(0.0, 2.0, 3)[1])

    def forward(self, images: Tensor) -> Tensor:
        """Classify images."""
        return self.inner(images) * self.scale


scheduled = Scheduled


class Outputs(NamedTuple):
    """The outputs of a network with an auxiliary head."""

    auxiliary: Tensor
    logits: Tensor


class WithAuxiliary(nn.Module):
    """Two dense layers, of which the second is an auxiliary head that is called in training mode only."""

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.inner = dense(in_channels, num_classes, image_size)
        self.head = dense(in_channels, num_classes, image_size)
        nn.init.ones_(self.head[1].weight)

    def forward(self, images: Tensor) -> Tensor | Outputs:
        """Classify images; in training mode, also by the auxiliary head."""
        return Outputs(self.head(images), self.inner(images)) if self.training else self.inner(images)


with_auxiliary = WithAuxiliary


class Untrainable(nn.Module):
    """A dense layer that fails in training mode."""

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.inner = dense(in_channels, num_classes, image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images, in evaluation mode only."""
        if self.training:
            raise ValueError("expected larger images")
        return self.inner(images)


untrainable = Untrainable


class Silent(nn.Module):
    """A dense layer whose forward pass returns nothing."""

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.inner = dense(in_channels, num_classes, image_size)

    def forward(self, images: Tensor) -> None:
        """Classify images and return nothing."""
        self.inner(images)


silent = Silent


def heavy(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Build two dense layers with many weights for few activations."""
    pixels = in_channels * image_size[0] * image_size[1]
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 256), nn.ReLU(), nn.Linear(256, num_classes))


class Marked(nn.Module):
    """A network without inner layers that marks its forward pass in the trace."""

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, in_channels * image_size[0] * image_size[1]))

    def forward(self, images: Tensor) -> Tensor:
        """Classify images, with a large tensor in memory meanwhile."""
        with record_function("its own"):
            large = images.flatten(1).repeat(1, 64)
            return images.flatten(1) @ self.weight.T + large.detach().mean()


marked = Marked


class PartFrozen(nn.Module):
    """A network with a frozen weight and a head that is never called."""

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, 16, 2, stride=14)
        self.first.weight.requires_grad_(False)
        self.last = nn.Linear(16, num_classes)
        self.idle = nn.Linear(16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images."""
        return self.last(self.first(images).mean((2, 3)))


part_frozen = PartFrozen


class Checkpointed(nn.Module):
    """A network whose middle layers are computed again in backward."""

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int], reentrant: bool) -> None:
        super().__init__()
        self.first = nn.Linear(in_channels * image_size[0] * image_size[1], 64)
        self.middle = nn.Sequential(nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 64))
        self.last = nn.Linear(64, num_classes)
        self.reentrant = reentrant

    def forward(self, images: Tensor) -> Tensor:
        """Classify images."""
        return self.last(checkpoint(self.middle, self.first(images.flatten(1)), use_reentrant=self.reentrant))


checkpointed = Checkpointed


class Limited(nn.Linear):
    """A dense layer that fails after a number of calls."""

    left: int

    def forward(self, images: Tensor) -> Tensor:
        """Map N×features to N×classes, or raise an error."""
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("as asked")
        return super().forward(images)


made: list[nn.Module] = []
"""Networks that `failing` built, to be looked at afterwards."""


def failing(in_channels: int, num_classes: int, image_size: tuple[int, int], after: int) -> nn.Module:
    """Build one dense layer that fails after a number of calls."""
    limited = Limited(in_channels * image_size[0] * image_size[1], num_classes)
    limited.left = after
    made.append(nn.Sequential(nn.Flatten(), limited))
    return made[-1]
