"""The roofline: each layer's share of the machine's measured peaks (Williams, Waterman and Patterson 2009)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cnnperf.record import Record

ARITHMETIC = "profile.probe_flops_per_s"
"""The metric of the probes of arithmetic."""
MEMORY_PROBE = "copy 256 MiB"
"""The probe of main memory bandwidth; smaller copies measure caches."""
EXCESS = 1.05
"""A share above this means that a probe is missing."""
MIB = 2**20


def is_above(share: float | None) -> bool:
    """Return whether a share, rounded as printed, is above the measured peak; 100.0 % is not."""
    return share is not None and round(share, 3) > 1


@dataclass(frozen=True, slots=True)
class Roofline:
    """The two ceilings of a machine, arithmetic and bandwidth, and the probe that reached the first."""

    flops_per_s: float | None
    bytes_per_s: float | None
    probe: str | None

    @classmethod
    def of(cls, records: Iterable[Record]) -> Roofline:
        """Take the best of the probes of records of one machine; None for a ceiling that was not measured."""
        records = tuple(records)
        peaks = [(max(m.values), str(m.tags["probe"])) for r in records for m in r.find(ARITHMETIC)]
        copies = [max(m.values) for r in records for m in r.find("profile.probe_bytes_per_s", probe=MEMORY_PROBE)]
        flops_per_s, probe = max(peaks, default=(None, None))
        return cls(flops_per_s, max(copies, default=None), probe)

    def place(self, flops: int | None, moved_bytes: int | None, seconds: float | None) -> Mapping[str, Any]:
        """Return a layer's intensity, achieved rates, share of the attainable rate and bound, as far as they are known.

        The share is never clipped: above 1.05, the missing probe is named.
        """
        if not seconds or not (self.flops_per_s and self.bytes_per_s):
            return {}
        placed: dict[str, Any] = {}
        if moved_bytes:
            placed |= {"bytes_per_s": moved_bytes / seconds, "bound": "memory-bound"}
            placed["share"] = placed["bytes_per_s"] / self.bytes_per_s
        if flops:
            placed["flops_per_s"] = flops / seconds
            if moved_bytes:
                placed["flops_per_byte"] = flops / moved_bytes
            if not moved_bytes or placed["flops_per_byte"] >= self.flops_per_s / self.bytes_per_s:
                placed |= {"share": placed["flops_per_s"] / self.flops_per_s, "bound": "compute-bound"}
        if placed.get("share", 0) > EXCESS:
            placed["missing_probe"] = self._missing(placed["bound"], moved_bytes or 0)
        return placed

    def _missing(self, bound: str, moved_bytes: int) -> str:
        if bound == "memory-bound":
            return f"copy of {moved_bytes / 2 / MIB:.3g} MiB, from a cache"
        return f"product or convolution faster than {self.probe}"
