"""The machine and its software: what must be equal for two numbers to be comparable."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import psutil

from cnnperf._git import git
from cnnperf.cgroup import Groups
from cnnperf.record import Machine

PACKAGES = ("cnnperf", "torch", "torchvision", "numpy", "onnx", "onnxruntime", "onnxscript")
PROC, SYS = Path("/proc"), Path("/sys")


@cache
def fingerprint() -> Machine:
    """Describe this machine without importing what it describes."""
    gpu, driver = _gpu()
    return Machine(
        host=platform.node(),
        os=platform.platform(),
        cpu=cpu_name(),
        cores=usable_cores(),
        memory_bytes=_memory_bytes(),
        governor=_read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        gpu=gpu,
        driver=driver,
        python=platform.python_version(),
        packages={name: version for name in PACKAGES if (version := _version(name))},
        commit=_commit(Path(__file__).parent.parent),
    )


def usable_cores() -> int:
    """Count the cores this process may use: its affinity, and its cgroup's quota rounded up."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota = Groups(PROC, SYS, "cpu").cpus()
    except (OSError, ValueError):
        return affinity
    return affinity if math.isinf(quota) else min(affinity, math.ceil(quota))


def cpu_name() -> str:
    """Return the processor's name as its maker writes it, or the architecture where the system does not tell."""
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def cpu_flags(*wanted: str) -> tuple[str, ...]:
    """Return those of the instruction sets that the processor has, as Linux names them."""
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return tuple(flag for flag in wanted if flag in value.split())
    return ()


def available_memory_bytes() -> int:
    """Return how much more memory a process may use: of the machine's, and of what its control groups are left."""
    available = int(psutil.virtual_memory().available)
    try:
        return int(min(available, Groups(PROC, SYS, "memory").memory_left_bytes()))
    except (OSError, ValueError):
        return available


def _memory_bytes() -> int:
    total = int(psutil.virtual_memory().total)
    try:
        return int(min(total, Groups(PROC, SYS, "memory").memory_bytes()))
    except (OSError, ValueError):
        return total


def _gpu() -> tuple[str | None, str | None]:
    if not shutil.which("nvidia-smi"):
        return None, None
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    if answer.returncode:
        return None, None
    name, _, driver = answer.stdout.splitlines()[0].rpartition(",")
    return name.strip(), driver.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit(checkout: Path) -> str | None:
    if not (checkout / ".git").exists() or not shutil.which("git"):
        return None
    return git(checkout, "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*").stdout.strip() or None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
