"""The clock of a training."""

from __future__ import annotations

import pytest

from cnnperf.devices.cpu import Cpu
from cnnperf.timing import sampling
from cnnperf.timing.clock import Clock


class Scripted(Cpu):
    """A device whose clock shows the given times."""

    def __init__(self, *marks: float) -> None:
        self._marks = iter(marks)
        self.waits = 0

    def synchronize(self) -> None:
        """Count the waits."""
        self.waits += 1

    def mark(self) -> float:
        """Return the next time."""
        return next(self._marks)

    def elapsed_s(self, start: float, end: float) -> float:
        """Return the difference of two times."""
        return end - start


def test_what_lies_between_a_reading_and_the_next_start_is_not_counted() -> None:
    """Steps of 1, 2 and 4 seconds take 7 seconds, without the pause between a reading and the next start."""
    clock = Clock(Scripted(0, 1, 3, 50, 54))
    clock.start()
    clock.tick()
    clock.tick()
    clock.read()
    clock.start()
    clock.tick()
    clock.read()
    assert clock.step_times == [1, 2, 4]
    assert clock.seconds == 7


def test_the_clock_runs_on_after_a_reading() -> None:
    """Without a new start the time since the last tick counts for the next step."""
    clock = Clock(Scripted(0, 1, 5))
    clock.start()
    clock.tick()
    clock.read()
    clock.tick()
    clock.read()
    assert clock.step_times == [1, 4]


def test_what_is_not_read_yet_reaches_to_the_last_tick() -> None:
    """The unread time sums the steps from the last reading to the last tick."""
    clock = Clock(Scripted(0, 1, 3, 7))
    clock.start()
    unread = [clock.unread_s]
    for _ in range(2):
        clock.tick()
        unread.append(clock.unread_s)
    clock.read()
    unread.append(clock.unread_s)
    clock.tick()
    assert [*unread, clock.unread_s] == [0, 1, 3, 0, 4]


def test_what_the_process_used_is_read_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stretch spans readings for at least ten milliseconds, without pauses, and has its own CPU time."""
    used = iter([0, 10, 15, 40, 60])  # Making it reads first, then starting; all else are ends of stretches.
    moments = iter([0.0, 0.005, 0.012, 0.012, 0.018, 5.0, 5.02, 5.02])
    monkeypatch.setattr(sampling, "process_time_ns", lambda: next(used) * 10**9)
    monkeypatch.setattr("cnnperf.timing.clock.perf_counter", lambda: next(moments))
    clock = Clock(Scripted(0, 1, 3, 7, 50, 54))
    clock.start()
    clock.tick()
    clock.read()  # At 5 ms: too early.
    clock.tick()
    clock.read()  # At 12 ms: two steps of 1 and 2 s.
    clock.tick()
    clock.read()  # At 18 ms: too early, and a pause follows.
    clock.start()
    clock.tick()
    clock.read()
    assert clock.step_times == [1, 2, 4, 4]
    assert [(stretch.wall_s, stretch.cpu_s) for stretch in clock.stretches] == [(3, 5), (4, 20)]


def test_ticks_do_not_wait() -> None:
    """The device is waited for at a start and at a reading, not at a tick."""
    device = Scripted(*range(10))
    clock = Clock(device)
    clock.start()
    for _ in range(5):
        clock.tick()
    assert device.waits == 1
    clock.read()
    assert device.waits == 2
