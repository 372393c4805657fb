"""Building blocks of several networks, as modules, so that each layer appears by name in a profile."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from cnnperf.errors import UsageError


def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    bias: bool = True,
    batch_norm: bool = False,
    relu: bool = True,
) -> nn.Sequential:
    """Return a convolution, optionally followed by batch norm and ReLU; stride 1 keeps H×W (odd kernels)."""
    padding = kernel_size // 2
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
    if batch_norm:
        layers["norm"] = nn.BatchNorm2d(out_channels)
    if relu:
        layers["relu"] = nn.ReLU()
    return nn.Sequential(layers)


class Residual(nn.Module):
    """ReLU over the sum of a body and a shortcut (He et al. 2016, eq. 1); without a shortcut, over the body alone."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        """N×C×H×W → N×C'×H'×W'."""
        features: Tensor = self.body(images)
        if self.shortcut is not None:
            features = features + self.shortcut(images)
        activated: Tensor = self.relu(features)
        return activated


def basic_body(in_channels: int, out_channels: int, stride: int, *, bias: bool, batch_norm: bool) -> nn.Sequential:
    """Return the body of a basic residual block: two 3×3 convolutions; the second ReLU follows the sum."""
    return nn.Sequential(
        convolution(in_channels, out_channels, 3, stride=stride, bias=bias, batch_norm=batch_norm),
        convolution(out_channels, out_channels, 3, bias=bias, batch_norm=batch_norm, relu=False),
    )


def classifier(channels: int, num_classes: int, *, dropout: float = 0.0) -> OrderedDict[str, nn.Module]:
    """Return the layers from N×C×H×W features to logits: global average pool, dropout if any, one linear layer."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    if dropout > 0:
        layers["dropout"] = nn.Dropout(dropout)
    layers["linear"] = nn.Linear(channels, num_classes)
    return layers


def draw_weights(model: nn.Module, draw: Callable[[Tensor], Tensor]) -> None:
    """Initialise every weight of convolutions and linear layers in place with `draw`, and their biases with zero."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            draw(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def he_normal(model: nn.Module) -> None:
    """Draw weights from N(0, 2 / fan-in), which keeps the variance through ReLU layers; biases are zero.

    He et al., "Delving Deep into Rectifiers" (2015), eq. 10.
    """
    draw_weights(model, partial(nn.init.kaiming_normal_, nonlinearity="relu"))


def start_as_identity(model: nn.Module) -> None:
    """Zero the last convolution of every residual block that has a shortcut.

    For residual networks without batch norm, in which each block would double the variance until a deep one overflows.
    Zhang et al., "Fixup Initialization" (2019), rule 1.
    """
    for block in model.modules():
        if isinstance(block, Residual) and block.shortcut is not None:
            convolutions = [layer for layer in block.body.modules() if isinstance(layer, nn.Conv2d)]
            nn.init.zeros_(convolutions[-1].weight)


def require_size(name: str, image_size: tuple[int, int], minimum: int) -> None:
    """Raise UsageError if H or W is below the minimum for the network's pooling."""
    height, width = image_size
    if min(height, width) < minimum:
        raise UsageError(
            f"{name} needs images of at least {minimum}×{minimum}, got {height}×{width}; "
            "choose a dataset with larger images or another model"
        )
