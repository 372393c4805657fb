"""The claim about the device's clock, on a device that lags behind its caller."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from stand_ins import Lagging, verdicts

from cnnperf.claims import Context, _torch_work
from cnnperf.claims.time_marks import check


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_torch_work, "calls_for", lambda call, wait, seconds: 100)


def test_it_holds_for_marks_that_are_right(lagging: Lagging, context: Callable[..., Context]) -> None:
    """With correct marks, the parts add up to the loop, and the host's clock agrees."""
    lagging.is_asynchronous = True
    assert verdicts(check(context(lagging))) == ["held", "held"]


def test_the_sum_of_parts_is_no_reading_of_a_clock_that_is_read_at_once(
    lagging: Lagging, context: Callable[..., Context]
) -> None:
    """On a synchronous device, where parts always add up, only the host's clock is compared."""
    lagging.is_asynchronous = False
    [found] = check(context(lagging))
    assert (found.verdict, found.source) == ("held", "CLOCK_MONOTONIC_RAW around the loop and one wait")


def test_it_fails_for_marks_that_do_not_divide_the_loop(lagging: Lagging, context: Callable[..., Context]) -> None:
    """If each part is 0.5 % too short and the whole is not, the claim fails."""
    lagging.is_asynchronous = True
    elapsed_s = lagging.elapsed_s
    part_s: list[float] = []

    def losing(start: float, end: float) -> float:
        found_s = elapsed_s(start, end)
        part_s.append(found_s)
        return found_s * (0.995 if found_s <= 1.5 * part_s[0] else 1)

    lagging.elapsed_s = losing  # type: ignore[method-assign]
    assert verdicts(check(context(lagging))) == ["held", "failed"]


@pytest.mark.parametrize("faster", [0.5, 0.98, 1.02, 2.0, 1000.0])
def test_it_fails_for_a_clock_that_is_off(lagging: Lagging, context: Callable[..., Context], faster: float) -> None:
    """A device clock that is off by 2 %, a factor of two or a factor of 1000 fails the claim."""
    lagging.faster = faster
    assert "failed" in verdicts(check(context(lagging)))


def test_it_breaks_off_for_a_device_that_does_not_wait(lagging: Lagging, context: Callable[..., Context]) -> None:
    """If the device does not wait, the claim ends in an error, since its marks have not been reached."""
    lagging.waits = False
    with pytest.raises(AssertionError, match="not been reached"):
        list(check(context(lagging)))


@pytest.mark.cuda
def test_it_holds_on_cuda(context: Callable[..., Context]) -> None:
    """The claim holds on a CUDA device."""
    from cnnperf.devices.cuda import acquire

    assert set(verdicts(check(context(acquire(), device="cuda")))) == {"held"}
