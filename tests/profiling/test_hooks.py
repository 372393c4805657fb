"""Layers are hooked on their autograd nodes, and the hooks are removed afterwards."""

from __future__ import annotations

import planted_layers
import pytest
import torch
from passes import Noted, listen, structure_of
from torch import Tensor, nn

from cnnperf.profiling.hooks import Hooks


def test_nodes_go_to_the_layer_that_made_them_and_the_rest_by_name() -> None:
    """The sum of a module that contains layers is its own, even if a ReLU works in place on a view of it."""
    model = nn.Sequential(planted_layers.Branches(nn.Linear(4, 4), nn.Sigmoid()), nn.Flatten(), nn.ReLU(inplace=True))
    noted = Noted()
    listen(model, torch.randn(2, 2, 4, requires_grad=True), noted)
    backward = [word for word in noted.words if word.startswith("backward")]
    layers = ["0", "0.slow", "0.fast", "1", "2", "(loss)"]
    assert noted.words[:6] == [f"forward {layer}" for layer in layers]
    names = [word.removeprefix("backward ") for word in dict.fromkeys(backward)]
    assert names[:3] == ["(loss)", "2", "0"]
    assert set(names[3:]) == {"0.slow", "0.fast"}


def test_a_tensor_that_is_no_argument_has_nodes_of_its_own() -> None:
    """A tensor that a module stores in the attribute of a layer inside it is not attributed to that layer."""

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
    assert noted.words.count("backward (network)") == 1


def test_operations_between_layers_belong_to_the_module_around_them() -> None:
    """A module that computes before, between and after its layers has these nodes, and no node of a layer."""

    class Around(nn.Sequential):
        def forward(self, values: Tensor) -> Tensor:
            return self[1](self[0](values.sin()).cos()).tan()

    noted = Noted()
    model = nn.Sequential(nn.Linear(4, 4), Around(nn.Linear(4, 4), nn.Sigmoid()))
    listen(model, torch.randn(2, 4), noted)
    backward = [word.removeprefix("backward ") for word in noted.words if word.startswith("backward")]
    assert [name for name in backward if name not in ("1.0", "0")] == ["(loss)", "1", "1.1", "1", "1"]


def test_nodes_of_no_module_have_the_names_of_nodes() -> None:
    """An operation outside of the network is unattributed, with the name of its node."""
    model, images, noted = nn.Linear(4, 4), torch.randn(2, 4), Noted()
    with Hooks(structure_of(model, images), noted) as hooks:
        loss = model(images).exp().sum()
        hooks.watch_rest(loss)
        loss.backward()
    assert [word for word in noted.words if "unattributed" in word] == [
        "backward (unattributed) SumBackward0",
        "backward (unattributed) ExpBackward0",
    ]


def test_modules_that_return_tuples_are_hooked() -> None:
    """Hooks find the tensors in a tuple that a module returns, and in a dict within the tuple."""
    noted = Noted()
    listen(planted_layers.OfDoubled(), torch.randn(2, 4), noted)
    assert noted.words[:2] == ["forward linear", "forward pair"]
    assert "backward pair" in noted.words


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_torchvisions_networks_with_in_place_modules_are_hooked(name: str) -> None:
    """Every layer has its forward, and each layer with weights and the shared in-place ReLU has its backward."""
    import torchvision

    with torch.device("meta"):  # Where the hundred million weights of one need no memory.
        model, images = getattr(torchvision.models, name)(num_classes=10), torch.randn(2, 3, 32, 32)
    noted = Noted()
    listen(model, images, noted)
    structure = structure_of(model, images)
    for layer in structure.layers:
        assert f"forward {layer.name}" in noted.words
        if layer.kind in ("Conv2d", "ReLU", "Linear", "BatchNorm2d"):
            assert f"backward {layer.name}" in noted.words, layer.name


class Broken(nn.Module):
    """A module that fails in its forward."""

    def forward(self, values: Tensor) -> Tensor:
        """Raise a RuntimeError."""
        raise RuntimeError("broken")


def test_hooks_are_gone_even_where_a_pass_fails() -> None:
    """After a failed pass, neither modules nor autograd nodes have a hook."""
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
