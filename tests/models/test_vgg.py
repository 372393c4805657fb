"""VGG, compared with torchvision's."""

from collections.abc import Callable

import pytest
import torch


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize(("depth", "plain"), [(11, 9_220_480), (13, 9_404_992), (16, 14_714_688), (19, 20_024_384)])
def test_features_are_torchvisions(
    depth: int, plain: int, batch_norm: bool, parameter_count: Callable[..., int]
) -> None:
    """The convolutions have as many parameters as torchvision's, and the linear layer adds 512 × 10 + 10."""
    import torchvision

    with torch.device("meta"):
        reference = torchvision.models.get_model(f"vgg{depth}{'_bn' if batch_norm else ''}", init_weights=False)
    features = parameter_count("vgg", depth=depth, batch_norm=batch_norm) - 5_130
    assert features == sum(p.numel() for p in reference.features.parameters())
    assert batch_norm or features == plain


def test_layers_in_order(layers: Callable[..., list[str]]) -> None:
    """A ReLU follows each 3×3 convolution, and a max-pool follows each stage."""
    conv, pool = ["Conv2d 3/1", "ReLU"], ["MaxPool2d 2/2"]
    stages = [layer for count in (1, 1, 2, 2, 2) for layer in (*conv * count, *pool)]
    assert layers("vgg", batch_norm=False) == [*stages, "AdaptiveAvgPool2d", "Flatten", "Linear"]
