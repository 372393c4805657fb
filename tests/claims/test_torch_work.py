"""The number of calls chosen for a loop of a given length."""

from __future__ import annotations

import pytest
from stand_ins import CALL_S, Lagging

from cnnperf.claims._torch_work import calls_for


@pytest.mark.parametrize("seconds", [0.03, 1.2])
def test_the_first_call_does_not_count(lagging: Lagging, seconds: float) -> None:
    """The first call, which loads libraries for a second, does not influence the number of calls."""
    loads = [1.0]

    def call() -> None:
        lagging.call()
        lagging.done_s += loads.pop() if loads else 0.0

    assert calls_for(call, lagging.wait, seconds) == pytest.approx(seconds / CALL_S, rel=0.02)
