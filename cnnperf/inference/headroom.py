"""Whether a larger batch still has room in memory: told from what the last ones took, before the system ends us."""

from __future__ import annotations

from collections.abc import Mapping

from cnnperf.devices import Device

SHARE = 0.8
"""A batch may take so much of what is available: what it will take is an estimate, and others use memory too."""


class Headroom:
    """What each batch of a search took of memory, each twice as large as the one before."""

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
        """Take down what the batch took."""
        if self._is_bounded():
            self._grown.append(max(0, self._device.peak_bytes().get("peak_bytes", 0) - self._before))

    def _is_bounded(self) -> bool:
        """Tell whether a process is ended for the memory it takes; elsewhere a batch may just be tried."""
        return self._device.available_bytes() is not None

    def holds_double(self) -> bool:
        """Tell whether a batch twice as large as the last will find what it needs.

        It takes twice as much as the last, beyond what is in use then: an engine that gives back what it took begins
        where the last did, one that keeps it needs as much again. A runtime takes more than it needs now and then, and
        the next batch finds it there; so the last but one counts too.
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
        """Take in peaks that were seen elsewhere."""
        for kind, peak in peaks.items():
            self._peaks[kind] = max(peak, self._peaks.get(kind, 0))
