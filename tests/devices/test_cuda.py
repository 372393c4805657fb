"""CUDA: refused with the reason where there is none, timed by events where there is one."""

from __future__ import annotations

import pytest
import torch

from cnnperf.devices import cuda
from cnnperf.errors import DeviceError

MIB = 2**20


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_the_reason_is_given() -> None:
    """The one sentence says what torch was built for and what is missing."""
    with pytest.raises(
        DeviceError, match=rf"no CUDA device \(torch {torch.__version__.partition('+')[0]}.* built .+\)$"
    ):
        cuda.acquire()


def test_a_torch_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU build is told apart from a missing driver."""
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceError, match="is built without CUDA"):
        cuda.acquire()


@pytest.mark.cuda
def test_time_between_marks_is_seconds() -> None:
    """Events agree with the host's clock on a second's work to within a tenth."""
    from time import perf_counter

    device = cuda.acquire()
    matrix = torch.rand(4096, 4096, device="cuda")
    device.synchronize()
    began, start = perf_counter(), device.mark()
    for _ in range(50):
        matrix @ matrix
    end = device.mark()
    device.synchronize()
    assert device.elapsed_s(start, end) == pytest.approx(perf_counter() - began, rel=0.1)


@pytest.mark.cuda
def test_peak_counts_tensors() -> None:
    """64 MiB that were used and freed raise the peak by as much, and resetting forgets them."""
    device = cuda.acquire()
    device.reset_peak()
    start = device.used_bytes()
    torch.ones(64 * MIB, dtype=torch.uint8, device="cuda")
    peaks = device.peak_bytes()
    assert peaks["peak_bytes"] - start == 64 * MIB
    assert peaks["peak_reserved_bytes"] >= peaks["peak_bytes"]
    device.reset_peak()
    assert device.peak_bytes()["peak_bytes"] == device.used_bytes() == start
