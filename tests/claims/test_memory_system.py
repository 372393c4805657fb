"""The claim about memory in use, NVML's answers, and counters that are wrong."""

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
    """Counts everything twice."""

    def used_bytes(self) -> int:
        """Return twice the truth."""
        return 2 * super().used_bytes()


class Reserving(Cpu):
    """As CUDA's allocator would tell of a training step."""

    def peak_bytes(self) -> dict[str, int]:
        """Return what was reserved in all."""
        return {"peak_bytes": 50 * MIB, "peak_reserved_bytes": 164 * MIB}


@linux
def test_it_holds_on_the_cpu(context: Callable[..., Context]) -> None:
    """The resident set is what the kernel finds in the page tables."""
    assert verdicts(check(context())) == ["held"]


@linux
def test_it_fails_for_a_wrong_counter(context: Callable[..., Context]) -> None:
    """Twice as much is too much."""
    assert verdicts(check(context(Doubled()))) == ["failed"]


@pytest.mark.parametrize(("risen_mib", "verdict"), [(64, "held"), (66, "held"), (32, "failed"), (128, "failed")])
def test_a_step_is_what_nvml_saw(monkeypatch: pytest.MonkeyPatch, risen_mib: int, verdict: str) -> None:
    """By how much the allocator's reserve rose, from 100 MiB, and by how much NVML's figure did."""
    monkeypatch.setattr(memory_system, "STEP_MODEL", "lenet")
    monkeypatch.setattr(memory_system, "STEP_IMAGES", 2)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 100 * MIB)
    told = iter([1000 * MIB, (1000 + risen_mib) * MIB])
    assert memory_system._step(Reserving(), lambda: next(told), "NVML").verdict == verdict


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that puts an nvidia-smi on the path, which prints a text."""

    def make(text: str) -> None:
        file = tmp_path / "nvidia-smi"
        file.write_text(f"#!/bin/sh\necho '{text}'\n")
        file.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return make


def test_nvml_tells_mebibytes(smi: Callable[[str], None]) -> None:
    """Of the GPU that is named."""
    smi("1234")
    assert _nvml.asked("GPU-1") == 1234 * MIB


def test_what_nvml_does_not_tell_does_not_apply(smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of a MIG instance, and not where there is none to ask."""
    smi("[N/A]")
    with pytest.raises(NotApplicable, match=r"MIG-1.*\[N/A\]"):
        _nvml.asked("MIG-1")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotApplicable, match="not installed"):
        _nvml.asked("GPU-1")


@pytest.mark.cuda
def test_it_holds_on_cuda(context: Callable[..., Context]) -> None:
    """For real."""
    from cnnperf.devices.cuda import acquire

    assert verdicts(check(context(acquire(), device="cuda"))) == ["held", "held"]
