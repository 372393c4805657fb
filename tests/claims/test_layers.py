"""The claim about the layer profile, with layer times that are too long and with a wrong step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from cnnperf.claims import Context, layers
from cnnperf.claims.layers import check
from cnnperf.profiling.layer_time import LayerTimer
from cnnperf.stages import profile


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MODEL", "lenet")
    monkeypatch.setattr(layers, "SECTION", {**layers.SECTION, "samples": 3})
    monkeypatch.setattr(layers, "ROUNDS", 6)
    monkeypatch.setattr(profile, "probe", lambda *_: iter(()))


def test_it_compares_rows_with_steps_and_steps_with_a_loop(context: Callable[..., Context]) -> None:
    """The rows are compared with the step, and the step with a loop by hand."""
    rows, step = check(context())
    assert rows.reading == step.figure > 0
    assert min(rows.figure, step.reading) > 0


def test_it_fails_for_rows_that_count_twice(context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch) -> None:
    """Layer times that are three times too long fail the claim."""
    read = LayerTimer.read

    def thrice(timer: LayerTimer, *seconds: float) -> Mapping[str, Mapping[str, float]]:
        found = read(timer, *seconds)  # type: ignore[arg-type]
        return {way: {layer: 3 * value for layer, value in of.items()} for way, of in found.items()}

    monkeypatch.setattr(LayerTimer, "read", thrice)
    rows, _ = check(context())
    assert rows.difference > 1
    assert rows.verdict != "held"


@pytest.mark.parametrize("seconds", [1e-6, 100.0])
def test_it_fails_for_a_step_that_is_no_step(
    context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """A step that is much longer or much shorter than the loop by hand fails the claim."""
    monkeypatch.setattr(layers, "_bare_step", lambda bench: lambda: seconds)
    _, step = check(context())
    assert step.verdict == "failed"
