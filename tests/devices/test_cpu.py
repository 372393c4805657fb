"""The CPU: its clock, and memory as the kernel counts it."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import completed

from cnnperf.devices import cpu
from cnnperf.ipc.process import Launch
from cnnperf.task import Allocator

MIB = 2**20

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory peaks are read from /proc")


def test_it_names_the_hardware() -> None:
    """The CPU's name and its torch name are `cpu`, and its label is not empty."""
    device = cpu.acquire()
    assert (device.name, device.torch_name) == ("cpu", "cpu")
    assert device.label


def test_time_between_marks_is_seconds() -> None:
    """The time between two marks is the difference of their seconds."""
    device = cpu.acquire()
    assert device.elapsed_s(1.5, 4.0) == 2.5
    assert device.elapsed_s(device.mark(), device.mark()) >= 0


@linux
def test_peak_remembers_what_is_gone_until_it_is_reset() -> None:
    """An array of 64 MiB that was used and freed raises the peak, until the peak is reset."""
    device = cpu.acquire()
    if not device.reset_peak():
        pytest.skip("this system does not permit the peak to be reset")
    start = device.used_bytes()
    np.ones(64 * MIB, np.uint8)
    assert 60 * MIB < device.peak_bytes()["peak_bytes"] - start < 80 * MIB
    assert device.reset_peak()
    assert device.peak_bytes()["peak_bytes"] - start < 20 * MIB


HOLES = """
import resource, sys

import numpy as np

from cnnperf.devices.cpu import acquire

def left(device):
    start = device.used_bytes()
    pairs = [(np.ones(2**20, np.uint8), np.ones(5000, np.uint8)) for _ in range(16)]
    small = [second for first, second in pairs]
    del pairs
    return (device.used_bytes() - start) / 2**20

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        np.ones(2**20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

device = acquire()
with device.returning_memory() as returns:
    print(returns, left(device), faults())
print(left(device), (faults(), faults())[1])
"""


DEFAULTS = """
import resource

import numpy as np

from cnnperf.devices.cpu import acquire

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        arrays = [np.ones(2**21, np.uint8) for _ in range(10)]
        while arrays:
            arrays.pop()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = (faults(), faults())[1]
with acquire().returning_memory() as returns:
    pass
print(returns, before, (faults(), faults())[1])
"""

glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries keep freed memory as they please"
)


def allocating(allocator: Allocator) -> dict[str, str]:
    """Return the environment of a process that measures with this allocator."""
    return Launch(allocator=allocator).variables()


@glibc
def test_memory_that_is_freed_is_in_use_no_longer() -> None:
    """Within `returning_memory`, less than 2 of 16 freed MiB stay in use; after it, freed memory is kept and reused."""
    done = completed(sys.executable, "-c", HOLES, env=allocating("keep"), check=True)
    (returns, within, mapping), (outside, kept) = (line.split() for line in done.stdout.splitlines())
    assert returns == "True"
    assert float(within) < 2
    assert float(outside) > 10
    assert int(kept) < 1000 < int(mapping)


@glibc
def test_the_defaults_of_the_c_library_stay_as_they_are() -> None:
    """Where glibc adapts its thresholds, `returning_memory` returns no memory and changes no later fault count."""
    done = completed(sys.executable, "-c", DEFAULTS, env=allocating("system"), check=True)
    returns, before, after = done.stdout.split()
    assert returns == "False"
    assert int(before) > 1000
    assert 0.5 * int(before) < int(after) < 2 * int(before)


def test_where_memory_cannot_be_returned_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a C library that lacks mallopt, `returning_memory` reports that memory is not returned."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(2**25))
    monkeypatch.setattr(cpu.ctypes, "CDLL", lambda name: object())
    with cpu.acquire().returning_memory() as returns:
        assert not returns


@linux
def test_peak_is_not_inherited() -> None:
    """A small child process of a large parent has a small peak, unlike its ru_maxrss."""
    ballast = np.ones(300 * MIB, np.uint8)
    script = "from cnnperf.devices.cpu import acquire; print(acquire().peak_bytes()['peak_bytes'])"
    child = completed(sys.executable, "-c", script, check=True)
    assert 0 < int(child.stdout) < 200 * MIB < ballast.nbytes


def test_peak_is_absent_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without /proc there is no peak, and a reset reports failure."""
    monkeypatch.setattr(cpu, "STATUS", tmp_path / "status")
    monkeypatch.setattr(cpu, "CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    assert cpu.acquire().peak_bytes() == {}
    assert not cpu.acquire().reset_peak()


def test_torch_is_not_needed() -> None:
    """The CPU is acquired without importing torch."""
    script = "import sys; from cnnperf.devices.cpu import acquire; acquire(); sys.exit('torch' in sys.modules)"
    assert completed(sys.executable, "-c", script).returncode == 0
