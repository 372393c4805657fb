"""The claim about multiply-accumulates, and a wrong formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from stand_ins import verdicts

from cnnperf.claims import Context
from cnnperf.claims.arithmetic import check


def test_it_holds(context: Callable[..., Context]) -> None:
    """The claim holds for each layer in each direction and for the total that torch counts."""
    readings = list(check(context()))
    assert set(verdicts(readings)) == {"held"}
    assert len(readings) == 9


def test_it_fails_for_torchs_own_formula(context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's own formula, which ignores groups, only the backward pass of the grouped convolution fails."""
    monkeypatch.setattr("cnnperf.profiling.arithmetic.OWN_FORMULAS", {})
    failed = [reading.quantity for reading in check(context()) if reading.verdict == "failed"]
    assert failed == ["grouped, backward"]


@pytest.mark.cuda
def test_it_holds_on_cuda(context: Callable[..., Context]) -> None:
    """The claim holds for the counts of operators on a CUDA device."""
    from cnnperf.devices.cuda import acquire

    assert set(verdicts(check(context(acquire(), device="cuda")))) == {"held"}
