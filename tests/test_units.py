"""Numbers as printed for readers."""

from __future__ import annotations

import pytest

from cnnperf.units import amount_of, scaled, shape_in_words


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.98534, "fraction", "98.5 %"),
        (1.0, "fraction", "100.0 %"),
        (61.25, "s", "61.2 s"),
        (0.0123456, "s", "12.3 ms"),
        (3.4e-6, "s", "3.40 µs"),
        (5 * 2**26, "bytes", "320 MiB"),
        (1536, "bytes", "1.50 KiB"),
        (61_706, "count", "61,706"),
        (61_706.0, "count", "61,706"),
        (3.0, "count", "3"),
        (0.0031, "points", "+0.3 points"),
        (-0.02, "points", "-2.0 points"),
        (2.5, "count", "2.50"),
        (0.9994, "s", "999 ms"),
        (0.9996, "s", "1.00 s"),
        (0.009996, "s", "10.0 ms"),
        (2**20 - 300, "bytes", "1.00 MiB"),
        (2**20 - 3000, "bytes", "1021 KiB"),
        (999_600_000, "count", "1.00 G"),
        (11_173_962, "count", "11.2 M"),
        (12_345.6, "images/s", "12.3 k"),
        (2.5, "1", "2.50"),
        (0, "bytes", "0 B"),
        ("cpu", None, "cpu"),
    ],
)
def test_three_digits_in_the_unit_of_its_size(value: str | float, unit: str | None, words: str) -> None:
    """A number is printed with three digits and a fitting unit; small counts are exact, and text is unchanged."""
    assert scaled(value, unit) == words


def test_a_count_of_one_has_its_noun_in_the_singular() -> None:
    """A count is printed with its noun in the matching number."""
    assert [amount_of(number, "thread") for number in (0, 1, 2)] == ["0 threads", "1 thread", "2 threads"]


def test_a_shape_is_written_with_a_sign_between_its_sizes() -> None:
    """A shape is written as N×C×H×W, with a mark in place of an unknown size."""
    assert [shape_in_words(shape) for shape in ((2, 10), (None, 3, 32, 32), ())] == ["2×10", "?×3×32×32", ""]
