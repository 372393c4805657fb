"""The fingerprint of the machine and its software."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnperf import machine
from cnnperf.record import Machine


def test_the_fingerprint_describes_this_machine() -> None:
    """What is known without importing torch is there, and it travels as JSON."""
    found = machine.fingerprint()
    assert found.cores == machine.usable_cores() >= 1
    assert found.memory_bytes > 2**28
    assert {"cnnperf", "torch", "numpy"} <= found.packages.keys()
    assert Machine.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1)])
def test_cores_are_those_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, tree: Callable[[dict[str, str]], Path], quota: str, cores: int
) -> None:
    """A cgroup's quota counts, not only the affinity."""
    root = tree(
        {
            "proc/self/cgroup": "0::/job\n",
            "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
            "sys/fs/cgroup/job/cpu.max": f"{quota}\n",
        }
    )
    monkeypatch.setattr(machine, "PROC", root / "proc")
    monkeypatch.setattr(machine, "SYS", root / "sys")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert machine.usable_cores() == cores
