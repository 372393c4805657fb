"""The claim about multiply-accumulates, and a formula that is wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from stand_ins import verdicts

from cnnperf.claims import Context
from cnnperf.claims.arithmetic import check


def test_it_holds(context: Callable[..., Context]) -> None:
    """Each layer in each direction, and the total that torch counts."""
    readings = list(check(context()))
    assert set(verdicts(readings)) == {"held"}
    assert len(readings) == 9


def test_it_fails_for_torchs_own_formula(context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch) -> None:
    """Which forgets the groups in a convolution's backward, and nothing else."""
    monkeypatch.setattr("cnnperf.profiling.arithmetic.OWN_FORMULAS", {})
    failed = [reading.quantity for reading in check(context()) if reading.verdict == "failed"]
    assert failed == ["grouped, backward"]


@pytest.mark.cuda
def test_it_holds_on_cuda(context: Callable[..., Context]) -> None:
    """Counts are the device's own operators'."""
    from cnnperf.devices.cuda import acquire

    assert set(verdicts(check(context(acquire(), device="cuda")))) == {"held"}
