"""Which order of images and weights in memory is the faster one here: each recipe should have it."""

from __future__ import annotations

import math
import statistics
from time import perf_counter

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from pytest_benchmark.fixture import BenchmarkFixture

from cnnperf import models, registry
from cnnperf.machine import usable_cores
from cnnperf.task import Choice

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
TURNS = 15
TURN_S = 0.1


class Arm:
    """A network in one memory format, ready to take training steps."""

    def __init__(self, name: str, shape: tuple[int, int, int], memory_format: str) -> None:
        batch_size = int(str(registry.module("models", name).recipe("cifar10").get("batch_size", 128)))
        torch.manual_seed(0)
        self._model = models.create(Choice(name=name), shape, 10).to(memory_format=FORMATS[memory_format])
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=1e-3, fused=True)
        self._images = torch.randn(batch_size, *shape).to(memory_format=FORMATS[memory_format])
        self._labels = torch.randint(10, (batch_size,))

    def seconds(self, steps: int) -> float:
        """Take so many steps and return how long that took."""
        start = perf_counter()
        for _ in range(steps):
            self._optimizer.zero_grad()
            F.cross_entropy(self._model(self._images), self._labels).backward()
            self._optimizer.step()
        return perf_counter() - start


@pytest.mark.parametrize("name", registry.names("models"))
def test_the_recipe_has_the_faster_format(benchmark: BenchmarkFixture, name: str) -> None:
    """Training in the recipe's memory format is at most 3 % slower than in the other."""
    benchmark.group = "recipe's memory format ÷ the other, steps/s ≥ 0.97"
    torch.set_num_threads(usable_cores())
    shape = (1, 28, 28) if name in ("lenet", "mlp") else (3, 32, 32)
    chosen = str(registry.module("models", name).recipe("cifar10").get("memory_format", "contiguous"))
    [other] = FORMATS.keys() - {chosen}
    arms = Arm(name, shape, chosen), Arm(name, shape, other)
    steps = max(math.ceil(TURN_S / min(arm.seconds(1) for _ in range(3) for arm in arms)), 1)
    ratios: list[float] = []

    def take_turns() -> None:
        for turn in range(TURNS):
            first, second = arms if turn % 2 else reversed(arms)
            times = {first: first.seconds(steps), second: second.seconds(steps)}
            ratios.append(times[arms[1]] / times[arms[0]])

    benchmark.pedantic(take_turns, rounds=1)
    benchmark.extra_info |= {"format": chosen, "ratio": statistics.median(ratios)}
    assert statistics.median(ratios) >= 0.97
