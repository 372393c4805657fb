"""The profile stage: its measurements and files, and the unchanged network afterwards."""

from __future__ import annotations

import gc
import gzip
import itertools
import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_networks
import torch
from processes import completed
from pydantic import ValidationError
from torch import nn

from cnnperf import models, registry
from cnnperf.bench import Bench
from cnnperf.datasets import Roots
from cnnperf.devices.cpu import acquire
from cnnperf.errors import StageError, UsageError
from cnnperf.ipc.process import Launch
from cnnperf.profiling import passes, probes
from cnnperf.profiling.settings import Profile
from cnnperf.profiling.step import TrainingStep, restored
from cnnperf.profiling.trace import Marker
from cnnperf.record import Artifact, Measurement, Record
from cnnperf.roofline import MEMORY_PROBE
from cnnperf.stages.profile import measure
from cnnperf.task import Choice
from cnnperf.timing import sampling
from cnnperf.training.optimise import optimizers
from cnnperf.training.recipe import Recipe

MakeBench = Callable[..., Bench]
pytestmark = pytest.mark.usefixtures("quick_probes")
TRAINING = {"validation_images": 100, "batch_size": 32, "optimizer": "nesterov"}


def settings(**section: Any) -> Profile:
    """Return settings with few samples."""
    return Profile.resolve(TRAINING, {"samples": 2, **section}, {})


def of(measured: Iterable[Measurement], quantity: str) -> dict[Any, Measurement]:
    """Return the measurements of one quantity by layer."""
    return {m.tags.get("layer"): m for m in measured if m.metric == f"profile.{quantity}"}


