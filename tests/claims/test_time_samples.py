"""The claim about samples, on a device that lags behind its caller."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from stand_ins import Lagging, verdicts

from cnnperf.claims import Context, _torch_work
from cnnperf.claims.time_samples import check


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_torch_work, "calls_for", lambda call, wait, seconds: 20)


def test_it_holds(lagging: Lagging, context: Callable[..., Context]) -> None:
    """A sample takes as long as a loop that waits at its end."""
    assert verdicts(check(context(lagging))) == ["held"]


def test_it_fails_without_a_wait(lagging: Lagging, context: Callable[..., Context]) -> None:
    """If the device does not wait, a sample ends when its calls are queued, and the claim fails."""
    lagging.waits = False
    assert verdicts(check(context(lagging))) == ["failed"]


@pytest.mark.cuda
def test_it_holds_on_cuda(context: Callable[..., Context]) -> None:
    """The claim does not fail on a CUDA device; an undecided reading is noise."""
    from cnnperf.devices.cuda import acquire

    assert "failed" not in verdicts(check(context(acquire(), device="cuda")))
