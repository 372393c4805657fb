"""The claim about equal trainings, and trainings that differ."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cnnperf.claims import Context, determinism
from cnnperf.claims.determinism import check


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets the losses of the two trainings."""

    def give(first: tuple[float, ...], second: tuple[float, ...]) -> None:
        left = {"-1": first, "-2": second}
        monkeypatch.setattr(
            determinism, "ran", lambda *_, copy: SimpleNamespace(value=lambda stage, metric: left[copy])
        )

    return give


@pytest.mark.parametrize(
    ("second", "device", "verdict"),
    [
        ((2.0, 1.0), "cpu", "held"),
        ((2.0, 1.0 + 2**-52), "cpu", "failed"),
        ((2.0, 1.0 + 2**-52), "cuda", "reported"),
    ],
)
def test_one_bit_is_enough(
    losses: Callable[..., None], context: Callable[..., Context], second: Any, device: str, verdict: str
) -> None:
    """One different bit fails the claim on the CPU; on another device the count is only reported."""
    losses((2.0, 1.0), second)
    [reading] = check(context(device=device))
    assert reading.verdict == verdict
    assert reading.figure == (second != (2.0, 1.0))
