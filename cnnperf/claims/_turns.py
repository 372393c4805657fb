"""Two timing methods applied in turns."""

from __future__ import annotations

import random
from collections.abc import Callable

Timed = Callable[[], float]


def in_turns(ours: Timed, theirs: Timed, rounds: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the values of both, one each a round; their order is random, so that a drift affects both alike."""
    dice, figures, readings = random.Random(0), [], []
    for _ in range(rounds):
        if dice.random() < 0.5:
            readings.append(theirs())
            figures.append(ours())
        else:
            figures.append(ours())
            readings.append(theirs())
    return tuple(figures), tuple(readings)
