"""One engine of a pair, called directly."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from types import SimpleNamespace

import pytest

from cnnperf.duet.schedule import QUADS
from cnnperf.duet.turns import Baton
from cnnperf.ipc.messages import Bind, Bound, Load, Loaded, Settle, Settled, Taken, Turns
from cnnperf.record import Record
from cnnperf.sides import SIDES, Both, Side
from cnnperf.task import Choice
from cnnperf.workers import paired_engine
from cnnperf.workers.paired_engine import LoadedEngine


class Sleeper:
    """An engine whose call takes two milliseconds per image."""

    takes_pixels = False

    def __init__(self) -> None:
        self.calls: list[int] = []

    def bind(self, images: list[int]) -> Callable[[], object]:
        """Return a call that sleeps."""
        return lambda: (self.calls.append(len(images)), sleep(0.002 * len(images)))

    def synchronize(self) -> None:
        """Return at once."""


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Sleeper]:
    """Return the list of simulated engines that are loaded from now on."""
    loaded: list[Sleeper] = []

    def load(*_: object) -> Sleeper:
        loaded.append(Sleeper())
        return loaded[-1]

    monkeypatch.setattr("cnnperf.inference.source.loaded", load)
    monkeypatch.setattr("cnnperf.inference.source.source_of", lambda bench, reuses: None)
    inputs = SimpleNamespace(batch=lambda size: [0] * size)
    monkeypatch.setattr("cnnperf.inference.inputs.Inputs.of", lambda bench: inputs)
    monkeypatch.setattr(paired_engine, "open_arrays", lambda *_: None)
    return loaded


def test_it_times_the_batch_that_was_bound_last(
    trained: Callable[..., Record], engines: list[Sleeper], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two engines take turns with the batch bound last, each woken before its samples."""
    woken: list[int] = []
    monkeypatch.setattr(LoadedEngine, "_get_ready", lambda self: woken.append(id(self)))
    load = Load(task=trained().task, run=tmp_path, folder=tmp_path, needs=(), engine=Choice(name="torch"))
    order = QUADS[0] * 3

    def side(me: Side, end: socket.socket) -> tuple[object, ...]:
        baton = Baton(end.detach())
        verbs = LoadedEngine(baton).verbs
        try:
            turns = Turns(me=me, order=order, calls=2, warmup=1, warmup_s=0.0)
            asked = load, Bind(batch_size=2), Bind(batch_size=3), Settle(), turns
            return tuple(verbs[type(request)](request) for request in asked)
        finally:
            baton.close()

    with ThreadPoolExecutor(2) as pool:
        answers = Both(*pool.map(side, SIDES, socket.socketpair()))
    for loaded, first, second, settled, taken in answers:
        assert (loaded, first, second) == (Loaded(), Bound(), Bound())
        assert isinstance(settled, Settled)
        assert settled.calls in (1, 2), "two calls of 6 ms last 10 ms; on a busy machine one may"
        assert settled.call_s >= 0.006
        assert isinstance(taken, Taken)
        assert len(taken.samples) == 6
        assert all(sample.wall_s >= 0.012 for sample in taken.samples)
    assert len(woken) >= 7, "A BB AA BB AA BB A, and before it the warm-up"
    for engine in engines:
        assert set(engine.calls) == {2, 3}
        assert engine.calls.count(2) == 1, "each batch is run once as it is bound"
