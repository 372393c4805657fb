"""Where a layer stands below the roofline."""

from __future__ import annotations

import pytest

from cnnperf.roofline import Roofline

MACHINE = Roofline(flops_per_s=100e9, bytes_per_s=10e9, probe="conv 3×3")


def test_a_layer_with_much_arithmetic_a_byte_is_held_to_the_peak() -> None:
    """20 FLOPs a byte are above the ridge at 10: compute-bound, at half of 100 GFLOP/s."""
    placed = MACHINE.place(flops=50_000_000, moved_bytes=2_500_000, seconds=0.001)
    assert placed["bound"] == "compute-bound"
    assert placed["share"] == pytest.approx(0.5)
    assert placed["flops_per_byte"] == pytest.approx(20)


def test_a_layer_with_little_is_held_to_the_bandwidth() -> None:
    """2 FLOPs a byte are below the ridge, and an element-wise layer has none: its bytes are what counts."""
    for flops in (2_000_000, None):
        placed = MACHINE.place(flops=flops, moved_bytes=1_000_000, seconds=0.001)
        assert placed["bound"] == "memory-bound"
        assert placed["share"] == pytest.approx(0.1)


def test_a_layer_above_the_peak_is_not_clipped_and_names_the_missing_probe() -> None:
    """1.3 stays 1.3."""
    placed = MACHINE.place(flops=None, moved_bytes=13_000_000, seconds=0.001)
    assert placed["share"] == pytest.approx(1.3)
    assert placed["missing_probe"] == "copy of 6.2 MiB, from a cache"
    above = MACHINE.place(flops=110_000_000, moved_bytes=1000, seconds=0.001)
    assert above["missing_probe"] == "product or convolution faster than conv 3×3"


def test_what_was_not_measured_is_absent() -> None:
    """No time, or no probes: nothing is known."""
    assert MACHINE.place(flops=1, moved_bytes=1, seconds=None) == {}
    assert Roofline(None, None, None).place(flops=1, moved_bytes=1, seconds=1.0) == {}
