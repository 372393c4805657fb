"""The claim about the peak of memory, and counters that are wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from stand_ins import verdicts

from cnnperf.claims import Context, NotApplicable
from cnnperf.claims.memory_tensor import check
from cnnperf.devices.cpu import Cpu

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


class Halved(Cpu):
    """A peak in units of two bytes."""

    def peak_bytes(self) -> dict[str, int]:
        """Return half of the truth above what is in use now."""
        used = self.used_bytes()
        return {"peak_bytes": used + (super().peak_bytes()["peak_bytes"] - used) // 2}


class Forgetful(Cpu):
    """A peak that is only what is in use."""

    def peak_bytes(self) -> dict[str, int]:
        """Return what is in use now."""
        return {"peak_bytes": self.used_bytes()}


class Stuck(Cpu):
    """A peak that no reset begins anew."""

    def reset_peak(self) -> bool:
        """Say that it was done."""
        return True


class Fixed(Cpu):
    """A peak that the system does not permit to be reset."""

    def reset_peak(self) -> bool:
        """Say so."""
        return False


@linux
def test_it_holds_on_the_cpu(context: Callable[..., Context]) -> None:
    """What is written counts, also when it is gone; what is only reserved does not."""
    assert verdicts(check(context())) == ["held", "held", "held"]


@linux
@pytest.mark.parametrize("device", [Halved(), Forgetful(), Stuck()])
def test_it_fails_for_a_wrong_counter(context: Callable[..., Context], device: Cpu) -> None:
    """Half of it, none of it, or what was there before."""
    assert "failed" in verdicts(check(context(device)))


def test_it_does_not_apply_without_a_reset(context: Callable[..., Context]) -> None:
    """The reason is given."""
    with pytest.raises(NotApplicable, match="does not permit"):
        list(check(context(Fixed())))


@pytest.mark.cuda
def test_it_holds_on_cuda(context: Callable[..., Context]) -> None:
    """For real."""
    from cnnperf.devices.cuda import acquire

    assert verdicts(check(context(acquire(), device="cuda"))) == ["held", "held"]
