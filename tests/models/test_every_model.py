"""Properties of every network in the room; the file of a new network is tested here without an edit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_origin

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cnnperf import registry
from cnnperf.models import GIVEN, create
from cnnperf.models import recipe as recommended
from cnnperf.models._recipes import mirrored
from cnnperf.task import Choice
from cnnperf.training.recipe import BUDGETS, Recipe

NAMES = registry.names("models")
SHAPES = [(1, 28, 28), (3, 32, 32)]

every_model = pytest.mark.parametrize("name", NAMES)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "×".join(map(str, shape)))


def build(name: str, shape: tuple[int, int, int], **options: object) -> nn.Module:
    """Build a network for ten classes with reproducible weights."""
    torch.manual_seed(0)
    return create(Choice.model_validate({"name": name, **options}), shape, 10)


def options_of(name: str) -> dict[str, object]:
    """Return the types of a network's options by name."""
    return {
        key: field.annotation
        for key, field in registry.options(registry.find("models", name), GIVEN).model_fields.items()
    }


def variants_of(name: str) -> list[dict[str, bool]]:
    """Return a network's default options, and then each boolean option with either value."""
    switches = [key for key, annotation in options_of(name).items() if annotation is bool]
    return [{}, *({key: value} for key in switches for value in (True, False))]


@every_model
@every_shape
def test_gives_one_finite_logit_per_class_and_every_parameter_a_gradient(
    name: str, shape: tuple[int, int, int]
) -> None:
    """N images give N×K finite logits in training and in evaluation, and each trained parameter gets a gradient."""
    model = build(name, shape)
    images = torch.randn(2, *shape)
    for mode in (False, True):
        logits = model.train(mode)(images)
        assert logits.shape == (2, 10)
        assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert parameter.grad is None or parameter.grad.isfinite().all(), key


@every_model
@pytest.mark.parametrize("shape", [*SHAPES, (3, 45, 30), (1, 96, 96)], ids=lambda shape: "×".join(map(str, shape)))
def test_builds_on_the_meta_device(name: str, shape: tuple[int, int, int], on_meta: Callable[..., nn.Module]) -> None:
    """Each network runs on the meta device, as in preflight, for images of any size from 28×28 on."""
    logits = on_meta(name, shape)(torch.empty(2, *shape, device="meta"))
    assert logits.shape == (2, 10)
    assert logits.is_meta


@every_model
def test_same_seed_gives_the_same_weights(name: str) -> None:
    """Two networks built with the same seed have equal weights."""
    first, second = (build(name, (1, 28, 28)).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_model
def test_images_of_a_batch_are_judged_apart(name: str) -> None:
    """In evaluation an image's logits do not depend on the rest of the batch, and two images have different logits."""
    model = build(name, (3, 32, 32)).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        together, alone = model(images), model(images[:1])
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-4)
    assert not torch.equal(together[0], together[1])


@every_model
def test_no_layer_changes_its_input_in_place(name: str, on_meta: Callable[..., nn.Module]) -> None:
    """A layer's output is not changed later in the pass, so that hooks and profiles may keep it."""
    for options in variants_of(name):
        model = on_meta(name, (1, 28, 28), **options).train()
        kept: list[tuple[Tensor, int]] = []
        for layer in model.modules():
            layer.register_forward_hook(lambda _layer, _in, output, kept=kept: kept.append((output, output._version)))
        model(torch.empty(2, 1, 28, 28, device="meta"))
        assert kept
        assert all(output._version == version for output, version in kept), options


@every_model
def test_switches_build_both_ways(name: str, on_meta: Callable[..., nn.Module]) -> None:
    """Each boolean option builds a network with either value, and without `batch_norm` there is no batch norm."""
    for options in variants_of(name):
        model = on_meta(name, **options)
        assert model(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)
        if "batch_norm" in options:
            assert any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()) == options["batch_norm"]


@every_model
def test_nothing_is_computed_in_place(name: str, on_meta: Callable[..., nn.Module]) -> None:
    """No operator of a forward pass writes into its input, so that hooks see every value unchanged."""

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert not func._schema.is_mutable, func
            return func(*args, **(kwargs or {}))

    for options in variants_of(name):
        model, images = on_meta(name, **options).eval(), torch.empty(2, 3, 32, 32, device="meta")
        with Watch():
            model(images)


@every_model
def test_options_are_checked(name: str) -> None:
    """An unknown option is refused by name, and so is text for a boolean, a number or a choice."""
    options = registry.options(registry.find("models", name), GIVEN)
    with pytest.raises(ValidationError, match="no_such_option"):
        options(no_such_option=1)
    for key, annotation in options_of(name).items():
        if annotation in (bool, int, float) or get_origin(annotation) is Literal:
            with pytest.raises(ValidationError, match=key):
                options(**{key: "nonsense"})


@every_model
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dataset", ["mnist", "cifar10", "synthetic"])
def test_recipe_is_one_that_training_takes(name: str, dataset: str, device: str) -> None:
    """A network's recipe is valid, leaves the budget to the suite, and mirrors only images that may be mirrored."""
    given = recommended(Choice(name=name), dataset, device)
    recipe = Recipe.resolve(given, {}, {})
    assert given.keys().isdisjoint(BUDGETS)
    assert recipe.flip == "none" or mirrored(dataset)


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(registry.module("models", name), "initialise")])
@every_shape
def test_weights_from_data_are_finite(name: str, shape: tuple[int, int, int]) -> None:
    """Weights that depend on data are finite even if some pixels never vary."""
    model = build(name, shape)
    images = torch.randn(64, *shape)
    images[:, :, :8] = -0.5
    registry.module("models", name).initialise(model, images)
    assert model(images).isfinite().all()
