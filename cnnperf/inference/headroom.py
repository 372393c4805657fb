"""Prediction from earlier batches whether a larger batch fits in memory, before the system kills the process."""

from __future__ import annotations

from collections.abc import Mapping

from cnnperf.devices import Device

SHARE = 0.8
"""Share of the available memory that a batch may take; the estimate is uncertain and others use memory too."""


class Headroom:
    """Memory used by each batch of a search; each batch is twice as large as the one before."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._before = 0
        self._grown: list[int] = []
        self._peaks: dict[str, int] = {}

    def begin(self) -> None:
        """Reset the peak before a batch."""
        self.peaks()
        if self._is_bounded():
            self._device.reset_peak()
            self._before = self._device.used_bytes()

    def end(self) -> None:
        """Record the memory that the batch used."""
        if self._is_bounded():
            self._grown.append(max(0, self._device.peak_bytes().get("peak_bytes", 0) - self._before))

    def _is_bounded(self) -> bool:
        """Return whether the system kills processes for lack of memory; otherwise a batch may simply be tried."""
        return self._device.available_bytes() is not None

    def holds_double(self) -> bool:
        """Return whether a batch twice as large as the last will fit in memory.

        The estimate is twice the last batch's memory, above the memory then in use: an engine that frees its memory
        starts where the last batch started, and an engine that keeps it needs as much again. A runtime sometimes
        allocates more than it needs, which the next batch reuses; so the last batch but one counts too.
        """
        available = self._device.available_bytes()
        if available is None or not self._grown:
            return True
        last, before = self._grown[-1], (self._grown[-2] if len(self._grown) > 1 else 0)
        return 2 * max(last, 2 * before) <= SHARE * available

    def peaks(self) -> dict[str, int]:
        """Return the largest of each of the device's peaks so far."""
        self.recall(self._device.peak_bytes())
        held = self._device.held_bytes()
        if held is not None:
            self.recall({"peak_held_bytes": held})
        return self._peaks

    def recall(self, peaks: Mapping[str, int]) -> None:
        """Include peaks that were measured elsewhere."""
        for kind, peak in peaks.items():
            self._peaks[kind] = max(peak, self._peaks.get(kind, 0))
