"""How fast the training stage is beside loops written by hand, the two taking turns in one process."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from cnnperf import models, registry
from cnnperf.datasets import Dataset, Roots
from cnnperf.devices.cpu import acquire
from cnnperf.machine import usable_cores
from cnnperf.stages import Bench
from cnnperf.stages._loop import POINTS
from cnnperf.stages._recipe import Recipe
from cnnperf.stages.train import measure
from cnnperf.task import Cell, Choice, Task

Loop = Callable[[int], None]
"""Takes so many training steps."""

TURN_S = 0.15
"""How long a turn takes at least; a step of the large networks takes longer."""


@pytest.fixture(autouse=True)
def _all_cores() -> None:
    torch.set_num_threads(usable_cores())


def speed_ratio(
    benchmark: BenchmarkFixture, dataset: Dataset, model: str, recipe: Recipe, loop: Loop, run: Path
) -> float:
    """Let the stage and a loop take turns and return the median of their speeds' ratios; above 1 the stage is faster.

    The stage lets go of its clock wherever it reports its training accuracy: there the loop takes as many steps.
    """
    loop(2)
    start = perf_counter()
    loop(2)
    steps = max(1, round(2 * TURN_S / (perf_counter() - start)))
    cell = Cell(dataset=Choice(name="synthetic"), model=Choice(name=model), device=Choice(name="cpu"))
    task = Task(cell=cell, stage="train", seed=0, threads=torch.get_num_threads(), timeout_s=60)
    bench = Bench(task, acquire(), dataset, run, lambda **numbers: None)
    stage_s, loop_s = [0.0], []

    def take_turns() -> None:
        for found in measure(bench, recipe.model_copy(update={"steps": POINTS * steps, "validation_images": 0})):
            if found.metric == "train.train_accuracy":
                stage_s.append(float(found.tags["seconds"]))
                start = perf_counter()
                loop(steps)
                loop_s.append(perf_counter() - start)

    benchmark.pedantic(take_turns, rounds=1)
    ratios = sorted(loop / (end - start) for loop, (start, end) in zip(loop_s, pairwise(stage_s), strict=True))
    benchmark.extra_info |= {"ratio": statistics.median(ratios), "ratios": ratios, "steps_a_turn": steps}
    return statistics.median(ratios)


class BareLoop:
    """What one writes by hand who knows torch: data in memory, one index and one normalisation a batch, fused SGD."""

    def __init__(self, dataset: Dataset, model: nn.Module, recipe: Recipe) -> None:
        channels_last = recipe.memory_format == "channels_last"
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._images = torch.from_numpy(dataset.train_images)
        self._labels = torch.from_numpy(dataset.train_labels)
        self._mean, self._std = (torch.tensor(v).view(1, -1, 1, 1) * 255 for v in (dataset.mean, dataset.std))
        self._batch_size = recipe.batch_size
        self._model = model.to(memory_format=self._format)
        self._optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=recipe.momentum, fused=True)

    def __call__(self, steps: int) -> None:
        """Take so many training steps."""
        batches = torch.randint(len(self._images), (steps, self._batch_size))
        for chosen in batches:
            images = self._images.index_select(0, chosen).float().sub_(self._mean).div_(self._std)
            logits = self._model(images.contiguous(memory_format=self._format))
            loss = F.cross_entropy(logits, self._labels[chosen])
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()


@pytest.mark.parametrize("model", registry.names("models"))
def test_stage_keeps_up_with_a_bare_loop(benchmark: BenchmarkFixture, tmp_path: Path, model: str) -> None:
    """The stage's images/s are at least 0.97 of a bare loop's with the same network, batch, optimizer and threads."""
    benchmark.group = "train stage ÷ bare loop ≥ 0.97"
    shape = (1, 28, 28) if model in ("lenet", "mlp") else (3, 32, 32)
    dataset = registry.find("datasets", "synthetic")(Roots(cache=tmp_path), None, shape=shape, train=10_000, test=32)
    memory_format = registry.module("models", model).recipe("cifar10").get("memory_format", "contiguous")
    recipe = Recipe(steps=1, batch_size=32, optimizer="sgd", lr=1e-3, schedule="constant", memory_format=memory_format)
    bare = BareLoop(dataset, models.create(Choice(name=model), shape, 10), recipe)
    assert speed_ratio(benchmark, dataset, model, recipe, bare, tmp_path) >= 0.97


@pytest.mark.realdata
def test_stage_is_twice_as_fast_as_the_usual_loop(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """LeNet on MNIST: at least twice the images/s of a DataLoader over torchvision's dataset, as tutorials have it."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    benchmark.group = "train stage ÷ DataLoader loop ≥ 2 (LeNet, MNIST)"
    data = Path(os.environ["CNNPERF_DATA"])
    images = datasets.MNIST(data, train=True, transform=transforms.ToTensor())
    loader = DataLoader(images, batch_size=64, shuffle=True)
    network = models.create(Choice(name="lenet"), (1, 28, 28), 10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    batches = iter(loader)

    def usual_loop(steps: int) -> None:
        for _, (images, labels) in zip(range(steps), batches, strict=False):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()

    mnist = registry.find("datasets", "mnist")(Roots(environment=data, cache=tmp_path), None)
    recipe = Recipe(steps=1, batch_size=64, optimizer="sgd", lr=0.01, test_images=64)
    assert speed_ratio(benchmark, mnist, "lenet", recipe, usual_loop, tmp_path) >= 2
