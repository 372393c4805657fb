"""What a profile costs beside the steps that it profiles."""

from __future__ import annotations

import statistics
from pathlib import Path
from time import perf_counter

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from cnnperf import models, registry
from cnnperf.datasets import Roots
from cnnperf.devices.cpu import acquire
from cnnperf.machine import usable_cores
from cnnperf.stages import Bench
from cnnperf.stages._profile_settings import Profile
from cnnperf.stages.profile import measure
from cnnperf.task import Cell, Choice, Task


def test_a_profile_costs_at_most_sixty_steps(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """ResNet-18 at batch 32: the whole stage takes at most 60 plain steps, hooks lengthen a step by 15 % at most."""
    benchmark.group = "profile of ResNet-18 ÷ plain step ≤ 60"
    torch.set_num_threads(usable_cores())
    dataset = registry.find("datasets", "synthetic")(
        Roots(cache=tmp_path), None, shape=(3, 32, 32), train=2000, test=32
    )
    choice = Choice.model_validate({"name": "resnet", "depth": 18})
    cell = Cell(dataset=Choice(name="synthetic"), model=choice, device=Choice(name="cpu"))
    task = Task(cell=cell, stage="profile", seed=0, threads=torch.get_num_threads(), timeout_s=600)
    section = {"batch_sizes": [32], "train": {"validation_images": 0}}
    settings = Profile.resolve(models.recipe(choice, "cifar10", "cpu"), section, {})
    bench = Bench(task, acquire(), dataset, tmp_path, lambda **numbers: None)

    def run() -> tuple[float, float]:
        start = perf_counter()
        found = {m.metric: m.values for m in measure(bench, settings) if "layer" not in m.tags}
        seconds = perf_counter() - start
        plain, hooked = found["profile.step_seconds"], found["profile.instrumented_step_seconds"]
        ratio = statistics.median(b / a for a, b in zip(plain, hooked, strict=True))
        return seconds / statistics.median(plain), ratio

    steps, ratio = benchmark.pedantic(run, rounds=1)
    benchmark.extra_info |= {"steps": steps, "instrumented ÷ plain": ratio}
    assert steps <= 60
    assert ratio <= 1.15
