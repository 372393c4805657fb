"""How fast the training stage is beside loops written by hand, each pair taking turns in one process."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
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
from cnnperf.stages import Bench
from cnnperf.stages._recipe import Recipe
from cnnperf.stages.train import measure
from cnnperf.suite import Cell, Choice, Task

BATCH_SIZE = 64
LEAST_S = 0.2
"""How long a turn takes at least."""
ROUNDS = 11

Turn = Callable[[], float]
"""Trains for a while and returns its images per second."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Threads that wait for one another would measure what else the machine does."""
    torch.set_num_threads(1)


def ratio_of(benchmark: BenchmarkFixture, candidate: Turn, baseline: Turn) -> float:
    """Let the two take turns and return the median of their speeds' ratios, which the benchmark's record keeps too."""
    ratios: list[float] = []
    benchmark.pedantic(lambda: ratios.append(candidate() / baseline()), rounds=ROUNDS, warmup_rounds=1)
    ratio = statistics.median(ratios[1:])
    benchmark.extra_info |= {"ratio": round(ratio, 3), "ratios": [round(value, 3) for value in sorted(ratios[1:])]}
    return ratio


def stage(dataset: Dataset, model: str, recipe: Recipe, run: Path) -> float:
    """Train by the stage."""
    choice = Choice(name=model)
    cell = Cell(dataset=Choice(name="synthetic"), model=choice, device=Choice(name="cpu"))
    task = Task(cell=cell, stage="train", seed=0, threads=1, timeout_s=60)
    bench = Bench(task, acquire(), dataset, run, lambda **numbers: None)
    (speed,) = (m.values[0] for m in measure(bench, recipe) if m.metric == "train.images_per_s")
    return speed


class BareLoop:
    """What one writes by hand who knows torch: data in memory, one index and one normalisation a batch, fused SGD."""

    def __init__(self, dataset: Dataset, model: nn.Module, recipe: Recipe) -> None:
        channels_last = recipe.memory_format == "channels_last"
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._images = torch.from_numpy(dataset.train_images)
        self._labels = torch.from_numpy(dataset.train_labels)
        self._mean, self._std = (torch.tensor(v).view(1, -1, 1, 1) * 255 for v in (dataset.mean, dataset.std))
        self._model = model.to(memory_format=self._format)
        self._optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=recipe.momentum, fused=True)

    def __call__(self, steps: int) -> float:
        """Train so many steps and return the images per second."""
        start = perf_counter()
        order = torch.randperm(len(self._images))
        for step in range(steps):
            chosen = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
            images = self._images.index_select(0, chosen).float().sub_(self._mean).div_(self._std)
            logits = self._model(images.contiguous(memory_format=self._format))
            loss = F.cross_entropy(logits, self._labels[chosen])
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
        return steps * BATCH_SIZE / (perf_counter() - start)


@pytest.mark.parametrize("model", registry.names("models"))
def test_stage_keeps_up_with_a_bare_loop(benchmark: BenchmarkFixture, tmp_path: Path, model: str) -> None:
    """The stage's images/s are at least 0.97 of a bare loop's: same network, batch, optimizer and threads."""
    benchmark.group = "train stage ÷ bare loop ≥ 0.97"
    shape = (1, 28, 28) if model in ("lenet", "mlp") else (3, 32, 32)
    load = registry.find("datasets", "synthetic")
    dataset = load(Roots(cache=tmp_path), None, shape=shape, train=20_000, test=BATCH_SIZE)
    own = registry.module("models", model).recipe("cifar10")
    recipe = Recipe(
        steps=1,
        batch_size=BATCH_SIZE,
        validation_images=0,
        optimizer="sgd",
        lr=1e-3,
        schedule="constant",
        memory_format=own.get("memory_format", "contiguous"),
    )
    bare = BareLoop(dataset, models.create(Choice(name=model), shape, 10), recipe)
    bare(2)
    steps = max(2, round(LEAST_S * bare(2) / BATCH_SIZE))
    recipe = recipe.model_copy(update={"steps": steps})
    assert ratio_of(benchmark, lambda: stage(dataset, model, recipe, tmp_path), lambda: bare(steps)) >= 0.97


@pytest.mark.realdata
def test_stage_is_twice_as_fast_as_the_usual_loop(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """LeNet on MNIST: at least twice the images/s of a DataLoader over torchvision's dataset, as tutorials have it."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    benchmark.group = "train stage ÷ DataLoader loop ≥ 2 (LeNet, MNIST)"
    data = Path(os.environ["CNNPERF_DATA"])
    loader = DataLoader(
        datasets.MNIST(data, train=True, transform=transforms.ToTensor()), batch_size=BATCH_SIZE, shuffle=True
    )
    network = models.create(Choice(name="lenet"), (1, 28, 28), 10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def usual_loop(steps: int = 40) -> float:
        start = perf_counter()
        for _, (images, labels) in zip(range(steps), loader, strict=False):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
        return steps * BATCH_SIZE / (perf_counter() - start)

    mnist = registry.find("datasets", "mnist")(Roots(environment=data, cache=tmp_path), None)
    recipe = Recipe(steps=80, batch_size=BATCH_SIZE, optimizer="sgd", lr=0.01, test_images=BATCH_SIZE)
    assert ratio_of(benchmark, lambda: stage(mnist, "lenet", recipe, tmp_path), usual_loop) >= 2
