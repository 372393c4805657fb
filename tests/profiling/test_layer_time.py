"""The time of a layer: planted waits are found in their own layer and in no other."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping

import planted_layers
import pytest
import torch
from passes import listen, times
from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from cnnperf.devices.cpu import Cpu
from cnnperf.profiling.trace import Marker

WAITS = (("forward", planted_layers.FORWARD_S), ("backward", planted_layers.BACKWARD_S))


@pytest.fixture
def _planted_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only the planted waits move the device's clock, so that times are exact on any machine."""
    now = 0.0

    def wait(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(planted_layers, "wait", wait)
    monkeypatch.setattr(Cpu, "mark", lambda device: now)


@pytest.fixture
def _own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the device's clock show the thread's CPU time, since other processes may take the core."""
    monkeypatch.setattr(Cpu, "mark", lambda device: time.thread_time())


def small() -> nn.Module:
    """Return a layer that takes almost no time."""
    return nn.Linear(8, 8)


def only(waiting: str, seconds: float, found: Mapping[str, float]) -> object:
    """Return the expected times: `seconds` in one layer, 0 in each other."""
    return pytest.approx(dict.fromkeys(found, 0.0) | {waiting: seconds}, abs=1e-9)


NETWORKS = {
    "first": (nn.Sequential(planted_layers.Waiting(), small(), nn.ReLU()), "0", 1),
    "in a branch": (
        nn.Sequential(small(), planted_layers.Branches(nn.Sequential(planted_layers.Waiting(), small()), small())),
        "1.slow.0",
        1,
    ),
    "shared": (nn.Sequential(small(), planted_layers.Twice(planted_layers.Waiting()), small()), "1.shared", 2),
    "before an in-place ReLU": (nn.Sequential(small(), planted_layers.Waiting(), nn.ReLU(inplace=True)), "1", 1),
}


@pytest.mark.usefixtures("_planted_time")
@pytest.mark.parametrize("place", NETWORKS)
def test_a_wait_is_found_in_its_layer_and_in_no_other(place: str) -> None:
    """The layer has 5 ms forward and 8 ms backward per call, whatever layers are beside it."""
    model, waiting, calls = NETWORKS[place]
    found = times(model, torch.randn(4, 8))
    for direction, seconds in WAITS:
        assert found[direction] == only(waiting, calls * seconds, found[direction])


@pytest.mark.usefixtures("_planted_time")
@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_computed_anew_belongs_to_the_layers_backward(reentrant: bool) -> None:
    """A checkpointed wait has 5 ms in forward, and 5 ms more in its backward; its neighbours have none of it."""
    model = nn.Sequential(
        small(), planted_layers.Checkpointed(small(), planted_layers.Waiting(), small(), reentrant=reentrant)
    )
    found = times(model, torch.randn(4, 8))
    for direction, seconds in (
        ("forward", planted_layers.FORWARD_S),
        ("backward", planted_layers.FORWARD_S + planted_layers.BACKWARD_S),
    ):
        assert found[direction] == only("1.inside.1", seconds, found[direction])


@pytest.mark.usefixtures("_own_time")
def test_in_a_network_of_modules_next_to_nothing_is_unattributed() -> None:
    """The unattributed time of forward is not negative, and at most a tenth of the total."""
    channels = [nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()) for _ in range(4)]
    found = times(nn.Sequential(*channels), torch.randn(16, 16, 32, 32), samples=10)["forward"]
    assert 0 <= found["(unattributed)"] <= 0.1 * sum(found.values())


class NormAndActivation(nn.BatchNorm2d):
    """A batch norm that contains its activation, as in timm."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise images, then call the activation."""
        return self.act(super().forward(images))


@pytest.mark.usefixtures("_own_time")
def test_a_module_that_computes_and_contains_layers_has_its_own_time() -> None:
    """Batch norms with an activation inside have rows, and next to nothing is unattributed."""
    channels = [nn.Sequential(nn.Conv2d(16, 16, 1), NormAndActivation(16)) for _ in range(4)]
    found = times(nn.Sequential(*channels), torch.randn(16, 16, 32, 32), samples=10)
    for direction in ("forward", "backward"):
        assert {"0.0", "0.1", "0.1.act"} <= set(found[direction])
        assert found[direction]["0.1"] > 0
    assert 0 <= found["forward"]["(unattributed)"] <= 0.1 * sum(found["forward"].values())


@pytest.mark.usefixtures("_planted_time")
def test_a_wait_inside_is_not_that_of_the_module_around() -> None:
    """The wait of a branch is its own, and not that of the module that adds the branches."""
    found = times(planted_layers.Branches(planted_layers.Waiting(), small()), torch.randn(4, 8))
    for direction, seconds in WAITS:
        assert found[direction] == only("slow", seconds, found[direction])
        assert "(network)" in found[direction]


def test_shares_agree_with_the_self_times_of_torchs_profiler() -> None:
    """The shares of the five longest layers, forward and backward together, agree to 5 points."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.Sigmoid(),
        nn.MaxPool2d(2),
        nn.Conv2d(24, 16, 3, padding=1),
        nn.Flatten(),
        nn.Linear(16 * 16 * 16, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    images = torch.randn(8, 3, 32, 32)
    ours: dict[str, float] = defaultdict(lambda: math.inf)
    theirs: dict[str, float] = defaultdict(lambda: math.inf)
    for _ in range(5):  # By turns, and the least of each layer, so that a disturbance of one turn counts for neither.
        of_passes, of_torch = times(model, images, samples=6), self_times(model, images, samples=6)
        for layer in map(str, range(11)):
            ours[layer] = min(ours[layer], of_passes["forward"][layer] + of_passes["backward"].get(layer, 0))
            theirs[layer] = min(theirs[layer], of_torch[layer])
    for layer in sorted(ours, key=ours.__getitem__, reverse=True)[:5]:
        assert ours[layer] / sum(ours.values()) == pytest.approx(theirs[layer] / sum(theirs.values()), abs=0.05), layer


def self_times(model: nn.Module, images: torch.Tensor, samples: int) -> dict[str, float]:
    """Return the self time of each layer under the profiler, forward and backward, the least of some passes."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        for _ in range(samples):
            listen(model, images, Marker())
    of_ranges: dict[str, list[float]] = defaultdict(list)
    for event in profiler.events():
        if event.name.removesuffix(" backward").isdigit():
            of_ranges[event.name].append(sum(map(inner_self_time, event.cpu_children)))
    least: dict[str, float] = defaultdict(float)
    for name, spent in of_ranges.items():
        # A layer's backward has as many ranges a pass as it has nodes.
        nodes = len(spent) // samples
        least[name.removesuffix(" backward")] += min(map(sum, zip(*[iter(spent)] * nodes, strict=True)))
    return least


def inner_self_time(event: FunctionEvent) -> float:
    """Return the self time of an operator and all that it calls, in microseconds."""
    return event.self_cpu_time_total + sum(map(inner_self_time, event.cpu_children))
