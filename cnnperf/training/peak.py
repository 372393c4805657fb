"""Peak memory of the whole process, and of a piece of work relative to the memory before it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

from cnnperf.devices import Device
from cnnperf.record import Measurement, single


class Memory:
    """Reads the device's peaks and remembers them across resets."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._start = 0
        self._peaks: dict[str, int] = {}

    def begin(self) -> bool:
        """Reset the peak and measure from now on; returns False if the system does not permit it.

        First garbage is collected: if it were freed meanwhile, the work would seem to take less.
        """
        gc.collect()
        is_reset = self.again()
        self._start = self._device.used_bytes()
        return is_reset

    def again(self) -> bool:
        """Reset the peak for another piece of work, measured from the same start."""
        self._recall()
        return self._device.reset_peak()

    def risen(self) -> int | None:
        """Return the peak above the start in bytes; None if the system does not report it."""
        peak = self._device.peak_bytes().get("peak_bytes")
        return None if peak is None else max(0, peak - self._start)

    def peaks(self) -> Iterator[Measurement]:
        """Yield the peaks of the whole process so far, as far as the system reports them."""
        self._recall()
        for name, peak in self._peaks.items():
            # No direction: most of it is Python, torch and the images, not the network.
            yield single(f"train.{name}", "bytes", peak)

    def _recall(self) -> None:
        for name, peak in self._device.peak_bytes().items():
            self._peaks[name] = max(peak, self._peaks.get(name, 0))
