"""Fixtures for tests of networks, which are built on the meta device, with shapes and without memory."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnperf.models import create
from cnnperf.task import Choice

Shape = tuple[int, int, int]


@pytest.fixture
def on_meta() -> Callable[..., nn.Module]:
    """Return a function that builds a network by name for C×H×W images of ten classes, without memory."""

    def build(name: str, shape: Shape = (3, 32, 32), **options: object) -> nn.Module:
        with torch.device("meta"):
            return create(Choice.model_validate({"name": name, **options}), shape, 10)

    return build


@pytest.fixture
def layers(on_meta: Callable[..., nn.Module]) -> Callable[..., list[str]]:
    """Return a function that lists a network's layers: type, and kernel and stride if any (MaxPool2d 3/2)."""

    def name(layer: nn.Module) -> str:
        kernel, stride = (getattr(layer, key, None) for key in ("kernel_size", "stride"))
        if kernel is None:
            return type(layer).__name__
        return f"{type(layer).__name__} {_first(kernel)}/{_first(stride)}"

    def listed(model: str, shape: Shape = (3, 32, 32), **options: object) -> list[str]:
        return [name(layer) for layer in on_meta(model, shape, **options).modules() if not any(layer.children())]

    return listed


@pytest.fixture
def parameter_count(on_meta: Callable[..., nn.Module]) -> Callable[..., int]:
    """Return a function that counts the parameters of a network by name."""

    def count(name: str, shape: Shape = (3, 32, 32), **options: object) -> int:
        return sum(parameter.numel() for parameter in on_meta(name, shape, **options).parameters())

    return count


@pytest.fixture
def forward_flops(on_meta: Callable[..., nn.Module]) -> Callable[..., int]:
    """Return a function that counts the FLOPs of one image's forward pass, two per multiply-accumulate."""

    def count(name: str, shape: Shape = (3, 32, 32), **options: object) -> int:
        model = on_meta(name, shape, **options).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, *shape, device="meta"))
        return counter.get_total_flops()

    return count


def _first(size: int | tuple[int, int]) -> int:
    return size if isinstance(size, int) else size[0]
