"""The training clock."""

from __future__ import annotations

import pytest

from cnnperf import sampling
from cnnperf.stages._clock import Clock


class Scripted:
    """A device whose clock shows what it is told."""

    name = label = torch_name = "cpu"

    def __init__(self, *marks: float) -> None:
        self._marks = iter(marks)
        self.waits = 0

    def synchronize(self) -> None:
        """Count how often is waited."""
        self.waits += 1

    def mark(self) -> float:
        """Return the next time."""
        return next(self._marks)

    def elapsed_s(self, start: float, end: float) -> float:
        """Return the difference."""
        return end - start

    def reset_peak(self) -> bool:
        """Not used."""
        return False

    def used_bytes(self) -> int:
        """Not used."""
        return 0

    def peak_bytes(self) -> dict[str, int]:
        """Not used."""
        return {}


def test_what_lies_between_a_reading_and_the_next_start_is_not_counted() -> None:
    """Steps of 1, 2 and 4 seconds come to 7, whatever passed between."""
    clock = Clock(Scripted(0, 1, 3, 50, 54))
    clock.start()
    clock.tick()
    clock.tick()
    clock.read()
    clock.start()
    clock.tick()
    clock.read()
    assert [step.wall_s for step in clock.samples] == [1, 2, 4]
    assert clock.seconds == 7


def test_the_clock_runs_on_after_a_reading() -> None:
    """Without a new start the time since the last tick belongs to the next step."""
    clock = Clock(Scripted(0, 1, 5))
    clock.start()
    clock.tick()
    clock.read()
    clock.tick()
    clock.read()
    assert [step.wall_s for step in clock.samples] == [1, 4]


def test_each_step_carries_what_the_process_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU time from tick to tick, as its time is, also over a reading; not what lies before a new start."""
    used = iter([0, 10, 15, 15, 40, 40])
    monkeypatch.setattr(sampling, "process_time_ns", lambda: next(used) * 10**9)
    clock = Clock(Scripted(0, 1, 3, 50, 54))  # The meter made with it reads 0.
    clock.start()  # 10
    clock.tick()  # 15, and again as the next begins
    clock.read()
    clock.tick()  # 40
    clock.read()
    assert [step.cpu_s for step in clock.samples] == [5, 25]
    assert all(step.switches >= 0 for step in clock.samples)


def test_ticks_do_not_wait() -> None:
    """Only starting and reading wait for the device."""
    device = Scripted(*range(10))
    clock = Clock(device)
    clock.start()
    for _ in range(5):
        clock.tick()
    assert device.waits == 1
    clock.read()
    assert device.waits == 2
