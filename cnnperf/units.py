"""Formatting of values for display: scaled to a suitable unit, on one line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

MISSING = "–"


def one_line(text: str) -> str:
    """Return a text on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def printable(text: str) -> str:
    r"""Return a text with a code such as `\x1b` in place of each character that a terminal or a browser would obey.

    These are all that are not printed, among them marks of the direction of writing; tab and line end (\n) stay.
    """
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c if c.isprintable() or c in "\t\n" else c.encode("unicode_escape").decode() for c in text)


def amount_of(count: int, word: str) -> str:
    """Return a count with its noun: `1 thread`, `2 threads`."""
    return f"{count} {word}{'s' * (count != 1)}"


def in_runs(numbers: Sequence[int]) -> str:
    """Return ascending whole numbers as the kernel lists cores: `0-3,8`."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda each: each[1] - each[0])]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def shape_in_words(sizes: Iterable[int | None]) -> str:
    """Return a shape as it is written, N×C×H×W; a size that is None is unknown: `?`."""
    return "×".join("?" if size is None else str(size) for size in sizes)


def scaled(value: str | float, unit: str | None) -> str:
    """Format a value in the unit usual for its size: %, ms, MiB, k, M; with three digits if it is not exact.

    unit: as in Measurement, or `points` for a difference between fractions.
    """
    if isinstance(value, str):
        return value
    if unit == "fraction":
        return f"{100 * value:.1f} %"
    if unit == "points":
        return f"{100 * value:+.1f} points"
    if unit == "s":
        return _scaled(value, ((1, "s"), (1e-3, "ms"), (1e-6, "µs")))
    if unit == "bytes":
        return _scaled(value, ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")))
    is_whole = isinstance(value, int) or (unit == "count" and value.is_integer())
    if is_whole and abs(value) < 100_000:
        return f"{value:,.0f}"
    return _scaled(value, ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")))


def _scaled(value: float, scales: tuple[tuple[float, str], ...]) -> str:
    # By what is printed, since 999.6 ms rounds to 1.00 s.
    fits = (scale for scale in scales if abs(float(_three_digits(value / scale[0]))) >= 1)
    size, unit = next(fits, scales[-1])
    return f"{_three_digits(value / size)} {unit}".strip()


def _three_digits(number: float) -> str:
    """Return a number with three significant digits, or all digits of its whole part."""
    rounded = float(f"{number:.2e}")
    decimals = 2 - math.floor(math.log10(abs(rounded))) if rounded else 0
    return f"{number:.{max(decimals, 0)}f}"
