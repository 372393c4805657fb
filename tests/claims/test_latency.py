"""The claim about latency, with an engine whose clock is made up and one that returns early."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from stand_ins import Lagging, verdicts

from cnnperf.claims import latency
from cnnperf.claims.latency import Loops, compared
from cnnperf.timing import sampling

IMAGES = np.zeros((1, 1, 2, 2), np.float32)


class Engine:
    """An engine on a device that lags behind its caller; each call waits for it, unless it returns early."""

    def __init__(self, device: Lagging, *, early: bool = False) -> None:
        self._device = device
        self._early = early

    def bind(self, images: object) -> Callable[[], None]:
        """Return a call."""

        def call() -> None:
            self._device.call()
            if not self._early:
                self._device.wait()

        return call

    def run(self, images: object) -> None:
        """Compute logits and read them."""
        self._device.call()
        self._device.wait()

    def synchronize(self) -> None:
        """Return at once."""


@pytest.fixture(autouse=True)
def _clock(lagging: Lagging, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "perf_counter", lambda: lagging.host_s)
    monkeypatch.setattr(latency, "CALLS", (8, 8))
    monkeypatch.setattr(latency, "ROUNDS", (8, 8))
    monkeypatch.setattr(latency, "FORCED_ROUNDS", 8)


def test_it_holds(lagging: Lagging) -> None:
    """Both loops see what `infer` sees."""
    assert verdicts(compared(Loops(Engine(lagging), IMAGES), "1 image")) == ["held", "held"]  # type: ignore[arg-type]


def test_it_fails_for_calls_that_return_early(lagging: Lagging) -> None:
    """A loop of calls that wait for nothing sees nothing of it; one whose logits are read does."""
    assert verdicts(compared(Loops(Engine(lagging, early=True), IMAGES), "1 image"))[1] == "failed"  # type: ignore[arg-type]


def test_it_fails_for_samples_that_are_too_long(lagging: Lagging, monkeypatch: pytest.MonkeyPatch) -> None:
    """By 5 %."""
    monkeypatch.setattr(sampling, "perf_counter_ns", lambda: round(1.05e9 * lagging.host_s))
    assert verdicts(compared(Loops(Engine(lagging), IMAGES), "1 image"))[0] == "failed"  # type: ignore[arg-type]
