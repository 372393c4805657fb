"""A measurement of one value."""

from __future__ import annotations

from typing import Literal

from cnnperf.record import Measurement
from cnnperf.task import Scalar


def single(
    metric: str, unit: str, value: float, better: Literal["lower", "higher"] | None = None, **tags: Scalar
) -> Measurement:
    """Return a measurement of one value."""
    return Measurement(metric=metric, unit=unit, better=better, values=(value,), tags=tags)
