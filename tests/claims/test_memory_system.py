"""The claim about memory in use, with answers of NVML and with a wrong counter."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from stand_ins import verdicts

from cnnperf.claims import Context, NotApplicable, _nvml, memory_system
from cnnperf.claims.memory_system import check
from cnnperf.devices.cpu import Cpu

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
MIB = 2**20


class Doubled(Cpu):
    """A CPU that reports twice the memory in use."""

    def used_bytes(self) -> int:
        """Return twice the bytes in use."""
        return 2 * super().used_bytes()


class Reserving(Cpu):
    """A device that reports a training step's memory as CUDA's allocator does."""

    def peak_bytes(self) -> dict[str, int]:
        """Return the peak of allocated and of reserved bytes."""
        return {"peak_bytes": 50 * MIB, "peak_reserved_bytes": 164 * MIB}


@linux
def test_it_holds_on_the_cpu(context: Callable[..., Context]) -> None:
    """The resident set agrees with the kernel's page tables."""
    assert verdicts(check(context())) == ["held"]


@linux
def test_it_fails_for_a_wrong_counter(context: Callable[..., Context]) -> None:
    """A counter that reports twice the memory fails the claim."""
    assert verdicts(check(context(Doubled()))) == ["failed"]


def test_a_device_without_another_counter_does_not_apply(
    context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim says that nothing else counts the device's memory."""
    device = Cpu()
    monkeypatch.setattr(device, "torch_name", "mps")
    with pytest.raises(NotApplicable, match=r"^no other counter of the memory of mps is known$"):
        list(check(context(device)))


@pytest.mark.parametrize(("risen_mib", "verdict"), [(64, "held"), (66, "held"), (32, "failed"), (128, "failed")])
def test_a_step_is_what_nvml_saw(monkeypatch: pytest.MonkeyPatch, risen_mib: int, verdict: str) -> None:
    """The rise of the allocator's reserve from 100 MiB is compared with the rise of NVML's figure."""
    monkeypatch.setattr(memory_system, "STEP_MODEL", "lenet")
    monkeypatch.setattr(memory_system, "STEP_IMAGES", 2)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 100 * MIB)
    told = iter([1000 * MIB, (1000 + risen_mib) * MIB])
    assert memory_system._step(Reserving(), lambda: next(told), "NVML").verdict == verdict


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that puts an nvidia-smi on the path that prints the given text."""

    def make(text: str) -> None:
        file = tmp_path / "nvidia-smi"
        file.write_text(f"#!/bin/sh\necho '{text}'\n")
        file.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return make


def test_nvml_tells_mebibytes(smi: Callable[[str], None]) -> None:
    """The memory that nvidia-smi prints for a GPU is read as MiB."""
    smi("1234")
    assert _nvml.asked("GPU-1") == 1234 * MIB


def test_what_nvml_does_not_tell_does_not_apply(smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim does not apply where nvidia-smi has no figure, as for a MIG instance, or is not installed."""
    smi("[N/A]")
    with pytest.raises(NotApplicable, match=r"MIG-1.*\[N/A\]"):
        _nvml.asked("MIG-1")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotApplicable, match="not installed"):
        _nvml.asked("GPU-1")


@pytest.mark.cuda
def test_it_holds_on_cuda(context: Callable[..., Context]) -> None:
    """Both readings hold on a CUDA device."""
    from cnnperf.devices.cuda import acquire

    assert verdicts(check(context(acquire(), device="cuda"))) == ["held", "held"]
