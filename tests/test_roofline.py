"""The placement of a layer below the roofline."""

from __future__ import annotations

import pytest

from cnnperf.roofline import Roofline

MACHINE = Roofline(flops_per_s=100e9, bytes_per_s=10e9, probe="conv 3×3")


def test_a_layer_with_much_arithmetic_a_byte_is_held_to_the_peak() -> None:
    """A layer with 20 FLOPs per byte, above the ridge at 10, is compute-bound, at half of the peak of 100 GFLOP/s."""
    placed = MACHINE.place(flops=50_000_000, moved_bytes=2_500_000, seconds=0.001)
    assert placed["bound"] == "compute-bound"
    assert placed["share"] == pytest.approx(0.5)
    assert placed["flops_per_byte"] == pytest.approx(20)


def test_a_layer_with_little_is_held_to_the_bandwidth() -> None:
    """A layer with 2 FLOPs per byte or none is memory-bound, and its share is that of the bandwidth."""
    for flops in (2_000_000, None):
        placed = MACHINE.place(flops=flops, moved_bytes=1_000_000, seconds=0.001)
        assert placed["bound"] == "memory-bound"
        assert placed["share"] == pytest.approx(0.1)


def test_a_layer_above_the_peak_is_not_clipped_and_names_the_missing_probe() -> None:
    """A share of 1.3 is not clipped, and the probe that is missing is named."""
    placed = MACHINE.place(flops=None, moved_bytes=13_000_000, seconds=0.001)
    assert placed["share"] == pytest.approx(1.3)
    assert placed["missing_probe"] == "copy of 6.2 MiB, from a cache"
    above = MACHINE.place(flops=110_000_000, moved_bytes=1000, seconds=0.001)
    assert above["missing_probe"] == "product or convolution faster than conv 3×3"


def test_what_was_not_measured_is_absent() -> None:
    """Without a time, or without probes, a layer has no placement."""
    assert MACHINE.place(flops=1, moved_bytes=1, seconds=None) == {}
    assert Roofline(None, None, None).place(flops=1, moved_bytes=1, seconds=1.0) == {}
