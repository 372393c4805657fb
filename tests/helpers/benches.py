"""Small generated images that can be learned, and a bench to train a network on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnperf.bench import Bench
from cnnperf.datasets import Dataset
from cnnperf.devices.cpu import acquire
from cnnperf.record import Artifact
from cnnperf.task import Cell, Choice, Provenance, Task
from cnnperf.training.recipe import Recipe


def left_by(bench: Bench) -> dict[str, Artifact]:
    """Return a stage's artifacts as a record has them, without checksums, since a test may alter the files."""
    return {kind: Artifact(path=path) for kind, path in bench.artifacts.items()}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the networks in tiny_networks.py importable."""
    monkeypatch.syspath_prepend(Path(__file__).parent)


def striped(count: int, seed: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return dark noise with a bright stripe whose place is the label."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, count)
    images = random.integers(0, 100, (count, channels, 28, 28), dtype=np.uint8)
    for row in (0, 1):
        images[np.arange(count), :, 2 * labels + row] += 150
    return images, labels


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """Return a function that makes datasets of 28×28 images."""

    def make(train: int = 500, test: int = 200, channels: int = 1) -> Dataset:
        provenance = Provenance(
            name="synthetic",
            source="a test",
            sha256="0" * 64,
            train_count=train,
            test_count=test,
            shape=(channels, 28, 28),
            num_classes=10,
        )
        return Dataset(
            *striped(train, 0, channels),
            *striped(test, 1, channels),
            mean=(0.25,) * channels,
            std=(0.2,) * channels,
            classes=tuple("0123456789"),
            provenance=provenance,
            folder=tmp_path,
        )

    return make


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    """Return a function that makes recipes for the small dataset."""

    def make(**settings: Any) -> Recipe:
        return Recipe.resolve({}, {"batch_size": 32, "validation_images": 100, "steps": 8}, settings)

    return make


@pytest.fixture
def bench(dataset: Callable[..., Dataset], tmp_path: Path) -> Callable[..., Bench]:
    """Return a function that makes benches on the CPU; the model is one of tiny_networks.py."""

    def make(
        model: str = "convolutional", seed: int = 0, data: Dataset | None = None, progress: Any = None, **options: Any
    ) -> Bench:
        task = Task(
            cell=Cell(
                dataset=Choice(name="synthetic"),
                model=Choice.model_validate({"name": f"tiny_networks:{model}", **options}),
                device=Choice(name="cpu"),
            ),
            stage="train",
            seed=seed,
            threads=1,
            timeout_s=60.0,
        )
        return Bench(task, acquire(), data or dataset(), tmp_path, progress or (lambda **numbers: None))

    return make
