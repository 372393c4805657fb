"""The cost of a profile in training steps, and whether it adds up and repeats, for each network."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from scipy.stats import spearmanr

from cnnperf import models, registry
from cnnperf.bench import Bench
from cnnperf.datasets import Roots
from cnnperf.devices.cpu import acquire
from cnnperf.machine.fingerprint import fingerprint, usable_cores
from cnnperf.profiling.probes import COPIES
from cnnperf.profiling.settings import Profile
from cnnperf.record import Record
from cnnperf.roofline import EXCESS, MEMORY_PROBE, Roofline
from cnnperf.stages.profile import measure
from cnnperf.tables.layer_row import DIRECTIONS, LayerRow
from cnnperf.tables.layers import LayerProfile, profiles
from cnnperf.task import Cell, Choice, Task

BATCH_SIZE = 32


def profiled(folder: Path, **choice: Any) -> LayerProfile:
    """Profile a network with the stage's default settings and its recipe, on synthetic 3×32×32 images."""
    torch.set_num_threads(usable_cores())
    dataset = registry.find("datasets", "synthetic")(Roots(cache=folder), None, shape=(3, 32, 32), train=2000, test=32)
    model = Choice.model_validate(choice)
    cell = Cell(dataset=Choice(name="synthetic"), model=model, device=Choice(name="cpu"))
    task = Task(cell=cell, stage="profile", seed=0, threads=torch.get_num_threads(), timeout_s=600)
    section = {"batch_sizes": [BATCH_SIZE], "train": {"validation_images": 0}}
    settings = Profile.resolve(models.recipe(model, "cifar10", "cpu"), section, {})
    bench = Bench(task, acquire(), dataset, folder, lambda **numbers: None)
    start = perf_counter()
    measured = tuple(measure(bench, settings))
    record = Record(
        task=task,
        key=task.key,
        machine=fingerprint(),
        started="2025-01-02T03:04:05Z",
        duration_s=perf_counter() - start,
        status="ok",
        measurements=measured,
    )
    [found] = profiles({"run": (record,)})
    return found


def test_a_profile_costs_at_most_sixty_steps(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """A profile of ResNet-18 at batch 32 takes at most 60 plain steps, and hooks lengthen a step by 15 % at most."""
    benchmark.group = "profile of ResNet-18 ÷ plain step ≤ 60"
    found = benchmark.pedantic(profiled, (tmp_path,), {"name": "resnet", "depth": 18}, rounds=1)
    [plain] = found.record.find("profile.step_seconds")
    [hooked] = found.record.find("profile.instrumented_step_seconds")
    steps = found.record.duration_s / statistics.median(plain.values)
    ratio = statistics.median(b / a for a, b in zip(plain.values, hooked.values, strict=True))
    benchmark.extra_info |= {"steps": steps, "instrumented ÷ plain": ratio}
    assert steps <= 60
    assert ratio <= 1.15


@pytest.mark.parametrize("name", registry.names("models"))
def test_a_profile_adds_up_and_repeats(name: str, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """The rows add up to at most 1.05 plain steps, and the named probe explains each share above 105 % of the peak.

    At most 10 % of the forward pass is attributed to no layer. The agreement with a second profile is reported: the
    layers among the first five of both, and the rank correlation.
    """
    benchmark.group = "sum of a profile's rows ÷ plain step ≤ 1.05"
    first = benchmark.pedantic(profiled, (tmp_path,), {"name": name}, rounds=1)
    ratio = first.total("seconds") / first.one("step_seconds")
    above = [(row, d) for row in first.rows for d in DIRECTIONS if (row[f"{d}_share"] or 0) > EXCESS]
    mine, theirs = seconds(first), seconds(profiled(tmp_path, name=name))
    correlation = spearmanr(list(mine.values()), [theirs[layer] for layer in mine]).statistic
    benchmark.extra_info |= {
        "ratio": ratio,
        "shares above 105 %": len(above),
        "of the top five in both": len(set(top_five(mine)) & set(top_five(theirs))),
        "rank correlation": float(correlation),
    }
    assert ratio <= 1.05
    unexplained = [(row["layer"], d) for row, d in above if not explains(first.roofline, row, d)]
    assert not unexplained
    [unattributed] = [row["forward_s"] for row in first.rows if row["layer"] == "(unattributed)"]
    assert 0 <= unattributed <= 0.1 * first.total("forward_s")


def explains(roofline: Roofline, row: LayerRow, direction: str) -> bool:
    """Tell whether the missing probe that a row names would explain the row's share.

    The probe is a product or convolution faster than the best, if the layer was faster; or a copy of the bytes that the
    layer moves, if they are fewer than those of the copy that stands for memory, so that a cache may have held them.
    """
    named = row[f"{direction}_missing_probe"] or ""
    if row[f"{direction}_bound"] == "compute-bound":
        is_faster = row[f"{direction}_flops_per_s"] > roofline.flops_per_s
        return is_faster and named == f"product or convolution faster than {roofline.probe}"
    copied = row[f"{direction}_moved_bytes"] / 2
    size = re.fullmatch(r"copy of (\S+) MiB, from a cache", named)
    return bool(size) and float(size[1]) == pytest.approx(copied / 2**20, rel=0.01) and copied < COPIES[MEMORY_PROBE]


def seconds(profile: LayerProfile) -> Mapping[str, float]:
    """Return the seconds of each layer."""
    return {row["layer"]: row["seconds"] for row in profile.rows if row["calls"]}


def top_five(of_layer: Mapping[str, float]) -> list[str]:
    """Return the five layers that take the longest."""
    return sorted(of_layer, key=of_layer.__getitem__, reverse=True)[:5]
