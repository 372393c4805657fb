"""The CPU: its clock, and memory as the kernel counts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnperf.devices import cpu

MIB = 2**20

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory peaks are read from /proc")


def test_it_names_the_hardware() -> None:
    """The label is for a reader, the other names are for the code."""
    device = cpu.acquire()
    assert (device.name, device.torch_name) == ("cpu", "cpu")
    assert device.label


def test_time_between_marks_is_seconds() -> None:
    """The later mark less the earlier one."""
    device = cpu.acquire()
    assert device.elapsed_s(1.5, 4.0) == 2.5
    assert device.elapsed_s(device.mark(), device.mark()) >= 0


@linux
def test_peak_remembers_what_is_gone_until_it_is_reset() -> None:
    """64 MiB that were used and freed raise the peak, and resetting forgets them."""
    device = cpu.acquire()
    if not device.reset_peak():
        pytest.skip("this system does not permit the peak to be reset")
    start = device.used_bytes()
    np.ones(64 * MIB, np.uint8)
    assert 60 * MIB < device.peak_bytes()["peak_bytes"] - start < 80 * MIB
    assert device.reset_peak()
    assert device.peak_bytes()["peak_bytes"] - start < 20 * MIB


@linux
def test_peak_is_not_inherited() -> None:
    """A small child of a large parent has a small peak, unlike its ru_maxrss."""
    ballast = np.ones(300 * MIB, np.uint8)
    script = "from cnnperf.devices.cpu import acquire; print(acquire().peak_bytes()['peak_bytes'])"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 0 < int(child.stdout) < 200 * MIB < ballast.nbytes


def test_peak_is_absent_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without /proc there is no figure, and no leave to reset it."""
    monkeypatch.setattr(cpu, "STATUS", tmp_path / "status")
    monkeypatch.setattr(cpu, "CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    assert cpu.acquire().peak_bytes() == {}
    assert not cpu.acquire().reset_peak()


def test_torch_is_not_needed() -> None:
    """The CPU can be had without importing torch."""
    script = "import sys; from cnnperf.devices.cpu import acquire; acquire(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
