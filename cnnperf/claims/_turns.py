"""Two ways to time one thing, by turns."""

from __future__ import annotations

from collections.abc import Callable

Timed = Callable[[], float]


def in_turns(ours: Timed, theirs: Timed, rounds: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return what both measured, a value a round each; who begins alternates, so that a drift meets both alike."""
    figures, readings = [], []
    for number in range(rounds):
        if number % 2:
            readings.append(theirs())
            figures.append(ours())
        else:
            figures.append(ours())
            readings.append(theirs())
    return tuple(figures), tuple(readings)
