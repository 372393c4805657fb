"""The versions of a duet: the environment of their processes."""

from __future__ import annotations

import os
import platform
import sys

import pytest
from processes import completed

from cnnperf.duet.contest import Version
from cnnperf.ipc.process import Launch
from cnnperf.task import Cell, Choice, Task

TASK = Task(
    cell=Cell(dataset=Choice(name="synthetic"), model=Choice(name="mlp"), device=Choice(name="cpu")),
    stage="train",
    seed=0,
    threads=1,
    timeout_s=60,
)

FAULTS = """
import ctypes, resource
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
c.free.argtypes, c.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def step():
    blocks = [c.malloc(20 << 20) for _ in range(3)]
    for block in blocks: c.memset(block, 1, 20 << 20)
    for block in blocks: c.free(block)
for _ in range(3): step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Takes and frees 60 MiB again and again, and prints how many page faults that cost."""


def faults(environment: dict[str, str]) -> int:
    """Count the page faults of the program in a fresh process."""
    return int(completed(sys.executable, "-c", FAULTS, env=environment, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep freed memory as they please")
def test_memory_that_was_freed_is_kept() -> None:
    """A version's launch keeps freed memory, so that repeated allocations cause few page faults."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    assert faults(bare) > 10_000
    assert faults(Launch(allocator="system").variables()) > 10_000
    assert faults(Version(name="x").launch(TASK, 3).variables()) < 1000


def test_an_arm_has_the_last_word_on_its_environment() -> None:
    """A version's environment variable replaces that of its launch."""
    launch = Version(name="x", environment={"OMP_WAIT_POLICY": "ACTIVE"}).launch(TASK, 3)
    assert launch.variables()["OMP_WAIT_POLICY"] == "ACTIVE"
