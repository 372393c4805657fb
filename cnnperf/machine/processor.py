"""The processor as Linux describes it in /proc/cpuinfo, sysfs and lscpu; unreported facts are absent."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import psutil

from cnnperf.machine.program import NoAnswer, answer
from cnnperf.record import Processor

VECTORS = re.compile(r"sse4_[12]|f16c|fma|avx.*|amx_.*")
"""x86 flags of the instructions that affect the speed of a network."""
CACHES = {"Data": "d", "Instruction": "i", "Unified": ""}
SIZES = {"K": 2**10, "M": 2**20, "G": 2**30}

CpuInfo = Mapping[str, tuple[str, ...]]
"""The distinct values of each key over all cores, in order."""


def describe_processor(proc: Path, sys: Path) -> Processor:
    """Describe the processor of a system with these /proc and /sys folders."""
    info = cpuinfo(proc)
    cpu, node = sys / "devices/system/cpu", sys / "devices/system/node"
    return Processor(
        vendor=_first(info, "vendor_id", "CPU implementer"),
        family=_first(info, "cpu family"),
        model=_first(info, "model", "CPU part"),
        stepping=_first(info, "stepping") or _revision(info),
        microcode=_first(info, "microcode"),
        instruction_sets=_instruction_sets(info),
        cache_bytes=_cache_bytes(cpu / "cpu0/cache"),
        physical_cores=psutil.cpu_count(logical=False),
        smt=_smt(cpu),
        nominal_hz=_nominal_hz(cpu / "cpu0", name(proc)),
        frequency_hz=frequency_hz(),
        virtual="hypervisor" in flags(proc) if "flags" in info else None,
        hypervisor=read_text(sys / "hypervisor/type") or _lscpu().get("Hypervisor vendor"),
        numa_nodes=len(list(node.glob("node[0-9]*"))) or None,
    )


@cache
def cpuinfo(proc: Path) -> CpuInfo:
    """Return the content of /proc/cpuinfo; empty if the file is missing."""
    found: dict[str, dict[str, None]] = {}
    for line in (read_text(proc / "cpuinfo") or "").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), {})[value.strip()] = None
    return {key: tuple(values) for key, values in found.items()}


def name(proc: Path) -> str | None:
    """Return the processor's name as given by the vendor; None if the system does not report it."""
    return next(iter(cpuinfo(proc).get("model name", ())), None)


def flags(proc: Path) -> tuple[str, ...]:
    """Return the processor's features by their Linux names: x86 `flags`, ARM `Features`; empty if not reported."""
    info = cpuinfo(proc)
    return tuple((info.get("flags") or info.get("Features") or ("",))[0].split())


def read_text(path: Path) -> str | None:
    """Return the text of a kernel file; None if it is unreadable or empty."""
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _first(info: CpuInfo, *keys: str) -> str | None:
    """Return the value of the first key that exists; distinct values of different cores are joined by `+`."""
    return next(("+".join(info[key]) for key in keys if key in info), None)


def _revision(info: CpuInfo) -> str | None:
    variant, revision = _first(info, "CPU variant"), _first(info, "CPU revision")
    return f"r{int(variant, 16)}p{revision}" if variant and revision and "+" not in variant else None


def _instruction_sets(info: CpuInfo) -> tuple[str, ...] | None:
    if "Features" in info:
        return tuple(info["Features"][0].split())
    if "flags" not in info:
        return None
    return tuple(flag for flag in info["flags"][0].split() if VECTORS.fullmatch(flag))


def _cache_bytes(folder: Path) -> dict[str, int]:
    found = {}
    for index in sorted(folder.glob("index[0-9]*")):
        level, kind, size = (read_text(index / name) for name in ("level", "type", "size"))
        if level and size and kind in CACHES and (match := re.fullmatch(r"(\d+)([KMG])", size)):
            found[f"L{level}{CACHES[kind]}"] = int(match[1]) * SIZES[match[2]]
    return found


def _smt(cpu: Path) -> bool | None:
    active = read_text(cpu / "smt/active")
    return None if active is None else active == "1"


def _nominal_hz(core: Path, name: str | None) -> float | None:
    """Read it from the frequency driver (kHz), from ACPI (MHz), or from the processor's name (`@ 2.20GHz`)."""
    for file, unit in (("cpufreq/base_frequency", 1e3), ("acpi_cppc/nominal_freq", 1e6)):
        number = read_text(core / file)
        if number and float(number):
            return unit * float(number)
    named = re.search(r"@ ([\d.]+)GHz", name or "")
    return 1e9 * float(named[1]) if named else None


def frequency_hz() -> float | None:
    """Return the current frequency, the mean over the cores; None if the system does not report it."""
    try:
        frequency = psutil.cpu_freq()
    except (AttributeError, NotImplementedError, OSError):  # psutil's value for "not reported".
        return None
    return 1e6 * frequency.current if frequency and frequency.current else None


@cache
def _lscpu() -> Mapping[str, str]:
    """Return the output of lscpu, which reads the hypervisor's vendor from the processor; no file contains it."""
    try:
        done = answer("lscpu", environment={**os.environ, "LC_ALL": "C"})
    except NoAnswer:
        return {}
    pairs = (line.partition(":") for line in done.stdout.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
