"""The claim about latency, with an engine and a session on a simulated clock, and calls that return early."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from stand_ins import CALL_S, Lagging, verdicts

from cnnperf.claims import CheckedFigure, latency
from cnnperf.claims.latency import Loops, compared
from cnnperf.timing import sampling

IMAGES = np.zeros((1, 1, 2, 2), np.float32)


class Session:
    """A session on a device that lags behind its caller; only a bound run returns before its work is done."""

    def __init__(self, device: Lagging) -> None:
        self._device = device

    def get_inputs(self) -> list[SimpleNamespace]:
        """Return the name of the images."""
        return [SimpleNamespace(name="images")]

    def get_outputs(self) -> list[SimpleNamespace]:
        """Return the name of the logits."""
        return [SimpleNamespace(name="logits")]

    def io_binding(self) -> SimpleNamespace:
        """Return a binding that accepts any values."""
        return SimpleNamespace(bind_ortvalue_input=lambda *_: None, bind_output=lambda *_: None)

    def run_with_iobinding(self, binding: object) -> None:
        """Queue the work and return at once."""
        self._device.call()

    def run(self, names: object, feed: object) -> None:
        """Queue the work and wait for it."""
        self._device.call()
        self._device.wait()


class Engine:
    """An engine over a session; its calls may return early, or take extra time."""

    def __init__(self, device: Lagging, *, early: bool = False, added_s: float = 0.0) -> None:
        self._device = device
        self._session = Session(device)
        self._early = early
        self._added_s = added_s

    def bind(self, images: object) -> Callable[[], None]:
        """Return a function that makes one call."""

        def call() -> None:
            self._device.host_s += self._added_s
            self._device.call()
            if not self._early:
                self._device.wait()

        return call

    def synchronize(self) -> None:
        """Return at once."""


@pytest.fixture(autouse=True)
def _clock(lagging: Lagging, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "perf_counter", lambda: lagging.host_s)
    monkeypatch.setattr(latency, "CALLS", (8, 8))
    monkeypatch.setattr(latency, "ROUNDS", (8, 8))
    monkeypatch.setattr(latency, "FORCED_ROUNDS", 8)


def readings(engine: Engine, device: object) -> Iterator[CheckedFigure]:
    """Compare an engine with its session."""
    return compared(Loops(engine, IMAGES, device), "1 image")  # type: ignore[arg-type]


def test_it_holds(lagging: Lagging) -> None:
    """The loop of runs and the loop of bound calls both agree with the latency of `infer`."""
    assert verdicts(readings(Engine(lagging), lagging)) == ["held", "held"]


def test_it_fails_for_calls_that_return_early(lagging: Lagging) -> None:
    """Engine calls that return early fail both readings, since the session's own run waits."""
    assert verdicts(readings(Engine(lagging, early=True), lagging)) == ["failed", "failed"]


def test_it_fails_for_bound_runs_that_return_early(lagging: Lagging, monkeypatch: pytest.MonkeyPatch) -> None:
    """If bound runs return early too, the loop that does not wait agrees; the loop that reads the logits fails."""
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(runtime, "OrtValue", SimpleNamespace(ortvalue_from_numpy=lambda *_: None))
    gpu = SimpleNamespace(name="cuda", index=0)
    assert verdicts(readings(Engine(lagging, early=True), gpu)) == ["held", "failed"]


def test_it_fails_for_an_engine_that_adds_time_to_each_call(lagging: Lagging) -> None:
    """An engine that adds twice the session's time to each call fails both readings."""
    found = list(readings(Engine(lagging, added_s=2 * CALL_S), lagging))
    assert verdicts(found) == ["failed", "failed"]
    assert found[0].figure == pytest.approx(3 * found[0].reading, rel=0.05)


def test_it_fails_for_samples_that_are_too_long(lagging: Lagging, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples that are 5 % too long fail the claim."""
    monkeypatch.setattr(sampling, "perf_counter_ns", lambda: round(1.05e9 * lagging.host_s))
    assert verdicts(readings(Engine(lagging), lagging))[0] == "failed"
