"""The pace of a network: measured once a machine, and what the estimates make of it."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cnnperf.bench import Pace
from cnnperf.devices.cpu import Cpu, acquire
from cnnperf.inference.exporting import Export
from cnnperf.inference.settings import Infer
from cnnperf.ipc.messages import SuiteRequest
from cnnperf.machine.disturbance import Disturbance
from cnnperf.profiling.settings import Profile
from cnnperf.suite import parse
from cnnperf.task import Choice
from cnnperf.training.optimise import Step
from cnnperf.training.recipe import Recipe
from cnnperf.workers import pace
from cnnperf.workers.meta import TriedModel
from cnnperf.workers.pace import PaceProbe
from cnnperf.workers.prepare import START_S, Preparation

SHAPE = (1, 28, 28)
STEADY = Pace(step_s={2: 1.0, 12: 2.0}, forward_s={2: 0.5, 12: 0.5})
"""A step takes 0.8 s and 0.1 s for each image; a forward pass of any number of images 0.5 s."""


class Counts(NamedTuple):
    """The images of a dataset."""

    test_count: int
    train_count: int = 9000
    shape: tuple[int, int, int] = SHAPE


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the cache empty and the machine seem quiet, and return the folder of the paces."""
    monkeypatch.setattr(Disturbance, "words", ())
    monkeypatch.setenv("CNNPERF_CACHE", str(tmp_path))
    return tmp_path / "paces"


def probe(model: str = "dense", flops: int = 1, weight_bytes: int = 1, **settings: Any) -> PaceProbe:
    """Return the probe of a network with one thread."""
    tried = TriedModel(weight_bytes=weight_bytes, flops=flops)
    recipe = Recipe(steps=1, **settings)
    return PaceProbe(Choice(name=f"tiny_networks:{model}"), SHAPE, 10, acquire(), 1, recipe, tried)


def test_a_pace_is_measured_once(folder: Path) -> None:
    """A pace is in the cache once it was measured, unless it is damaged or that of another network or training."""
    assert probe().known() is None
    found = probe().measured()
    assert found is not None
    assert list(found.step_s) == list(found.forward_s) == [2, 32]
    assert min(*found.step_s.values(), *found.forward_s.values()) > 0
    assert probe().known() == found
    assert probe(weight_bytes=2).known() is None
    assert probe(optimizer="sgd").known() is None
    [file] = folder.iterdir()
    file.write_text('{"step_s": [2]}')
    assert probe().known() is None


def test_a_disturbed_pace_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pace on a busy machine serves the plan at hand only."""
    monkeypatch.setattr(Disturbance, "words", ("the load was 9.0 on 2 cores",))
    assert probe().measured() is not None
    assert not folder.exists()


def test_a_probe_takes_the_steps_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe takes steps by the code of a training; of several calls but the first, the least time counts."""
    steps: list[int] = []
    take = Step.__call__

    def step(self: Step, images: Any, labels: Any, factor: float) -> Any:
        steps.append(len(images))
        return take(self, images, labels, factor)

    seconds = iter(second for lap in count() for second in (10 * lap, 10 * lap + (0.15, 0.06)[lap % 2]))
    monkeypatch.setattr(Step, "__call__", step)
    monkeypatch.setattr(pace, "perf_counter", lambda: next(seconds))
    found = probe(optimizer="sgd").measured()
    assert found is not None
    assert steps == [2, 2, 2, 32, 32, 32]
    assert [*found.step_s.values(), *found.forward_s.values()] == pytest.approx([0.06] * 4)


def test_a_large_network_takes_steps_of_few_images() -> None:
    """A network of much arithmetic is measured on two images alone, and is taken to be in proportion to them."""
    found = probe(flops=10**11).measured()
    assert found is not None
    assert list(found.step_s) == [2]
    assert found.step(8) == pytest.approx(4 * found.step(2))


