"""The speed-run network: its size, and weights that depend on data."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cnnperf.errors import UsageError
from cnnperf.models import speedrun
from cnnperf.training.recipe import Recipe


@pytest.fixture
def images() -> Tensor:
    """Return noise of 512×3×32×32, smoothed so that neighbouring pixels and channels correlate."""
    noise = torch.randn(512, 3, 34, 34, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.avg_pool2d(noise, 3, stride=1)
    return smooth + 0.5 * smooth.mean(1, keepdim=True)


def test_size(parameter_count: Callable[..., int], forward_flops: Callable[..., int]) -> None:
    """The network has 232,992 parameters, and its forward pass takes 22.4 MFLOP at 3×32×32."""
    assert parameter_count("speedrun") == 232_992
    assert forward_flops("speedrun") / 1e6 == pytest.approx(22.4, abs=0.05)


def test_whitening_gives_uncorrelated_outputs_of_unit_variance(images: Tensor) -> None:
    """The covariance of the filters' outputs over all patches is the identity."""
    model = speedrun.build(3, 10, (32, 32))
    speedrun.initialise(model, images)
    filters = model.get_parameter("whitening.weight")
    outputs = nn.functional.conv2d(images, filters, stride=4).transpose(0, 1).flatten(1)
    torch.testing.assert_close(outputs[:24].cov(), torch.eye(24), atol=0.02, rtol=0)
    assert torch.equal(filters[24:], -filters[:24])


def test_whitening_keeps_the_directions_of_largest_variance(images: Tensor) -> None:
    """The filters' norms are 1 / √(variance + 5e-4) of the 24 directions of largest variance."""
    model = speedrun.build(3, 10, (32, 32))
    speedrun.initialise(model, images)
    sizes = model.get_parameter("whitening.weight")[:24].flatten(1).norm(dim=1)
    assert torch.equal(sizes, sizes.sort().values)
    patches = nn.functional.unfold(images, 4, stride=4).transpose(1, 2).flatten(0, 1)
    variances = torch.linalg.eigvalsh(patches.T.cov()).flip(0)
    torch.testing.assert_close(sizes, (variances[:24] + 5e-4).rsqrt(), rtol=1e-3, atol=0)


def test_what_is_frozen(on_meta: Callable[..., nn.Module]) -> None:
    """The whitening filters and the norms' scales are not trained; all other parameters are."""
    frozen = {key for key, parameter in on_meta("speedrun").named_parameters() if not parameter.requires_grad}
    assert frozen == {"whitening.weight", "block1.norm.weight", "block2.norm.weight", "block3.norm.weight"}


def test_convolutions_start_by_passing_their_input_on() -> None:
    """The first filters of each 3×3 convolution are the identity; the others are not zero."""
    model = speedrun.build(3, 10, (32, 32))
    for name, channels in [("block1", 48), ("block2", 48), ("block3", 96)]:
        conv = model.get_submodule(f"{name}.conv")
        features = torch.randn(1, channels, 5, 5)
        out = conv(features)
        torch.testing.assert_close(out[:, :channels], features)
        assert out[:, channels:].abs().sum(dim=(0, 2, 3)).all()


def test_grey_images_have_fewer_directions(on_meta: Callable[..., nn.Module]) -> None:
    """Images of one channel give 32 filters: the 16 directions of a 4×4 patch and their negatives."""
    assert on_meta("speedrun", (1, 28, 28)).get_parameter("whitening.weight").shape == (32, 1, 4, 4)


def test_images_too_small_are_refused() -> None:
    """Images below 8×8 are refused, since nothing would be left after the second pool."""
    assert speedrun.build(3, 10, (8, 8))(torch.randn(2, 3, 8, 8)).shape == (2, 10)
    with pytest.raises(UsageError, match="speedrun needs images of at least 8×8, got 7×8"):
        speedrun.build(3, 10, (7, 8))


def test_layers_in_order(layers: Callable[..., list[str]]) -> None:
    """The layers have GELU, max-pools before the norms, a global maximum, and a scale on the logits."""
    block, pool = ["Conv2d 3/1", "BatchNorm2d", "GELU"], "MaxPool2d 2/2"
    assert layers("speedrun") == [
        *("Conv2d 4/2", "GELU"),
        *[layer for conv, *rest in (block, block) for layer in (conv, pool, *rest)],
        *("Conv2d 3/1", "Identity", "BatchNorm2d", "GELU"),
        *("AdaptiveMaxPool2d", "Flatten", "Linear", "Scale"),
    ]


def test_logits_are_scaled(images: Tensor) -> None:
    """The logits are a fifth of the linear layer's output."""
    model = speedrun.build(3, 10, (32, 32)).eval()
    torch.testing.assert_close(model(images[:2]), 0.2 * model[:-1](images[:2]))


def test_recipe_is_the_one_that_was_tuned() -> None:
    """The recipe has the tuned settings; digits are neither mirrored in training nor tested with mirror images."""
    tuned = {
        "optimizer": "muon",
        "muon_lr": 0.14,
        "muon_momentum": 0.6,
        "muon_steps": 3,
        "lr": 0.5,
        "bias_lr": 0.05,
        "momentum": 0.85,
        "weight_decay": 0.0,
        "schedule": "one-cycle",
        "batch_size": 256,
        "label_smoothing": 0.1,
        "memory_format": "channels_last",
        "crop": 2,
        "crop_padding": "reflect",
    }
    assert speedrun.recipe("cifar10") == tuned | {"flip": "alternating", "test_flip": True}
    assert speedrun.recipe("mnist") == tuned | {"flip": "none", "test_flip": False}
    recipe = Recipe.resolve(speedrun.recipe("cifar10"), {"seconds": 60}, {})
    assert (recipe.warmup, recipe.muon_renormalise) == (0.1, True)
