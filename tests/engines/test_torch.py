"""PyTorch, eager: the layout of the weights is an option that does not change the logits."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cnnperf.devices.cpu import acquire
from cnnperf.engines import EngineSource
from cnnperf.engines.torch import load, load_weights
from cnnperf.errors import StageError
from cnnperf.task import Choice


def test_channels_last_computes_the_same_in_another_layout(tmp_path: Path) -> None:
    """With `channels_last`, convolutions return that layout and the logits are the same; the default is contiguous."""
    source = EngineSource(
        model=Choice(name="lenet"),
        shape=(3, 32, 32),
        num_classes=10,
        seed=0,
        weights=None,
        onnx=None,
        calibration=lambda count: np.empty((count, 3, 32, 32), np.float32),
        folder=tmp_path,
        device=acquire(),
        threads=1,
        waiting="brief",
    )
    images = np.random.default_rng(0).standard_normal((4, 3, 32, 32), dtype=np.float32)
    plain, other = load(source), load(source, memory_format="channels_last")
    assert plain.model.conv1.weight.is_contiguous()
    assert other.model.conv2(torch.rand(2, 6, 16, 16)).is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(other.run(images), plain.run(images), rtol=1e-4, atol=1e-6)


class Poison:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._folder),)


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
