"""The recipes of the package's networks, and the network that README.md shows."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from processes import completed

import cnnperf
from cnnperf import models, registry
from cnnperf.datasets import cifar10, mnist
from cnnperf.models._recipes import augmentation
from cnnperf.task import Choice

ROOT = Path(__file__).parents[2]
OURS = ("alexnet", "googlenet", "lenet", "mlp", "nin", "resnet", "resnet8", "speedrun", "trashnet", "vgg")


@pytest.mark.parametrize("name", OURS)
def test_ours_are_tuned_and_mirror_photos(name: str) -> None:
    """Each recipe names the tuned settings, and mirrors photos but not digits."""
    of_photos, of_digits = (registry.module("models", name).recipe(dataset) for dataset in ("cifar10", "mnist"))
    assert {"optimizer", "lr", "batch_size", "schedule", "memory_format"} <= of_photos.keys()
    assert of_photos["flip"] != "none"
    assert of_digits["flip"] == "none"


@pytest.mark.parametrize("name", [name for name in OURS if name != "mlp"])
def test_convolutions_are_channels_last_on_cuda(name: str) -> None:
    """On CUDA, the recipe of every network with convolutions is channels_last."""
    assert models.recipe(Choice(name=name), "cifar10", "cuda")["memory_format"] == "channels_last"


def test_a_dataset_says_itself_whether_it_may_be_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a dataset says whether its images may be mirrored; a foreign dataset is not mirrored."""
    monkeypatch.delattr(cifar10, "MIRRORED")
    monkeypatch.setattr(mnist, "MIRRORED", True, raising=False)
    assert [augmentation(name)["flip"] for name in ("cifar10", "mnist", "cats:load")] == ["none", "random", "none"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_network_that_readme_shows_passes_what_every_network_must(tmp_path: Path) -> None:
    """The network in README.md, saved in a copy of the package, passes the tests of every network without an edit."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [(stem, source)] = re.findall(r"```python\n# cnnperf/models/(\w+)\.py\n(.*?)```", readme, flags=re.DOTALL)
    without_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(cnnperf.__file__).parent, tmp_path / "cnnperf", ignore=without_caches)
    shutil.copytree(Path(__file__).parent, tmp_path / "tests", ignore=without_caches)
    (tmp_path / "cnnperf" / "models" / f"{stem}.py").write_text(source, encoding="utf-8")
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_every_model.py", "-k", stem]
    done = completed(sys.executable, *tests, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d\d passed", done.stdout, flags=re.MULTILINE)
