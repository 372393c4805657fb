"""How fast the training stage is beside loops written by hand, the two taking turns in one process."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable
from itertools import chain, pairwise, repeat
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
from cnnperf.stages import Bench, _loop
from cnnperf.stages._recipe import Recipe
from cnnperf.stages.train import measure
from cnnperf.task import Cell, Choice, Task

Loop = Callable[[int], None]
"""Takes so many training steps."""

TURN_S = 0.02
"""How long a turn takes at least: short, so that what else the machine does falls on few of them."""
TOTAL_S = 5.0
"""How long each of the two trains …"""
TURNS = (20, 200)
"""… in no fewer and no more turns than these."""


@pytest.fixture
def speed_ratio(
    benchmark: BenchmarkFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., float]:
    """Return what lets stage and loop take turns; the median of their speeds' ratios, above 1 if the stage is faster.

    It prints a row of README's table: network, images/s of the stage, images/s of the loop, their ratio.
    The stage lets go of its clock wherever it reports its training accuracy: there the loop takes as many steps.
    """
    torch.set_num_threads(usable_cores())

    def ratio(dataset: Dataset, model: str, recipe: Recipe, loop: Loop, turn_s: float = TURN_S) -> float:
        step_s = min(_timed(loop) for _ in range(5))
        steps = math.ceil(turn_s / step_s)
        turns = min(max(int(TOTAL_S / (steps * step_s)), TURNS[0]), TURNS[1])
        monkeypatch.setattr(_loop, "POINTS", turns)
        recipe = recipe.model_copy(update={"steps": turns * steps, "validation_images": 0})
        cell = Cell(dataset=Choice(name="synthetic"), model=Choice(name=model), device=Choice(name="cpu"))
        task = Task(cell=cell, stage="train", seed=0, threads=torch.get_num_threads(), timeout_s=60)
        bench = Bench(task, acquire(), dataset, tmp_path, lambda **numbers: None)
        stage_s, loop_s = [0.0], []

        def take_turns() -> None:
            for found in measure(bench, recipe):
                if found.metric == "train.train_accuracy":
                    stage_s.append(float(found.tags["seconds"]))
                    loop_s.append(_timed(loop, steps))

        benchmark.pedantic(take_turns, rounds=1)
        stage_turns = [end - start for start, end in pairwise(stage_s)]
        ratios = [bare / own for bare, own in zip(loop_s, stage_turns, strict=True)]
        middle = statistics.median(ratios)
        speeds = (steps * recipe.batch_size / statistics.median(seconds) for seconds in (stage_turns, loop_s))
        benchmark.extra_info |= {"ratio": middle, "quartiles": statistics.quantiles(ratios), "turns": turns}
        with capsys.disabled():
            print("\n|", " | ".join((model, *(f"{speed:,.0f}" for speed in speeds), f"{middle:.3f}")), "|")
        return middle

    return ratio


def _timed(loop: Loop, steps: int = 1) -> float:
    start = perf_counter()
    loop(steps)
    return perf_counter() - start


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
def test_stage_keeps_up_with_a_bare_loop(
    benchmark: BenchmarkFixture, speed_ratio: Callable[..., float], tmp_path: Path, model: str
) -> None:
    """The stage's images/s are at least 0.97 of a bare loop's with the same network, batch, optimizer and threads."""
    benchmark.group = "train stage ÷ bare loop ≥ 0.97"
    shape = (1, 28, 28) if model in ("lenet", "mlp") else (3, 32, 32)
    dataset = registry.find("datasets", "synthetic")(Roots(cache=tmp_path), None, shape=shape, train=10_000, test=32)
    memory_format = registry.module("models", model).recipe("cifar10").get("memory_format", "contiguous")
    recipe = Recipe(steps=1, batch_size=32, optimizer="sgd", lr=1e-3, schedule="constant", memory_format=memory_format)
    bare = BareLoop(dataset, models.create(Choice(name=model), shape, 10), recipe)
    assert speed_ratio(dataset, model, recipe, bare) >= 0.97


@pytest.mark.realdata
def test_stage_is_twice_as_fast_as_the_usual_loop(
    benchmark: BenchmarkFixture, speed_ratio: Callable[..., float], tmp_path: Path
) -> None:
    """LeNet on MNIST: at least twice the images/s of a DataLoader over torchvision's dataset, as tutorials have it."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    benchmark.group = "train stage ÷ DataLoader loop ≥ 2 (LeNet, MNIST)"
    data = Path(os.environ["CNNPERF_DATA"])
    images = datasets.MNIST(data, train=True, transform=transforms.ToTensor())
    loader = DataLoader(images, batch_size=128, shuffle=True)
    network = models.create(Choice(name="lenet"), (1, 28, 28), 10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    batches = chain.from_iterable(repeat(loader))

    def usual_loop(steps: int) -> None:
        for _, (images, labels) in zip(range(steps), batches, strict=False):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()

    mnist = registry.find("datasets", "mnist")(Roots(environment=data, cache=tmp_path), None)
    recipe = Recipe(steps=1, batch_size=128, optimizer="sgd", lr=0.01, test_images=128, memory_format="channels_last")
    # Turns so long that neither pays for the caches that the other, of another kind, has filled.
    assert speed_ratio(mnist, "lenet", recipe, usual_loop, turn_s=0.2) >= 2
