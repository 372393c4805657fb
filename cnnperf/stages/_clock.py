"""The training clock: it counts the steps of training and nothing else."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from cnnperf.devices import Device
from cnnperf.sampling import Meter, Sample


class Clock:
    """Time on the device's own clock, from `start` to the last `tick`, over and over; what lies between is not counted.

    A tick costs no wait for the device; `read` waits.
    """

    def __init__(self, device: Device) -> None:
        self.seconds = 0.0
        self.samples: list[Sample] = []
        """A step each; CPU time, switches and waits are the process's while it gave the step to the device."""
        self._device = device
        self._marks: list[Any] = []
        self._meter = Meter()
        self._metered: list[Sample] = []

    def start(self) -> None:
        """Begin to count, the device being idle."""
        self._device.synchronize()
        self._marks, self._metered = [self._device.mark()], []
        self._meter = Meter()

    def tick(self) -> None:
        """Mark the end of a step."""
        self._marks.append(self._device.mark())
        self._metered.append(self._meter.sample(0.0))
        self._meter = Meter()

    def read(self) -> None:
        """Wait for the device and enter the steps since the last reading; the clock runs on from the last tick."""
        self._device.synchronize()
        times = [self._device.elapsed_s(start, end) for start, end in pairwise(self._marks)]
        self.samples += [
            metered._replace(wall_s=round(time, 9)) for metered, time in zip(self._metered, times, strict=True)
        ]
        self.seconds += sum(times)
        self._marks, self._metered = self._marks[-1:], []
