"""Bytes that autograd saves, counted by hand; owners of parameters, gradients and optimizer state."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import planted_layers
import pytest
import torch
from passes import listen, structure_of
from torch import nn

from cnnperf.profiling.memory import AllocatorPeak, Owners, SavedTensors
from cnnperf.profiling.rows import LOSS, OPTIMIZER

FLOAT, INT = 4, 8


def saved(model: nn.Module, images: torch.Tensor) -> dict[str, int]:
    """Return the bytes that each layer saves for backward."""
    saved = SavedTensors(model)
    listen(model, images, saved, saved.recording())
    return {layer: size for layer, size in saved.bytes.items() if size and layer != LOSS}


def test_three_layers_save_what_a_hand_count_says() -> None:
    """The convolution saves its images and ReLU its output, which the linear layer shares as its input."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 10))
    assert saved(model, torch.randn(2, 3, 8, 8)) == {"0": 2 * 3 * 8 * 8 * FLOAT, "1": 2 * 4 * 6 * 6 * FLOAT}


def test_max_pool_and_dropout_save_indices_and_a_mask() -> None:
    """Max-pool saves its input and an index for each output element; dropout saves a mask of its input's size.

    On the CPU torch's dropout is a product with a mask of the input's dtype; its fused kernel of one byte is CUDA's.
    """
    model = nn.Sequential(nn.Linear(8, 8), nn.MaxPool1d(2), nn.Dropout(0.5), nn.Linear(4, 2))
    found = saved(model, torch.randn(2, 3, 8))
    assert found["0"] == 2 * 3 * 8 * FLOAT
    assert found["1"] == 2 * 3 * 8 * FLOAT + 2 * 3 * 4 * INT
    assert found["2"] == 2 * 3 * 4 * FLOAT
    assert found["3"] == 2 * 3 * 4 * FLOAT


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_computed_anew_is_not_saved(reentrant: bool) -> None:
    """A checkpointed block saves only its input, which belongs to no layer."""
    block = planted_layers.Checkpointed(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 4), reentrant=reentrant)
    found = saved(nn.Sequential(nn.Linear(4, 4), block), torch.randn(2, 4))
    assert found == {"0": 2 * 4 * FLOAT, "(unattributed)": 2 * 4 * FLOAT}


def test_parameters_and_buffers_are_not_saved_for_backward() -> None:
    """Batch norm saves its input and two values per channel, but neither weights nor running statistics."""
    found = saved(nn.Sequential(nn.BatchNorm1d(4)), torch.randn(8, 4))
    assert found == {"0": 8 * 4 * FLOAT + 2 * 4 * FLOAT}


def test_the_allocators_peak_stands_where_it_was() -> None:
    """The peak is attributed to the forward, backward or update in which it occurred, or to no layer."""
    high = {"now": 100}
    device: Any = SimpleNamespace(
        reset_peak=lambda: high.update(now=100),
        used_bytes=lambda: 100,
        peak_bytes=lambda: {"peak_bytes": high["now"], "peak_reserved_bytes": 1000},
    )
    peak = AllocatorPeak(device)
    found = []
    for begins, ends, names in (
        (peak.forward_begins, peak.forward_ends, ["a"]),
        (peak.backward_begins, peak.backward_ends, ["b", "a"]),
        (peak.part_begins, peak.part_ends, [OPTIMIZER]),
    ):
        for name in names:
            begins(name)
        for name in reversed(names):
            high["now"] = 110 + peak.bytes
            ends(name)
            found.append((peak.bytes, peak.layer))
    high["now"] = 200
    peak.look()
    assert found == [(10, "a"), (20, "a backward"), (30, "b backward"), (40, OPTIMIZER)]
    assert (peak.bytes, peak.layer) == (100, "(unattributed)")


def test_each_parameter_has_one_owner() -> None:
    """A module that is called twice owns its weights once, and one that is never called owns its weights too."""
    model = planted_layers.Twice(nn.Linear(4, 4))
    owners = Owners(model, structure_of(model, torch.randn(2, 4)))
    sizes = {layer: sum(p.numel() for p in parameters) for layer, parameters in owners.parameters.items()}
    assert sizes == {"shared": 20, "idle": 6}


def test_the_gradients_that_are_there_are_counted() -> None:
    """A frozen weight and an unused head have no gradient; that of a parameter around them is of the module around."""

    class Scaled(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(4, 4), nn.Linear(4, 4))
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self[0](values) * self.scale.sum()

    model, images = Scaled(), torch.randn(2, 4)
    model[0].bias.requires_grad_(False)
    owners = Owners(model, structure_of(model, images))
    assert owners.gradient_bytes() == {}
    model(images).sum().backward()
    assert owners.gradient_bytes() == {"0": 4 * 4 * FLOAT, "(network)": 3 * FLOAT}


def test_parameters_in_one_piece_of_memory_have_owners_of_their_own() -> None:
    """Views of one vector have owners of their own, and a tied weight belongs to the first layer that has it."""
    model, whole = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)), torch.zeros(32)
    model[0].weight.data, model[1].weight.data = whole[:16].view(4, 4), whole[16:].view(4, 4)
    model[2].weight.data = model[1].weight.data
    owners = Owners(model, structure_of(model, torch.randn(2, 4)))
    sizes = {layer: sum(p.numel() for p in parameters) for layer, parameters in owners.parameters.items()}
    assert sizes == {"0": 20, "1": 20, "2": 4}
    model[0].weight.data = torch.zeros(4, 4)
    optimizer = torch.optim.SGD([model[0].weight], momentum=0.9)
    model[0].weight.grad = torch.ones(4, 4)
    optimizer.step()
    assert owners.state_bytes([optimizer]) == {"0": 4 * 4 * FLOAT}


def test_the_state_of_an_optimizer_goes_to_the_parameters_layer() -> None:
    """Adam's two values per weight and step count go to the weight's layer, even if Adam has views of the weights."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW([p.detach().requires_grad_() for p in model.parameters()])
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    sizes = Owners(model, structure_of(model, torch.randn(2, 4))).state_bytes([optimizer])
    assert sizes == {"0": 2 * 20 * FLOAT + 2 * FLOAT, "1": 2 * 10 * FLOAT + 2 * FLOAT}
