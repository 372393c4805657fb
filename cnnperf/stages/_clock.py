"""The training clock: it counts the steps of training and nothing else."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from cnnperf.devices import Device


class Clock:
    """Time on the device's own clock, from `start` to the last `tick`, over and over; what lies between is not counted.

    A tick costs no wait for the device; `read` waits.
    """

    def __init__(self, device: Device) -> None:
        self.seconds = 0.0
        self.step_times: list[float] = []
        self._device = device
        self._marks: list[Any] = []

    def start(self) -> None:
        """Begin to count, the device being idle."""
        self._device.synchronize()
        self._marks = [self._device.mark()]

    def tick(self) -> None:
        """Mark the end of a step."""
        self._marks.append(self._device.mark())

    def read(self) -> None:
        """Wait for the device and enter the steps since the last reading; the clock runs on from the last tick."""
        self._device.synchronize()
        times = [self._device.elapsed_s(start, end) for start, end in pairwise(self._marks)]
        self.step_times += times
        self.seconds += sum(times)
        self._marks = self._marks[-1:]
