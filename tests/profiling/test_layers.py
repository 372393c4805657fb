"""Layers are found by their calls."""

from __future__ import annotations

import planted_layers
import pytest
import torch
from passes import Noted, listen, structure_of
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from cnnperf.profiling.layers import discover


def test_layers_are_the_modules_that_call_no_other() -> None:
    """Layers are the leaves in the order of their calls, and attention, which uses its child without a call."""
    model = nn.Sequential(nn.Linear(8, 8), nn.MultiheadAttention(8, 2))

    def run() -> None:
        hidden = model[0](images)
        model[1](hidden, hidden, hidden)

    images = torch.randn(3, 2, 8)
    structure = discover(model, run)
    assert [(layer.name, layer.kind) for layer in structure.layers] == [("0", "Linear"), ("1", "MultiheadAttention")]
    assert structure.never_called == ()


def test_what_a_layer_takes_and_gives_is_written_down() -> None:
    """A layer has shapes as N×C×H×W, the dtype, and the bytes of its output."""
    [convolution, _] = structure_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.randn(2, 3, 8, 8)).layers
    assert (convolution.inputs, convolution.outputs, convolution.dtype) == ("2×3×8×8", "2×4×6×6", "float32")
    assert convolution.output_bytes == 2 * 4 * 6 * 6 * 4


def test_a_shared_module_is_one_layer_and_an_idle_one_is_named() -> None:
    """A module that is called twice is one layer with two calls, and a module that is never called is listed."""
    structure = structure_of(planted_layers.Twice(nn.Linear(4, 4)), torch.randn(2, 4))
    assert [(layer.name, layer.calls) for layer in structure.layers] == [("shared", 2)]
    assert [layer.name for layer in structure.never_called] == ["idle"]


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_layer_is_called_once(reentrant: bool) -> None:
    """The computation in backward adds no call and no output, and does not change the order of the layers."""
    inside = planted_layers.Checkpointed(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 4), reentrant=reentrant)
    model, images = nn.Sequential(nn.Linear(4, 4), inside, nn.ReLU()), torch.randn(2, 4)
    structure = discover(model, lambda: model(images).sum().backward())
    names = ["0", "1.inside.0", "1.inside.1", "1.inside.2", "2"]
    assert [(layer.name, layer.calls, layer.output_bytes) for layer in structure.layers] == [
        (name, 1, 2 * 4 * 4) for name in names
    ]
    noted = Noted()
    listen(model, images, noted)
    assert [word for word in noted.words if word.startswith("forward")] == [
        f"forward {name}" for name in (*names, "(loss)")
    ]
    assert {f"backward {name}" for name in names} <= set(noted.words)


def test_a_parametrized_layer_is_one_layer() -> None:
    """A layer with computed weights is one layer with its class's name, even if it is never called."""

    class Chosen(nn.ModuleList):
        def forward(self, values: Tensor) -> Tensor:
            return self[1](self[0](values))

    normed, spectral, idle = weight_norm(nn.Linear(4, 4)), spectral_norm(nn.Linear(4, 4)), weight_norm(nn.Linear(4, 4))
    model, images = Chosen([normed, spectral, idle]), torch.randn(2, 4)
    structure = structure_of(model, images)
    assert [(layer.name, layer.kind, layer.calls) for layer in structure.layers] == [
        ("0", "Linear", 1),
        ("1", "Linear", 1),
    ]
    assert [(layer.name, layer.kind) for layer in structure.never_called] == [("2", "Linear")]
    noted = Noted()
    listen(model, images, noted)
    assert set(noted.words) == {f"{d} {layer}" for d in ("forward", "backward") for layer in ("0", "1", "(loss)")}


def test_a_module_that_computes_beside_its_layers_is_one() -> None:
    """A module that adds the outputs of its layers is a layer with its own operations, a module that only calls is not.

    The sum is its output; what the last layer inside returns is that layer's output alone.
    """

    class Block(planted_layers.Branches):
        def forward(self, values: Tensor) -> Tensor:
            return self.fast(super().forward(values))

    summed = nn.Sequential(planted_layers.Branches(nn.Linear(4, 4), nn.Linear(4, 4)))
    found = structure_of(summed, torch.randn(2, 4)).layers
    assert [(layer.name, layer.kind) for layer in found] == [
        ("0", "Branches (own)"),
        ("0.slow", "Linear"),
        ("0.fast", "Linear"),
    ]
    assert [layer.output_bytes for layer in found] == [2 * 4 * 4] * 3
    [block, *_] = structure_of(Block(nn.Linear(4, 4), nn.ReLU()), torch.randn(2, 4)).layers
    assert (block.name, block.output_bytes) == ("(network)", 0)


def test_a_layer_that_is_never_called_is_named_beside_one_that_computes() -> None:
    """A module that computes itself hides no layer inside that is never called."""

    class Scaled(planted_layers.Twice):
        def forward(self, values: Tensor) -> Tensor:
            return super().forward(values) * 2

    structure = structure_of(Scaled(nn.Linear(4, 4)), torch.randn(2, 4))
    assert [layer.name for layer in structure.layers] == ["(network)", "shared"]
    assert [layer.name for layer in structure.never_called] == ["idle"]
