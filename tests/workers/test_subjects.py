"""The calls that two versions take in turns."""

from __future__ import annotations

from typing import Literal

import pytest

from cnnperf.ipc.messages import Opening
from cnnperf.workers import subjects


@pytest.mark.parametrize("by", ["spin", "sleep"])
def test_a_slowed_call_takes_longer_by_a_share_of_its_duration(
    by: Literal["spin", "sleep"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of 1 s that is slowed by a quarter ends after 1.25 s, asleep or with the clock read again and again."""
    clock, slept, reads = [0.0], [], []

    def read() -> float:
        clock[0] += 0.001
        reads.append(clock[0])
        return clock[0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    def work(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(subjects, "perf_counter", read)
    monkeypatch.setattr(subjects, "sleep", sleep)
    opening = Opening.model_construct(slowdown=0.25, slowdown_by=by)
    subjects.slowed(lambda: work(0.6), lambda: work(0.4), opening)()
    assert clock[0] == pytest.approx(1.25, abs=0.01)
    assert slept == ([pytest.approx(0.25, abs=0.001)] if by == "sleep" else [])
    assert (len(reads) > 100) == (by == "spin")
