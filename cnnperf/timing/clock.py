"""The training clock: it counts the steps of training and nothing else."""

from __future__ import annotations

from itertools import pairwise
from time import perf_counter
from typing import Any

from cnnperf.devices import Device
from cnnperf.timing.sampling import SAMPLE_S, Sample, usage


class Clock:
    """Time on the device's own clock, from `start` to the last `tick`, over and over; what lies between is not counted.

    A tick costs no wait for the device; `read` waits. What the process used is looked at then, when all that it was
    used for is done, and every ten milliseconds at most, for that costs more than the time of a short step is to be
    wrong by.
    """

    def __init__(self, device: Device) -> None:
        self.seconds = 0.0
        self.step_times: list[float] = []
        self.stretches: list[Sample] = []
        """Steps that together last ten milliseconds or more, in order; a rest before a pause is in none."""
        self._device = device
        self._marks: list[Any] = []
        self._before = usage()
        self._rest_s = 0.0
        self._due = 0.0

    def start(self) -> None:
        """Begin to count, the device being idle."""
        self._device.synchronize()
        self._before, self._rest_s, self._due = usage(), 0.0, perf_counter() + SAMPLE_S
        self._marks = [self._device.mark()]

    def tick(self) -> None:
        """Mark the end of a step."""
        self._marks.append(self._device.mark())

    @property
    def unread_s(self) -> float:
        """The seconds from the last reading to the last tick, on a device that has done its work when it is marked."""
        return self._device.elapsed_s(self._marks[0], self._marks[-1])

    def read(self) -> None:
        """Wait for the device and enter the steps since the last reading; the clock runs on from the last tick."""
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