def test_a_training_step_is_laid_open(bench: MakeBench) -> None:
    """A training step has times, arithmetic and memory for every layer, and rows for the parts without a layer."""
    made = bench()
    found = list(measure(made, settings()))
    layers = [str(i) for i in range(8)]
    assert list(of(found, "calls")) == layers
    calls = of(found, "calls")["0"]
    assert calls.tags == {"layer": "0", "batch_size": 32, "mode": "train"}
    assert calls.remarks == {
        "order": 0,
        "type": "Conv2d",
        "inputs": "32×1×28×28",
        "outputs": "32×8×14×14",
        "dtype": "float32",
    }
    for direction in ("forward", "backward"):
        times = of(found, f"{direction}_seconds")
        assert {"(unattributed)", "(loss)", "0", "7"} <= set(times)
        assert all(len(m.values) == 2 for m in times.values())
    assert set(of(found, "seconds")) == {"(data)", "(optimizer)"}
    assert of(found, "forward_macs")["0"].values == (32 * 8 * 14 * 14 * 9,)
    assert of(found, "parameter_bytes")["0"].values == ((8 * 9 + 8) * 4,)
    assert of(found, "gradient_bytes")["0"].values == of(found, "optimizer_state_bytes")["0"].values
    assert of(found, "saved_bytes")["2"].values == (32 * 8 * 14 * 14 * 4,)
    assert of(found, "peak_above_start_bytes")[None].values[0] > 32 * 8 * 14 * 14 * 4
    assert of(found, "parameters")[None].remarks["weights"] == "fresh"
    assert len(of(found, "step_seconds")[None].values) == len(of(found, "instrumented_step_seconds")[None].values) == 2


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_steps_tell_what_they_stand_on(bench: MakeBench, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Steps have CPU time, switches and the machine's load, and a remark on disturbances."""
    delays = itertools.count(step=0.002)
    monkeypatch.setattr(sampling, "run_delay_s", lambda: next(delays))
    monkeypatch.setattr(sampling, "STEADY", math.inf)
    found = list(measure(bench(), settings(mode=mode)))
    for quantity in ("step_seconds_cpu", "step_seconds_switches"):
        assert len(of(found, quantity)[None].values) == 2
    assert sum(of(found, "step_seconds_cpu")[None].values) > 0
    assert of(found, "step_seconds_load")[None].tags == {"batch_size": 32, "mode": mode}
    disturbed = str(of(found, "step_seconds")[None].remarks["disturbed"])
    assert disturbed.startswith("the main thread lost the CPU for > 1 ms in 100 % of samples")


def test_steps_count_once_they_are_steady(bench: MakeBench) -> None:
    """The warm-up's times are kept, with a remark on whether it became steady."""
    [warmup] = of(list(measure(bench(), settings())), "step_seconds_warmup").values()
    assert 2 * sampling.SPAN <= len(warmup.values) <= passes.WARMUP_STEPS
    assert warmup.remarks["steady"] is sampling.is_steady(warmup.values)


def test_steps_that_never_became_steady_say_so(bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm-up that ends at its limit of steps gives the step times a remark."""
    monkeypatch.setattr(passes, "WARMUP_STEPS", 2)
    found = list(measure(bench(), settings()))
    [warmup], [steps] = (of(found, quantity).values() for quantity in ("step_seconds_warmup", "step_seconds"))
    assert (len(warmup.values), warmup.remarks["steady"]) == (2, False)
    assert re.match(r"not steady after \d+ s of warm-up", str(steps.remarks["disturbed"]))


def test_inference_has_no_backward_and_saves_nothing(bench: MakeBench) -> None:
    """A profile of inference has forward times alone."""
    found = list(measure(bench(), settings(mode="infer")))
    assert set(of(found, "forward_seconds")) == {"(unattributed)", *map(str, range(8))}
    for quantity in ("backward_seconds", "backward_macs", "saved_bytes", "gradient_bytes", "optimizer_state_bytes"):
        assert not of(found, quantity)
    assert all(m.tags["mode"] == "infer" for m in found if "batch_size" in m.tags)


@pytest.fixture
def _brief_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the warm-up for tests that read no times."""
    monkeypatch.setattr(passes, "WARMUP_STEPS", 2)


PEAKS = """
import sys
from pathlib import Path

import torch

from cnnperf import registry
from cnnperf.bench import Bench
from cnnperf.datasets import Roots
from cnnperf.devices.cpu import acquire
from cnnperf.profiling import passes, probes
from cnnperf.profiling.settings import Profile
from cnnperf.roofline import MEMORY_PROBE
from cnnperf.stages.profile import measure
from cnnperf.task import Cell, Choice, Task

torch.set_num_threads(1)
passes.WARMUP_STEPS = 2
probes.SQUARES, probes.CONVOLUTIONS, probes.COPIES, probes.PROBE_S = (64,), ((3, 2, 4, 8),), {MEMORY_PROBE: 2**16}, 0.0
folder = Path(sys.argv[1])
dataset = registry.find("datasets", "synthetic")(Roots(cache=folder), None, shape=(3, 32, 32), train=500, test=200)
network = Choice(name="nin")
cell = Cell(dataset=Choice(name="synthetic"), model=network, device=Choice(name="cpu"))
task = Task(cell=cell, stage="profile", seed=0, threads=1, timeout_s=60)
made = Bench(task, acquire(), dataset, folder, lambda **numbers: None)
asked = Profile.resolve({"optimizer": "nesterov"}, {"samples": 2, "batch_sizes": [8, 4]}, {})
measured = [m for m in measure(made, asked) if m.metric.endswith("peak_above_start_bytes")]
for count in (8, 4):
    peaks = {m.metric: m.values[0] for m in measured if m.tags["batch_size"] == count}
    print(peaks["profile.peak_above_start_bytes"], peaks["profile.process_peak_above_start_bytes"])
"""


@pytest.mark.skipif(not acquire().reset_peak(), reason="the system does not let VmHWM begin anew")
def test_the_peak_of_the_allocations_is_what_the_process_rises_by(tmp_path: Path) -> None:
    """The peak of the allocations is within 5 % of the rise of the process, at each batch size."""
    env = Launch().variables()
    printed = completed(sys.executable, "-c", PEAKS, tmp_path, env=env, check=True).stdout
    for batch_size, line in zip((8, 4), printed.splitlines()[-2:], strict=True):
        allocated, risen = map(float, line.split())
        assert allocated > 3 * batch_size * 192 * 32 * 32 * 4
        assert risen == pytest.approx(allocated, rel=0.05)


@pytest.mark.usefixtures("_brief_warm_up")
def test_a_peak_in_the_update_stands_at_the_optimizer(bench: MakeBench) -> None:
    """A peak in Muon's update, which copies large weights, is attributed to `(optimizer)`."""
    found = list(measure(bench(model="heavy"), settings(batch_sizes=[2], train={"optimizer": "muon"})))
    [peak] = of(found, "peak_above_start_bytes").values()
    assert peak.remarks["at"] == "(optimizer)"
    assert peak.values[0] > 4 * 28 * 28 * 256


def test_a_peak_in_a_range_of_the_networks_own_stands_at_the_layer(bench: MakeBench) -> None:
    """A peak within a profiler range of the network itself is attributed to a layer."""
    found = list(measure(bench(model="marked"), settings()))
    [peak] = of(found, "peak_above_start_bytes").values()
    assert peak.remarks["at"] in {
        f"{layer}{direction}" for layer in of(found, "calls") for direction in ("", " backward")
    }


def test_gradients_are_those_that_there_were(bench: MakeBench) -> None:
    """An uncalled layer has bytes but neither gradient nor optimizer state; a frozen weight has no gradient."""
    found = list(measure(bench(model="part_frozen"), settings()))
    assert set(of(found, "parameter_bytes")) == {"first", "last", "idle"}
    assert {layer: m.values for layer, m in of(found, "gradient_bytes").items()} == {
        "first": (16 * 4,),
        "last": ((16 * 10 + 10) * 4,),
    }
    assert set(of(found, "optimizer_state_bytes")) == {"first", "last"}


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_network_adds_up(bench: MakeBench, reentrant: bool) -> None:
    """A checkpointed layer counts as one call, and the time outside of layers is not negative."""
    model = bench(model="checkpointed", reentrant=reentrant)
    found = list(measure(model, settings()))
    assert {m.values for m in of(found, "calls").values()} == {(1,)}
    for direction in ("forward", "backward"):
        assert min(of(found, f"{direction}_seconds")["(unattributed)"].values) >= 0
    assert of(found, "forward_macs")["middle.0"].values == (32 * 64 * 64,)
    assert of(found, "backward_macs")["middle.0"].values == (3 * 32 * 64 * 64,)


@pytest.mark.parametrize("mode", ["train", "infer"])
@pytest.mark.parametrize("calls", [0, 2, 4, 7, 8, 11])
def test_a_network_is_left_as_it_was_where_the_profile_fails(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch, calls: int, mode: str
) -> None:
    """A failure in any pass restores hooks, modes, gradients, threads and the heap."""
    monkeypatch.setattr(passes, "WARMUP_STEPS", 2)
    tiny_networks.made.clear()
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="as asked"):
        list(measure(bench(model="failing", after=calls), settings(mode=mode, trace_steps=4)))
    [model] = tiny_networks.made
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert module.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.get_num_threads() == threads
    assert gc.get_freeze_count() == 0


def test_every_batch_size_has_its_profile(bench: MakeBench) -> None:
    """Each batch size has step times and a trace of its own."""
    made = bench()
    found = list(measure(made, settings(batch_sizes=[4, 8])))
    assert [m.tags["batch_size"] for m in found if m.metric == "profile.step_seconds"] == [4, 8]
    assert list(made.artifacts) == ["trace_4", "trace_8"]


def test_the_trace_names_the_layers(bench: MakeBench) -> None:
    """The trace is gzipped JSON with steps and a range for each layer's forward and backward."""
    made = bench()
    list(measure(made, settings(trace_steps=2)))
    with gzip.open(made.run / made.artifacts["trace_32"], "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    assert sum(name.startswith("ProfilerStep#") for name in names) == 2
    assert {"0", "0 backward", "(loss)", "(loss) backward"} <= set(names)


def test_weights_come_from_the_training_where_it_ran(bench: MakeBench, tmp_path: Path) -> None:
    """The profile loads the weights of the training, and fails if they do not fit."""
    made = bench()
    from cnnperf.training.setup import Data, Network

    recipe = settings().recipe(32)
    model = Network.build(made, recipe, Data.load(made, recipe)).model
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    left = Record.model_construct(artifacts={"weights": Artifact(path=str(tmp_path / "weights.pt"))})
    read = replace(made, needs={"train": left})
    assert of(measure(read, settings()), "parameters")[None].remarks["weights"] == "trained"
    torch.save({}, tmp_path / "weights.pt")
    with pytest.raises(StageError, match="does not fit"):
        list(measure(read, settings()))


@pytest.mark.parametrize("fails", [False, True])
def test_a_network_is_left_as_it_was(fails: bool) -> None:
    """`restored` restores weights, statistics, gradients, modes, threads and random numbers, also after a failure."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[1].eval()
    gradient = model[0].weight.grad = torch.ones(4, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    threads = torch.get_num_threads()
    random_numbers = torch.get_rng_state()

    def disturb() -> None:
        with restored(model, "cpu"):
            model.train()
            assert model[0].weight.grad is None
            model(torch.randn(8, 4)).sum().backward()
            torch.set_num_threads(threads + 1)
            torch.manual_seed(1)
            with torch.no_grad():
                model[0].weight.add_(1)
            if fails:
                raise RuntimeError("in between")

    if fails:
        with pytest.raises(RuntimeError, match="in between"):
            disturb()
    else:
        disturb()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[0].weight.grad is gradient
    assert [m.training for m in model.modules()] == [True, True, False]
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random_numbers)


def test_a_batch_that_the_dataset_does_not_allow_is_refused(bench: MakeBench) -> None:
    """The error for a batch larger than the dataset gives the batch size."""
    with pytest.raises(UsageError, match="batch_sizes 1000: batch_size 1,000 is more than the 500"):
        list(measure(bench(), settings(batch_sizes=[1000])))


def test_settings_follow_the_training() -> None:
    """A profile has the training's settings without its budget, unless its section overrides them."""
    resolved = Profile.resolve({"optimizer": "muon", "batch_size": 256, "seconds": 60}, {}, {})
    assert resolved.batch_sizes == (256,)
    assert resolved.recipe(8).optimizer == "muon"
    assert resolved.recipe(8).batch_size == 8
    assert "seconds" not in resolved.train
    of_epochs = Profile.resolve({"epochs": 3, "test_curve": True}, {}, {})
    assert of_epochs.train.keys().isdisjoint({"epochs", "test_curve"})
    assert Profile.resolve({"processes": 2}, {}, {}) == Profile.resolve({}, {}, {})
    assert Profile.resolve({"batch_size": 256}, {"batch_sizes": [1, 2]}, {"samples": 3}).batch_sizes == (1, 2)
    with pytest.raises(ValidationError):
        Profile.resolve({}, {"train": {"optimiser": "sgd"}}, {})


@pytest.mark.parametrize("rates", [{}, {"bias_lr": 0.3}, {"optimizer": "muon", "bias_lr": 0.3}, {"lr": 0.0}])
def test_the_optimizers_are_grouped_as_those_of_the_training(rates: dict[str, Any]) -> None:
    """The profiled update has the parameter groups of the training's, each with a learning rate of 0."""
    trained = Recipe.resolve({}, {"steps": 1}, rates)
    step = TrainingStep(nn.Linear(4, 3), iter(()), Profile.resolve(rates, {}, {}).recipe(2), acquire())
    of_training = optimizers(list(nn.Linear(4, 3).parameters()), trained)
    sizes = [[len(group["params"]) for group in each.param_groups] for each in of_training]
    assert [[len(group["params"]) for group in each.param_groups] for each in step.optimizers] == sizes
    assert {group["lr"] for each in step.optimizers for group in each.param_groups} == {0.0}


CHANGED: dict[str, dict[str, Any]] = {
    "epochs": {"epochs": 2},
    "steps": {"steps": 20},
    "samples": {"samples": 600},
    "seconds": {"seconds": 2.0},
    "target_accuracy": {"target_accuracy": 0.5},
    "stop_at_target": {"target_accuracy": 0.5, "stop_at_target": False},
    "validation_images": {"validation_images": 100},
    "test_images": {"test_images": 50},
    "test_flip": {"test_flip": True},
    "batch_size": {"batch_size": 64},
    "optimizer": {"optimizer": "muon"},
    "lr": {"lr": 0.2},
    "bias_lr": {"bias_lr": 0.2},
    "momentum": {"momentum": 0.8},
    "weight_decay": {"weight_decay": 0.1},
    "muon_lr": {"muon_lr": 0.2},
    "muon_momentum": {"muon_momentum": 0.5},
    "muon_steps": {"muon_steps": 5},
    "muon_renormalise": {"muon_renormalise": False},
    "schedule": {"schedule": "cosine"},
    "warmup": {"warmup": 0.2},
    "label_smoothing": {"label_smoothing": 0.1},
    "flip": {"flip": "random"},
    "crop": {"crop": 2},
    "crop_padding": {"crop_padding": "reflect"},
    "grayscale": {"grayscale": 0.1},
    "cutout": {"cutout": 4},
    "normalize": {"normalize": "half"},
    "normalize_eval": {"normalize_eval": False},
    "train_accuracy": {"train_accuracy": "after_step"},
    "test_curve": {"epochs": 2, "test_curve": True},
    "precision": {"precision": "bf16"},
    "memory_format": {"memory_format": "channels_last"},
    "compile": {"compile": True},
    "processes": {"processes": 2},
    "sync_batch_norm": {"processes": 2, "sync_batch_norm": True},
}
"""Each setting of a training with another value than its default, and what that value requires."""


@pytest.mark.parametrize("name", Recipe.model_fields)
def test_whatever_can_be_trained_can_be_profiled(name: str) -> None:
    """Each setting of a training is valid in a profile."""
    trained = Recipe.resolve({}, CHANGED[name], {})
    assert getattr(trained, name) != getattr(Recipe.resolve({}, {}, {}), name)
    trained.check("cpu", train_count=6000, test_count=100)
    for resolved in (
        Profile.resolve(CHANGED[name], {}, {}),
        Profile.resolve({"epochs": 1}, {"train": CHANGED[name]}, {}),
        Profile.resolve(CHANGED[name], {"train": {"normalize": "unit"}}, {}),
    ):
        resolved.check("cpu", train_count=500, test_count=10)


def test_a_network_may_return_a_tuple(bench: MakeBench) -> None:
    """The profile takes the first tensor of a tuple as the logits, in training and in inference."""
    for mode in ("train", "infer"):
        found = list(measure(bench(model="paired"), settings(mode=mode)))
        assert list(of(found, "calls")) == ["(network)", "inner.0", "inner.1"]
        assert of(found, "forward_macs")["inner.1"].values == (32 * 28 * 28 * 10,)


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_a_network_that_returns_no_tensor_is_refused(bench: MakeBench, mode: str) -> None:
    """A network that returns no tensor is refused, in training and in inference."""
    with pytest.raises(UsageError, match="the network returned NoneType without a tensor; return the logits first"):
        list(measure(bench(model="silent"), settings(mode=mode)))


def test_every_probe_is_named_and_kept() -> None:
    """The probes are products, convolutions in both formats and copies, each with all samples."""
    found = list(probes.probe(acquire(), torch.float32))
    assert [m.tags["probe"] for m in found] == [
        "matmul 64×64",
        "conv 3×3 2×4×8×8 NCHW",
        "conv 3×3 2×4×8×8 NHWC",
        MEMORY_PROBE,
    ]
    assert all(len(m.values) == probes.LEAST and min(m.values) > 0 for m in found)


def test_the_marker_closes_what_it_opens() -> None:
    """The marker leaves no range open."""
    marker = Marker()
    marker.forward_begins("x")
    marker.forward_ends("x")
    marker.backward_begins("x")
    marker.backward_ends("x")
    assert marker._open == []


@pytest.mark.slow
def test_the_optimizer_takes_a_small_share_of_a_step_of_speedrun(bench: MakeBench, tmp_path: Path) -> None:
    """At batch 256, `(optimizer)` takes at most 15 % of a training step of `speedrun`, on any CPU."""
    images = registry.find("datasets", "synthetic")(Roots(cache=tmp_path), None, shape=(3, 32, 32), train=512, test=64)
    model, made = Choice(name="speedrun"), bench(data=images)
    cell = made.task.cell.model_copy(update={"model": model})
    section = {"batch_sizes": [256], "samples": 5, "train": {"validation_images": 0}}
    of_speedrun = Profile.resolve(models.recipe(model, "cifar10", "cpu"), section, {})
    found = list(measure(replace(made, task=made.task.model_copy(update={"cell": cell})), of_speedrun))
    optimizer, step = of(found, "seconds")["(optimizer)"], of(found, "step_seconds")[None]
    assert statistics.median(optimizer.values) <= 0.15 * statistics.median(step.values)
