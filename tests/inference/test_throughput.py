"""The search for the largest batch: it doubles the size until throughput or memory ends it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cnnperf.bench import Bench
from cnnperf.devices.cpu import Cpu, acquire
from cnnperf.engines import NormalisedImages
from cnnperf.errors import is_out_of_memory
from cnnperf.inference.headroom import Headroom
from cnnperf.inference.inputs import Inputs
from cnnperf.inference.settings import LARGEST, Infer
from cnnperf.inference.throughput import Timing

onnx = pytest.importorskip("onnx")

MIB = 2**20
QUICK = Infer(batch_sizes="auto", samples=11, seconds=0.0, pairs=0)


class Sleeper:
    """An engine whose call takes a given time for each batch size, and whose memory holds a given number of images."""

    def __init__(self, seconds: Callable[[int], float], room: int = LARGEST) -> None:
        self._seconds = seconds
        self._room = room

    def bind(self, images: NormalisedImages) -> Callable[[], object]:
        """Return a call that sleeps. Raises MemoryError for a batch that is too large."""
        if len(images) > self._room:
            np.empty(2**60, np.uint8)
        return lambda: time.sleep(self._seconds(len(images)))

    def synchronize(self) -> None:
        """Return without waiting."""


def search(bench: Callable[..., Bench], engine: Any, settings: Infer = QUICK) -> tuple[Timing, list[Any]]:
    """Time an engine, and return the timing and the measurements."""
    made = bench()
    timing = Timing(made, settings, engine, Inputs.of(made), {"engine": "sleeper"})
    return timing, list(timing.measured())


def bound(found: list[Any]) -> tuple[float, str]:
    """Return the batch size at which a search ended, and the reason."""
    (ended,) = [m for m in found if m.metric == "infer.largest_batch_size"]
    return ended.values[0], ended.remarks["bound"]


def test_the_search_ends_where_throughput_stops_rising(bench: Callable[..., Bench]) -> None:
    """The search ends at batch size 8 if its throughput is no higher than at 4."""
    timing, found = search(bench, Sleeper(lambda size: 0.02 if size <= 4 else 0.02 * size / 2))
    assert list(timing.images_per_s) == [1, 2, 4, 8]
    assert bound(found) == (8, "throughput")


@pytest.fixture
def _any_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no search end for its throughput, which is random on a busy machine."""
    monkeypatch.setattr("cnnperf.inference.throughput.RISE", 0.0)


@pytest.mark.usefixtures("_any_throughput")
def test_wanting_memory_bounds_the_search(bench: Callable[..., Bench]) -> None:
    """The search ends where memory is lacking: smaller batches keep their results, and the last one is the largest."""
    timing, found = search(bench, Sleeper(lambda size: 0.002, room=4))
    assert list(timing.images_per_s) == [1, 2, 4]
    assert bound(found) == (4, "memory")


@pytest.mark.usefixtures("_any_throughput")
def test_a_search_that_was_killed_ends_with_what_it_kept(bench: Callable[..., Bench]) -> None:
    """A task that is started again measures no batch again: it has the results of the batches before the kill."""
    made = bench()
    before, measured = search(lambda: made, Sleeper(lambda size: 0.002, room=4))
    again, recalled = search(lambda: made, Sleeper(lambda size: 0.002, room=0))
    assert again.images_per_s == before.images_per_s
    assert bound(recalled) == bound(measured) == (4, "memory")
    latencies, kept = ([m for m in found if m.metric.startswith("infer.latency")] for found in (measured, recalled))
    assert kept == latencies


class Poor(Cpu):
    """A machine with little available memory."""

    def available_bytes(self) -> int:
        """Return 64 MiB."""
        return 64 * MIB


class Hungry(Sleeper):
    """An engine that allocates 4 MiB per image during a call."""

    def bind(self, images: NormalisedImages) -> Callable[[], object]:
        """Return a call that allocates the memory and frees it."""
        return lambda: np.ones(4 * MIB * len(images), np.uint8)


@pytest.mark.skipif(not acquire().reset_peak(), reason="this system does not permit the peak to be reset")
@pytest.mark.usefixtures("_any_throughput")
def test_a_batch_that_would_find_no_room_is_not_tried(bench: Callable[..., Bench]) -> None:
    """A batch of 16 images, for which the available 64 MiB would not suffice, is not tried."""
    timing, found = search(lambda: replace(bench(), device=Poor()), Hungry(lambda size: 0.0))
    assert list(timing.images_per_s) == [1, 2, 4, 8]
    assert bound(found) == (8, "memory")
    (peak,) = [m for m in found if m.metric == "infer.peak_bytes"]
    assert peak.values[0] >= acquire().peak_bytes()["peak_bytes"]


def test_memory_that_is_kept_counts_as_what_the_next_batch_finds() -> None:
    """If a batch needs no new memory, the batch before it decides whether one of twice the size is tried."""
    device = Told([(100, 200), (300, 300), (300, 300)], available=400)
    headroom = Headroom(device)
    held = []
    for _ in range(3):
        headroom.begin()
        headroom.end()
        held.append(headroom.holds_double())
    assert held == [True, False, True]
    assert headroom.peaks() == {"peak_bytes": 300}


class Told(Cpu):
    """A device with given memory before each batch and at its peak."""

    def __init__(self, batches: list[tuple[int, int]], available: int) -> None:
        self._batches = iter(batches)
        self._available = available
        self._used = self._peak = 0

    def reset_peak(self) -> bool:
        """Go on to the next batch."""
        self._used, self._peak = next(self._batches)
        return True

    def used_bytes(self) -> int:
        """Return the memory in use before the batch."""
        return self._used

    def peak_bytes(self) -> dict[str, int]:
        """Return the peak of the batch."""
        return {"peak_bytes": self._peak}

    def available_bytes(self) -> int:
        """Return the given available memory."""
        return self._available


def test_wanting_memory_is_a_fault_where_that_batch_was_asked_for(bench: Callable[..., Bench]) -> None:
    """A lack of memory is raised if the batch size was requested, or if it is the first of a search."""
    asked = QUICK.model_copy(update={"batch_sizes": (1, 8)})
    for settings, room in ((asked, 4), (QUICK, 0)):
        with pytest.raises(MemoryError):
            search(bench, Sleeper(lambda size: 0.001, room), settings)


@pytest.mark.usefixtures("_any_throughput")
def test_any_other_fault_ends_the_search_as_a_fault(bench: Callable[..., Bench]) -> None:
    """An exception other than a lack of memory is raised and ends the search."""

    def fault(size: int) -> float:
        if size > 2:
            raise ValueError("shape")
        return 0.001

    with pytest.raises(ValueError, match="shape"):
        search(bench, Sleeper(fault))


def test_each_library_s_words_for_a_want_of_memory_are_known() -> None:
    """NumPy's, torch's and ONNX Runtime's errors for a request of an exbibyte count as lack of memory."""
    import onnxruntime
    import torch
    from onnx import TensorProto, helper

    fill = helper.make_node("ConstantOfShape", ["shape"], ["filled"])
    graph = helper.make_graph(
        [fill],
        "huge",
        [helper.make_tensor_value_info("shape", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("filled", TensorProto.FLOAT, [None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for call in (
        lambda: np.empty(2**60, np.uint8),
        lambda: torch.empty(2**60, dtype=torch.uint8),
        lambda: session.run(None, {"shape": np.array([2**58], np.int64)}),
    ):
        with pytest.raises(Exception, match=r".") as caught:  # Each has a class of its own.
            call()
        assert is_out_of_memory(caught.value), caught.value
