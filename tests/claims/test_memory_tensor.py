"""The claim about peak memory, and wrong counters."""

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
    """A CPU whose peak counts half of the bytes."""

    def peak_bytes(self) -> dict[str, int]:
        """Return the bytes in use plus half of the peak above them."""
        used = self.used_bytes()
        return {"peak_bytes": used + (super().peak_bytes()["peak_bytes"] - used) // 2}


class Forgetful(Cpu):
    """A CPU whose peak is only the memory in use now."""

    def peak_bytes(self) -> dict[str, int]:
        """Return the bytes in use now."""
        return {"peak_bytes": self.used_bytes()}


class Stuck(Cpu):
    """A CPU whose peak is never reset."""

    def reset_peak(self) -> bool:
        """Report a reset without making one."""
        return True


class Fixed(Cpu):
    """A CPU whose peak the system does not permit to be reset."""

    def reset_peak(self) -> bool:
        """Report that the reset is not permitted."""
        return False


@linux
def test_it_holds_on_the_cpu(context: Callable[..., Context]) -> None:
    """Written memory counts, even after it is freed; memory that is only reserved does not count."""
    assert verdicts(check(context())) == ["held", "held", "held"]


@linux
@pytest.mark.parametrize("device", [Halved(), Forgetful(), Stuck()])
def test_it_fails_for_a_wrong_counter(context: Callable[..., Context], device: Cpu) -> None:
    """A peak that is halved, forgotten or not reset fails the claim."""
    assert "failed" in verdicts(check(context(device)))


def test_it_does_not_apply_without_a_reset(context: Callable[..., Context]) -> None:
    """Where the peak cannot be reset, the claim does not apply, and the reason is given."""
    with pytest.raises(NotApplicable, match="does not permit"):
        list(check(context(Fixed())))


@pytest.mark.cuda
def test_it_holds_on_cuda(context: Callable[..., Context]) -> None:
    """Both readings hold on a CUDA device."""
    from cnnperf.devices.cuda import acquire

    assert verdicts(check(context(acquire(), device="cuda"))) == ["held", "held"]
