"""The room of models: arguments of the package's networks and of foreign ones."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from poison import Poison
from torch import nn

from cnnperf.errors import StageError, UsageError
from cnnperf.models import create, initialise_of, load_weights, logits, recipe, speedrun
from cnnperf.task import Choice

DEVICES = ("cpu", "cuda")


def test_options_reach_the_network() -> None:
    """A choice's options are passed to the network, together with the images' shape and the number of classes."""
    with torch.device("meta"):
        model = create(Choice.model_validate({"name": "vgg", "depth": 13}), (1, 28, 28), 7)
        assert model(torch.empty(2, 1, 28, 28)).shape == (2, 7)
    assert sum(isinstance(layer, nn.Conv2d) for layer in model.modules()) == 10


def test_foreign_network_gets_the_classes_and_its_options() -> None:
    """A network of torchvision gets the number of classes and its options, and has no recipe."""
    choice = Choice.model_validate({"name": "torchvision.models:resnet18", "zero_init_residual": True})
    with torch.device("meta"):
        model = create(choice, (3, 32, 32), 7)
        assert model(torch.empty(2, 3, 32, 32)).shape == (2, 7)
    assert recipe(choice, "cifar10", "cpu") == {}


def test_foreign_callable_must_return_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A callable that returns no nn.Module is refused by its name: before it is called, if it shows nothing."""
    with pytest.raises(UsageError, match=r"'collections:Counter' was not called: collections is a module of Python"):
        create(Choice.model_validate("collections:Counter"), (3, 32, 32), 10)
    (tmp_path / "counts_classes.py").write_text("def build(num_classes): return num_classes")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"'counts_classes:build' returned int; a model must be an nn\.Module"):
        create(Choice.model_validate("counts_classes:build"), (3, 32, 32), 10)


def test_recipe_depends_on_the_dataset() -> None:
    """ResNet's recipe mirrors the images of CIFAR-10 and not those of MNIST."""
    choice = Choice.model_validate("resnet")
    assert recipe(choice, "cifar10", "cpu")["flip"] == "random"
    assert recipe(choice, "mnist", "cpu")["flip"] == "none"


def test_recipe_depends_on_the_options_that_it_names() -> None:
    """VGG's recipe has a lower learning rate without batch norm, and the same rate at any depth."""
    plain, deep = (Choice.model_validate({"name": "vgg", **o}) for o in ({"batch_norm": False}, {"depth": 19}))
    assert recipe(plain, "cifar10", "cpu")["lr"] == 0.0003
    assert recipe(deep, "cifar10", "cpu")["lr"] == 0.001


def test_recipe_depends_on_the_device_if_it_names_it() -> None:
    """VGG's recipe is contiguous on the CPU and channels_last on CUDA; ResNet's is channels_last on both."""
    vgg, resnet = Choice(name="vgg"), Choice(name="resnet")
    formats = [recipe(choice, "cifar10", device)["memory_format"] for choice in (vgg, resnet) for device in DEVICES]
    assert formats == ["contiguous", "channels_last", "channels_last", "channels_last"]


def test_only_a_file_of_the_room_draws_weights_from_data() -> None:
    """The `initialise` of a model's file is used if the model is named by its file, and not if by its callable."""
    assert initialise_of(Choice(name="speedrun")) is speedrun.initialise
    assert initialise_of(Choice(name="vgg")) is None
    assert initialise_of(Choice(name="cnnperf.models.speedrun:build")) is None


def test_logits_are_the_first_tensor_of_what_a_network_returns() -> None:
    """Logits are the first tensor: bare, in a tuple, a list or a dict; an output without a tensor is refused."""
    one, other = torch.zeros(2, 10), torch.zeros(())
    for output in (one, (one, other), {"logits": one, "loss": other}, [{"logits": (one, other)}, other]):
        assert logits(output) is one
    with pytest.raises(UsageError, match="returned str without a tensor; return the logits first"):
        logits("nothing")


def test_nothing_in_a_file_of_weights_is_executed(tmp_path: Path) -> None:
    """A pickle that would make a folder, alone or in torch's archive, makes none, and the error names the file."""
    file, folder = tmp_path / "weights.pt", tmp_path / "made"
    file.write_bytes(pickle.dumps(Poison(folder)))
    with pytest.raises(StageError, match=f"{file}: not a file of weights"):
        load_weights(nn.Linear(2, 2), file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("weights/data.pkl", pickle.dumps({"weight": Poison(folder)}))
        archive.writestr("weights/version", "3\n")
    with pytest.raises(StageError, match=f"{file}: not a file of weights"):
        load_weights(nn.Linear(2, 2), file)
    assert not folder.exists()


@pytest.mark.parametrize(
    "damage", [lambda file: os.truncate(file, 100), lambda file: os.truncate(file, 0), Path.unlink]
)
def test_a_damaged_file_of_weights_is_one_sentence(tmp_path: Path, damage: object) -> None:
    """A truncated, empty or missing file, and weights of another network, are errors that name the file."""
    file = tmp_path / "weights.pt"
    torch.save(nn.Linear(2, 3).state_dict(), file)
    with pytest.raises(StageError, match=f"{file}: does not fit the network Linear .size mismatch for weight"):
        load_weights(nn.Linear(2, 2), file)
    damage(file)
    with pytest.raises(StageError, match=f"{file}: not a file of weights") as caught:
        load_weights(nn.Linear(2, 3), file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 500
