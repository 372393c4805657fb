"""Multiply-accumulates against hand counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cnnperf.claims import Bar, CheckedFigure, Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cnnperf.profiling.arithmetic import Arithmetic

CLAIM = "The multiply-accumulates of a layer are those that are counted by hand, in each direction."
LIMIT_S = 60.0

EXACT = Bar.within(0, "a count is exact")
BATCH = 2
BY_HAND = {
    # Output elements × products per output element.
    "conv": BATCH * 16 * 8 * 8 * (8 * 3 * 3),
    "grouped": BATCH * 32 * 4 * 4 * (16 // 4 * 3 * 3),
    "linear": BATCH * 10 * (32 * 4 * 4),
}
"""Hand counts of the network below; backward has twice as many, half each for the gradients of images and weights."""
FIRST = BATCH * 8 * 8 * 8 * 3
"""Hand count of the first convolution, equal in both directions, because its images need no gradient."""


def check(context: Context) -> Iterator[CheckedFigure]:
    """Count a step of a small network on the device; compare the total without groups with torch's FlopCounterMode."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = context.acquire()
    images = torch.rand(BATCH, 3, 8, 8, device=device.torch_name)
    counted = _counted(_network().to(device.torch_name), images)
    for direction, times, first in (("forward", 1, FIRST), ("backward", 2, FIRST)):
        works = getattr(counted, direction)
        for layer, by_hand in (("first", first), *((name, times * count) for name, count in BY_HAND.items())):
            yield _checked(f"{layer}, {direction}", (works[layer].flops or 0) / 2, by_hand, "by hand")
    plain = _network(groups=1).to(device.torch_name)
    with FlopCounterMode(display=False) as counter:
        plain(images).sum().backward()
    found = _counted(plain, images)
    ours = sum(work.flops or 0 for works in (found.forward, found.backward) for work in works.values())
    yield _checked(
        "all layers, without groups", ours / 2, counter.get_total_flops() / 2, "FlopCounterMode, which forgets groups"
    )


def _network(groups: int = 4) -> nn.Module:
    from collections import OrderedDict

    from torch import nn

    return nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(3, 8, 1),
            conv=nn.Conv2d(8, 16, 3, padding=1),
            grouped=nn.Conv2d(16, 32, 3, stride=2, padding=1, groups=groups),
            flatten=nn.Flatten(),
            linear=nn.Linear(32 * 4 * 4, 10),
        )
    )


def _counted(model: nn.Module, images: Tensor) -> Arithmetic:
    from cnnperf.profiling.arithmetic import Arithmetic
    from cnnperf.profiling.hooks import Hooks
    from cnnperf.profiling.layers import discover

    arithmetic = Arithmetic()
    with Hooks(discover(model, lambda: model(images)), arithmetic) as hooks, arithmetic.counting():
        loss = model(images).sum()
        hooks.watch_rest(loss)
        loss.backward()
    return arithmetic


def _checked(quantity: str, figure: float, reading: float, source: str) -> CheckedFigure:
    return CheckedFigure(
        quantity=quantity, unit="count", figure=figure, reading=reading, source=source, relative=False, bar=EXACT
    )
