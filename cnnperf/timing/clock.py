"""The training clock, which counts only the time of training steps."""

from __future__ import annotations

from itertools import pairwise
from time import perf_counter
from typing import Any

from cnnperf.devices import Device
from cnnperf.timing.sampling import SAMPLE_S, Sample, usage


class Clock:
    """Device time from each `start` to the last `tick` before the next pause; pauses are not counted.

    `tick` does not wait for the device; `read` waits. `read` also reads the process's resource counters, at most every
    ten milliseconds, because reading them takes a noticeable share of a short step.
    """

    def __init__(self, device: Device) -> None:
        self.seconds = 0.0
        self.step_times: list[float] = []
        self.stretches: list[Sample] = []
        """Groups of steps of at least ten milliseconds, in order; an incomplete group before a pause is dropped."""
        self._device = device
        self._marks: list[Any] = []
        self._before = usage()
        self._rest_s = 0.0
        self._due = 0.0

    def start(self) -> None:
        """Wait until the device is idle, then start counting."""
        self._device.synchronize()
        self._before, self._rest_s, self._due = usage(), 0.0, perf_counter() + SAMPLE_S
        self._marks = [self._device.mark()]

    def tick(self) -> None:
        """Mark the end of a step."""
        self._marks.append(self._device.mark())

    @property
    def unread_s(self) -> float:
        """Seconds from the last reading to the last tick; the device must have finished its work."""
        return self._device.elapsed_s(self._marks[0], self._marks[-1])

    def read(self) -> None:
        """Wait for the device and record the steps since the last reading; the clock continues from the last tick."""
        self._device.synchronize()
        times = [self._device.elapsed_s(start, end) for start, end in pairwise(self._marks)]
        self._marks = self._marks[-1:]
        self.step_times += times
        self.seconds += sum(times)
        self._rest_s += sum(times)
        if perf_counter() >= self._due:
            used = usage()
            self.stretches.append(used.since(self._before, self._rest_s))
            self._before, self._rest_s, self._due = used, 0.0, perf_counter() + SAMPLE_S