def test_a_network_that_fails_has_no_pace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that fails in training, or is too large for the memory, has no pace, and nothing is stored."""
    assert probe("untrainable").measured() is None
    monkeypatch.setattr(Cpu, "available_bytes", lambda _: 10**6)
    assert probe(weight_bytes=10**6).measured() is None
    assert not folder.exists()


def test_a_pace_is_a_line() -> None:
    """The time of other numbers of images lies on the line through the two that were measured."""
    assert (STEADY.step(2), STEADY.step(12), STEADY.step(22)) == pytest.approx((1.0, 2.0, 3.0))
    assert (STEADY.step(1), STEADY.forward(1), STEADY.forward(100)) == pytest.approx((0.9, 0.5, 0.5))


def test_estimates_follow_the_pace() -> None:
    """The estimates count steps, calls and test images at the pace of the network."""
    recipe = Recipe(batch_size=12, steps=10, validation_images=0)
    assert recipe.work_s({}, STEADY, Counts(24)) == pytest.approx(10 * 2.0 + 5 * 2.0 + 5 * 0.5 + 24 * 0.5 / 12)
    assert recipe.step_settings()["optimizer"] == "adamw"
    profile = Profile.resolve({}, {"batch_sizes": (12,), "samples": 4, "train": {"optimizer": "sgd"}}, {})
    assert profile.work_s({}, STEADY, Counts(24)) == pytest.approx(3.0 + (2 * 4 + 17 + 2) * 2.0)
    assert profile.step_settings() == recipe.step_settings() | {"optimizer": "sgd"}
    assert Export().work_s({}, STEADY, Counts(24)) == pytest.approx(10.0 + (24 + 2 * 64 + 20 * 4) * 0.005)
    infer = Infer(batch_sizes=(4,), samples=20, seconds=1.0, pairs=3)
    alone_s = 5.0 + 20 * 0.5 + (24 + 48) * 0.005 + 20 * 0.5 + 1.0
    assert infer.work_s({"engine": "torch"}, STEADY, Counts(24)) == pytest.approx(alone_s)
    in_turns_s = 3 * (2.0 + 1.5 + 2 * 0.5)
    assert infer.work_s({"engine": "onnxruntime"}, STEADY, Counts(24)) == pytest.approx(alone_s + in_turns_s)
    assert infer.step_settings() == {}


def test_the_fewest_images_are_evaluated_after_few_steps() -> None:
    """The evaluations of a training take a quarter of its time, but at least those of the fewest images."""
    short = Recipe(batch_size=12, steps=10, validation_images=5000)
    assert short.work_s({}, STEADY, Counts(9000)) == pytest.approx(15 * 2.0 + 5 * 0.5 + 4000 * 0.5 / 12)
    long = short.model_copy(update={"steps": 1000})
    assert long.work_s({}, STEADY, Counts(9000)) == pytest.approx(1005 * 2.0 + 5 * 0.5 + 500.0)


def planned(probes: bool) -> list[float]:
    """Return the estimates of two trainings of one network."""
    data = {"name": "synthetic", "shape": list(SHAPE), "train": 600, "test": 24}
    document = {"datasets": [data], "models": ["lenet"], "stages": ["train"]}
    train = {"steps": 10, "batch_size": 12, "validation_images": 0}
    suite = parse(document | {"repeats": 2, "train": train}, where="x.toml", name="x")
    request = SuiteRequest(suite=suite, where="x.toml", probes=probes)
    return [ready.estimate_s for ready in Preparation(request, lambda _: None).answer().tasks]


def test_a_plan_measures_and_a_run_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pace is measured only on request; every estimate follows a known one."""
    kept: list[Pace] = []

    def measured(probe: PaceProbe) -> Pace:
        assert not kept, "it was measured twice"
        kept.append(STEADY)
        return STEADY

    monkeypatch.setattr(PaceProbe, "measured", measured)
    monkeypatch.setattr(PaceProbe, "known", lambda _: kept[0] if kept else None)
    of_arithmetic = planned(probes=False)
    assert not kept
    of_pace = [START_S + 10 * 2.0 + 5 * 2.0 + 5 * 0.5 + 24 * 0.5 / 12] * 2
    assert planned(probes=True) == pytest.approx(of_pace)
    assert planned(probes=False) == pytest.approx(of_pace) != of_arithmetic


def test_probes_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan whose probes have taken their time estimates the other networks without one."""
    monkeypatch.setattr("cnnperf.workers.prepare.PROBES_S", -1.0)
    monkeypatch.setattr(PaceProbe, "measured", lambda _: pytest.fail("it was measured"))
    assert planned(probes=True) == planned(probes=False)
