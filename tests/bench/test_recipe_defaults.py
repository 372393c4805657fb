"""The memory format and precision of each recipe, compared with the alternative."""

from __future__ import annotations

import math
import statistics
from time import perf_counter

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from pytest_benchmark.fixture import BenchmarkFixture

from cnnperf import models, registry
from cnnperf.machine.fingerprint import usable_cores
from cnnperf.task import Choice
from cnnperf.training.recipe import Recipe

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
TURNS = 15
TURN_S = 0.1


def default_of(name: str) -> Recipe:
    """Return a network's recipe for CIFAR-10."""
    return Recipe.resolve(models.recipe(Choice(name=name), "cifar10", "cpu"), {}, {})


class Trained:
    """A network in one memory format and precision, ready to take training steps."""

    def __init__(self, name: str, shape: tuple[int, int, int], memory_format: str, precision: str = "fp32") -> None:
        batch_size = default_of(name).batch_size
        torch.manual_seed(0)
        self._model = models.create(Choice(name=name), shape, 10).to(memory_format=FORMATS[memory_format])
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=1e-3, fused=True)
        self._images = torch.randn(batch_size, *shape).to(memory_format=FORMATS[memory_format])
        self._labels = torch.randint(10, (batch_size,))
        self._autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")

    def seconds(self, steps: int) -> float:
        """Take this many steps and return their seconds."""
        start = perf_counter()
        for _ in range(steps):
            self._optimizer.zero_grad()
            with self._autocast:
                loss = F.cross_entropy(self._model(self._images), self._labels)
            loss.backward()
            self._optimizer.step()
        return perf_counter() - start


def speedup(chosen: Trained, other: Trained) -> float:
    """Return the other network's seconds over those of the chosen one, the median over turns."""
    networks = (chosen, other)
    steps = max(math.ceil(TURN_S / min(network.seconds(1) for _ in range(3) for network in networks)), 1)
    ratios = []
    for turn in range(TURNS):
        first, second = networks if turn % 2 else reversed(networks)
        times = {first: first.seconds(steps), second: second.seconds(steps)}
        ratios.append(times[other] / times[chosen])
    return statistics.median(ratios)


def images_of(name: str) -> tuple[int, int, int]:
    """Return the shape C×H×W of the images on which a network is timed."""
    return (1, 28, 28) if name in ("lenet", "mlp") else (3, 32, 32)


@pytest.mark.parametrize("name", registry.names("models"))
def test_the_recipe_has_the_faster_format(benchmark: BenchmarkFixture, name: str) -> None:
    """Training in the recipe's memory format is at most 3 % slower than in the other."""
    benchmark.group = "recipe's memory format ÷ the other, steps/s ≥ 0.97"
    torch.set_num_threads(usable_cores())
    chosen = default_of(name).memory_format
    [other] = FORMATS.keys() - {chosen}
    networks = [Trained(name, images_of(name), memory_format) for memory_format in (chosen, other)]
    ratio = benchmark.pedantic(speedup, networks, rounds=1)
    benchmark.extra_info |= {"format": chosen, "ratio": ratio}
    assert ratio >= 0.97


@pytest.mark.parametrize("name", registry.names("models"))
def test_bf16_is_a_choice_of_the_processor(benchmark: BenchmarkFixture, name: str) -> None:
    """The speed of bf16 training over fp32 training is reported without a limit, since it depends on the processor."""
    benchmark.group = "bf16 ÷ fp32, steps/s"
    torch.set_num_threads(usable_cores())
    chosen = default_of(name).memory_format
    networks = [Trained(name, images_of(name), chosen, precision) for precision in ("bf16", "fp32")]
    benchmark.extra_info |= {"ratio": benchmark.pedantic(speedup, networks, rounds=1)}
