"""Multiply-accumulates: LeNet by hand, every network against torch's own total and two public counters."""

from __future__ import annotations

import math
import warnings
from typing import Any

import planted_layers
import pytest
import torch
from passes import listen
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnperf import models, registry
from cnnperf.profiling.arithmetic import Arithmetic
from cnnperf.task import Choice

SHAPE = (3, 32, 32)


def counted(model: nn.Module, images: torch.Tensor) -> Arithmetic:
    """Count the operations of a network's forward and backward pass."""
    arithmetic = Arithmetic()
    listen(model, images, arithmetic, arithmetic.counting())
    return arithmetic


def macs(arithmetic: Arithmetic, direction: str = "forward") -> dict[str, int]:
    """Return the multiply-accumulates of each layer."""
    works = getattr(arithmetic, direction)
    return {layer: work.flops // 2 for layer, work in works.items() if work.flops is not None}


def test_lenet_is_as_counted_by_hand() -> None:
    """Each layer's count matches the one by hand: backward takes twice the forward, and once in the first layer."""
    arithmetic = counted(models.create(Choice(name="lenet"), (1, 28, 28), 10), torch.randn(2, 1, 28, 28))
    by_hand = {
        "conv1": 2 * 6 * 28 * 28 * 25,
        "conv2": 2 * 16 * 10 * 10 * 6 * 25,
        "linear1": 2 * 120 * 400,
        "linear2": 2 * 84 * 120,
        "linear3": 2 * 10 * 84,
    }
    assert macs(arithmetic) == by_hand
    assert macs(arithmetic, "backward") == {
        layer: (1 if layer == "conv1" else 2) * count for layer, count in by_hand.items()
    }


def test_what_is_not_counted_is_named_and_its_bytes_are() -> None:
    """A sigmoid has no count of multiply-accumulates, not even 0; its bytes are one read and one write per element."""
    sigmoid = counted(nn.Sequential(nn.Linear(8, 8), nn.Sigmoid()), torch.randn(4, 8)).forward["1"]
    assert sigmoid.flops is None
    assert sigmoid.uncounted == {"sigmoid"}
    assert sigmoid.moved_bytes == 2 * 4 * 8 * 4


def test_a_view_moves_nothing() -> None:
    """Flatten of contiguous memory moves no bytes."""
    flatten = counted(nn.Sequential(nn.Linear(8, 8), nn.Flatten()), torch.randn(4, 2, 8)).forward
    assert "1" not in flatten or flatten["1"].moved_bytes == 0


def test_a_shared_module_counts_once_a_call_and_layers_add_up() -> None:
    """A module that is called twice has the count of both calls, and the total of all layers is torch's."""
    model, images = planted_layers.Twice(nn.Linear(8, 8)), torch.randn(4, 8)
    arithmetic = counted(model, images)
    assert macs(arithmetic) == {"shared": 2 * 4 * 8 * 8}
    assert total(arithmetic) == torchs(model, images)


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_computed_anew_counts_in_backward(reentrant: bool) -> None:
    """The forward of a checkpointed layer counts again in backward, and the total of all layers is torch's."""
    block = planted_layers.Checkpointed(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 8), reentrant=reentrant)
    model, images = nn.Sequential(nn.Linear(8, 8), block), torch.randn(4, 8)
    arithmetic = counted(model, images)
    once = 4 * 8 * 8
    assert macs(arithmetic) == {"0": once, "1.inside.0": once, "1.inside.2": once}
    # The last one's output is what backward does not want, so that some checkpoints stop before it.
    assert macs(arithmetic, "backward") | {"1.inside.2": 3 * once} == {
        "0": once,
        "1.inside.0": 3 * once,
        "1.inside.2": 3 * once,
    }
    assert total(arithmetic) == torchs(model, images)


def test_what_follows_the_loss_is_no_forward() -> None:
    """The gradient of the loss by itself counts in backward, and not in forward."""
    arithmetic = counted(nn.Sequential(nn.Linear(8, 8)), torch.randn(4, 8))
    assert "(unattributed)" not in arithmetic.forward
    assert arithmetic.backward["(unattributed)"].uncounted == {"ones_like"}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_a_convolution_by_hand(groups: int, stride: int, transposed: bool) -> None:
    """Backward costs a forward for each gradient, whatever the groups; the images need no gradient."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    first = nn.Conv2d(3, 8, 1)
    second = kind(8, 16, 3, stride=stride, padding=1, groups=groups)
    images = torch.zeros(2, 3, 12, 12)
    found = counted(nn.Sequential(first, second), images)
    taps = 8 // groups * 3 * 3
    wide = second(first(images)).shape[-1] ** 2
    by_hand = 2 * (8 * 12 * 12 * 16 // groups * 9 if transposed else 16 * wide * taps)
    assert macs(found)["1"] == by_hand
    assert macs(found, "backward")["1"] == 2 * by_hand
    assert macs(found, "backward")["0"] == macs(found)["0"] == 2 * 8 * 12 * 12 * 3


@pytest.mark.parametrize("name", registry.names("models"))
def test_every_networks_layers_add_up_to_torchs_total(name: str) -> None:
    """The FLOPs of all layers, forward and backward, add up to the total of FlopCounterMode."""
    model, images = models.create(Choice(name=name), SHAPE, 10), torch.randn(2, *SHAPE)
    assert total(counted(model, images)) == torchs(model, images)


@pytest.mark.parametrize("name", registry.names("models"))
def test_every_network_agrees_with_two_public_counters(name: str) -> None:
    """The multiply-accumulates of convolutions and linear layers match fvcore's and torchinfo's to 0.1 %."""
    model, images = models.create(Choice(name=name), SHAPE, 10).eval(), torch.randn(1, *SHAPE)
    ours = macs(counted(model, images))
    kinds = {layer: type(module) for layer, module in model.named_modules()}
    mine = sum(count for layer, count in ours.items() if issubclass(kinds[layer], nn.Conv2d | nn.Linear))
    assert mine == sum(ours.values())
    assert mine == pytest.approx(_fvcore(model, images), rel=1e-3)
    assert mine == pytest.approx(_torchinfo(model, images), rel=1e-3)


def _fvcore(model: nn.Module, images: torch.Tensor) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Torch's tracer is deprecated; the counter is not ours.
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, images).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        operators: Any = analysis.by_operator()
    return float(operators["conv"] + operators["linear"])


def _torchinfo(model: nn.Module, images: torch.Tensor) -> float:
    from torchinfo import summary

    found = summary(model, input_data=images, verbose=0).summary_list
    layers = [layer for layer in found if isinstance(layer.module, nn.Conv2d | nn.Linear)]
    # It takes the addition of a bias for a multiply-accumulate more.
    biases = sum(math.prod(layer.output_size) for layer in layers if layer.module.bias is not None)
    return float(sum(layer.macs for layer in layers) - biases)


def total(arithmetic: Arithmetic) -> int:
    """Return the FLOPs of all layers, forward and backward."""
    return sum(work.flops or 0 for works in (arithmetic.forward, arithmetic.backward) for work in works.values())


def torchs(model: nn.Module, images: torch.Tensor) -> int:
    """Return the FLOPs that torch's own counter counts."""
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return int(counter.get_total_flops())
