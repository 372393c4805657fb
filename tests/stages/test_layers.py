"""Layers are found as they are called, hooked on their autograd nodes, and left as they were."""

from __future__ import annotations

import planted
import pytest
import torch
from profiling import listen, structure_of
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from cnnperf.stages._layers import Hooks, Listener, discover


class Noted(Listener):
    """Notes the words as they come."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def forward_begins(self, layer: str) -> None:
        """Note it."""
        self.words.append(f"forward {layer}")

    def backward_begins(self, layer: str) -> None:
        """Note it."""
        self.words.append(f"backward {layer}")


def test_layers_are_the_modules_that_call_no_other() -> None:
    """Leaves, in the order of their calls; and attention, a container that uses its child's weights without a call."""
    model = nn.Sequential(nn.Linear(8, 8), nn.MultiheadAttention(8, 2))

    def run() -> None:
        hidden = model[0](images)
        model[1](hidden, hidden, hidden)

    images = torch.randn(3, 2, 8)
    structure = discover(model, run)
    assert [(layer.name, layer.kind) for layer in structure.layers] == [("0", "Linear"), ("1", "MultiheadAttention")]
    assert structure.never_called == ()


def test_what_a_layer_takes_and_gives_is_written_down() -> None:
    """Shapes as N×C×H×W, the dtype, and the bytes of what comes out."""
    [convolution, _] = structure_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.randn(2, 3, 8, 8)).layers
    assert (convolution.inputs, convolution.outputs, convolution.dtype) == ("2×3×8×8", "2×4×6×6", "float32")
    assert convolution.output_bytes == 2 * 4 * 6 * 6 * 4


def test_a_shared_module_is_one_layer_and_an_idle_one_is_named() -> None:
    """Calls are counted."""
    structure = structure_of(planted.Twice(nn.Linear(4, 4)), torch.randn(2, 4))
    assert [(layer.name, layer.calls) for layer in structure.layers] == [("shared", 2)]
    assert [layer.name for layer in structure.never_called] == ["idle"]


def test_nodes_go_to_the_layer_that_made_them_and_the_rest_by_name() -> None:
    """A sum that a container makes is AddBackward0 of nobody, also where a ReLU works in place on a view of it."""
    model = nn.Sequential(planted.Branches(nn.Linear(4, 4), nn.Sigmoid()), nn.Flatten(), nn.ReLU(inplace=True))
    noted = Noted()
    listen(model, torch.randn(2, 2, 4, requires_grad=True), noted)
    backward = [word for word in noted.words if word.startswith("backward")]
    assert noted.words[:5] == ["forward 0.slow", "forward 0.fast", "forward 1", "forward 2", "forward (loss)"]
    names = [word.removeprefix("backward ") for word in dict.fromkeys(backward)]
    assert names[:3] == ["(loss)", "2", "(unattributed) AddBackward0"]
    assert set(names[3:]) == {"0.slow", "0.fast"}


def test_a_tensor_that_is_no_argument_has_nodes_of_its_own() -> None:
    """What a container makes and leaves in an attribute of a layer is not the layer's, though it is in its history."""

    class Skip(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return values + self.skipped

    class Skipping(nn.Sequential):
        def forward(self, values: Tensor) -> Tensor:
            hidden = self[0](values)
            self[1].skipped = hidden.exp()
            return self[1](hidden)

    noted = Noted()
    listen(Skipping(nn.Linear(4, 4), Skip()), torch.randn(2, 4), noted)
    assert noted.words.count("backward 1") == 1
    assert "backward (unattributed) ExpBackward0" in noted.words


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_layer_is_called_once(reentrant: bool) -> None:
    """What backward computes anew is neither another call nor another output, and changes nobody's place."""
    inside = planted.Checkpointed(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 4), reentrant=reentrant)
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
    """What computes its weights is a part of it, and it keeps its class's name; one never called is still named."""

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


def test_modules_that_return_tuples_are_hooked() -> None:
    """Tensors are found in whatever a module returns."""
    noted = Noted()
    listen(planted.OfPair(), torch.randn(2, 4), noted)
    assert noted.words[:2] == ["forward linear", "forward pair"]
    assert "backward pair" in noted.words


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_torchvisions_networks_with_in_place_modules_are_hooked(name: str) -> None:
    """Every layer has its forward and its backward, the shared in-place ReLU among them."""
    import torchvision

    model = getattr(torchvision.models, name)(num_classes=10)
    noted = Noted()
    listen(model, torch.randn(2, 3, 32, 32), noted)
    structure = structure_of(model, torch.randn(2, 3, 32, 32))
    for layer in structure.layers:
        assert f"forward {layer.name}" in noted.words
        if layer.kind in ("Conv2d", "ReLU", "Linear", "BatchNorm2d"):
            assert f"backward {layer.name}" in noted.words, layer.name


class Broken(nn.Module):
    """Fails in its forward."""

    def forward(self, values: Tensor) -> Tensor:
        """Raise."""
        raise RuntimeError("broken")


def test_hooks_are_gone_even_where_a_pass_fails() -> None:
    """Neither finding nor listening leaves one behind, on modules or on nodes that live on."""
    model = nn.Sequential(nn.Linear(4, 4), Broken())
    images = torch.randn(2, 4)
    with pytest.raises(RuntimeError, match="broken"):
        structure_of(model, images)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    working = structure_of(model[0], images)
    noted = Noted()
    with pytest.raises(RuntimeError, match="broken"), Hooks(working, noted):
        model(images)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    before = len(noted.words)
    model[0](images).sum().backward()
    assert len(noted.words) == before
