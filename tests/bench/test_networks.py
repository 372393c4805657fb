"""The time of each network, for `--benchmark-autosave` and `--benchmark-compare`.

Two saved runs are two processes, between which the same code differs by more than 20 % on a shared machine;
`cnnperf ab` tells whether a difference is real.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from cnnperf import models, registry
from cnnperf.task import Choice
from cnnperf.training.optimise import Step
from cnnperf.training.recipe import Recipe

SHAPE = (3, 32, 32)
BATCH_SIZE = 8
WARMUP, ROUNDS = 3, 20


class Network:
    """A network with its recipe for CIFAR-10 and a small batch; one thread makes machines comparable."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.recipe = Recipe.resolve(models.recipe(Choice(name=name), "cifar10", "cpu"), {"steps": 1}, {})
        channels_last = self.recipe.memory_format == "channels_last"
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model: nn.Module = models.create(Choice(name=name), SHAPE, 10).to(memory_format=memory_format)
        self.images: Tensor = torch.randn(BATCH_SIZE, *SHAPE).contiguous(memory_format=memory_format)
        self.labels: Tensor = torch.randint(10, (BATCH_SIZE,))


@pytest.fixture(params=registry.names("models"))
def network(request: pytest.FixtureRequest) -> Network:
    """Return each network of the package."""
    return Network(request.param)


@pytest.fixture
def timed(benchmark: BenchmarkFixture) -> Callable[[Callable[[], object]], None]:
    """Return a function that times a call on one thread and restores the number of threads."""

    def time(call: Callable[[], object]) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            benchmark.pedantic(call, warmup_rounds=WARMUP, rounds=ROUNDS)
        finally:
            torch.set_num_threads(threads)

    return time


@pytest.mark.benchmark(group=f"forward pass, {BATCH_SIZE} images")
def test_forward_pass(timed: Callable[[Callable[[], object]], None], network: Network) -> None:
    """The time of a batch in evaluation mode, without gradients, is measured."""
    network.model.eval()
    with torch.inference_mode():
        timed(lambda: network.model(network.images))


@pytest.mark.benchmark(group=f"training step, {BATCH_SIZE} images")
def test_training_step(timed: Callable[[Callable[[], object]], None], network: Network) -> None:
    """The time of forward, backward and update by the recipe's optimizer, at a learning rate of 0, is measured."""
    step = Step(network.model, network.model, network.recipe, "cpu")
    timed(lambda: step(network.images, network.labels, 0.0))
