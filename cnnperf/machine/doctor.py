"""Facts of this machine that disturb measurements: each with its reading and its cure."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, process_time, sleep

import psutil

from cnnperf.machine.cgroup import Groups
from cnnperf.task import THREAD_VARIABLES
from cnnperf.units import amount_of, in_runs

UNREADABLE = "not readable here"
NEIGHBOURS = "neighbours"
"""Subject of the work of other processes, for which the machine is watched."""
NEEDED_BYTES = 2 * 2**30
"""Memory for two torch processes, each with a small network."""
IDLE_LOAD = 0.25
"""A load average above this indicates other busy processes."""
END_OTHERS = "end other processes (ps -eo pcpu,args --sort=-pcpu | head)"
WATCH_S = 1.0
"""Seconds for which the machine is watched for the work of other processes."""
LACKING_CORES = 0.25
"""Cores of those needed that other processes may keep busy on a quiet machine."""
BETWEEN_LOOKS_S = 4.0
"""Seconds between two looks at a machine that is awaited to become quiet."""
BUSY_TIMES = (0, 1, 2, 5, 6)
"""Columns of a core in `/proc/stat` that count work: user, nice, system, irq, softirq (proc(5))."""
TOLERABLE_STEAL = 0.01
"""Tolerated share of stolen time, relative to this machine's working time."""
USER_SPACE_CLOCKS = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter")
"""Clock sources that are read without a system call."""
OPENMP_VARIABLES = ("OMP_WAIT_POLICY", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_BLOCKTIME")


@dataclass(frozen=True, slots=True)
class Places:
    """Files in which the system describes itself, in addition to psutil."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def cpu(self) -> Path:
        """The folder of the processor's settings."""
        return self.sys / "devices/system/cpu"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about the machine."""

    subject: str
    read: str = UNREADABLE
    cure: str = ""
    """The cure; empty if the reading is fine."""

    @property
    def mark(self) -> str:
        """✓ fine, ✗ needs a cure, ? not readable."""
        return "?" if self.read == UNREADABLE else "✗" if self.cure else "✓"

    def __str__(self) -> str:
        cure = f"; cure: {self.cure}" if self.cure else ""
        return f"{self.mark} {self.subject:12} {self.read}{cure}"


Check = Callable[[Places], tuple[str, str]]
"""Returns the reading and its cure; raises one of UNTOLD if the system does not report it."""
UNTOLD = (OSError, ValueError, LookupError, psutil.Error)


def examine(places: Places | None = None) -> tuple[Finding, ...]:
    """Read all facts that are known to disturb measurements; nothing is changed or guessed."""
    return tuple(_finding(subject, check, places or Places()) for subject, check in CHECKS.items())


def busy() -> str | None:
    """Watch the machine for a second and say how busy others keep it; None if it is quiet or that is not readable."""
    finding = _finding(NEIGHBOURS, _neighbours, Places())
    return finding.read if finding.cure else None


def becomes_quiet(limit_s: float) -> bool:
    """Wait until the machine is quiet for a second; return whether it was within the limit."""
    deadline = monotonic() + limit_s
    while busy():
        if monotonic() > deadline:
            return False
        sleep(BETWEEN_LOOKS_S)
    return True


def _finding(subject: str, check: Check, places: Places) -> Finding:
    try:
        return Finding(subject, *check(places))
    except UNTOLD:
        return Finding(subject)


def _governor(places: Places) -> tuple[str, str]:
    files = places.cpu.glob("cpu[0-9]*/cpufreq/scaling_governor")
    governors = sorted({file.read_text().strip() for file in files})
    if not governors:
        raise FileNotFoundError("scaling_governor")
    cure = "" if governors == ["performance"] else "sudo cpupower frequency-set --governor performance"
    return ", ".join(governors), cure


def _turbo(places: Places) -> tuple[str, str]:
    # Intel's driver reports whether boost is off, all other drivers whether it is on.
    for file, off in ((places.cpu / "intel_pstate/no_turbo", 1), (places.cpu / "cpufreq/boost", 0)):
        if file.exists():
            is_off = int(file.read_text()) == off
            return (
                ("off", "") if is_off else ("on: the clock depends on the temperature", f"echo {off} | sudo tee {file}")
            )
    raise FileNotFoundError("no_turbo")


def _smt(places: Places) -> tuple[str, str]:
    control = places.cpu / "smt/control"
    if not int((places.cpu / "smt/active").read_text()):
        return f"off ({control.read_text().strip()})", ""
    return "on: neighbouring threads share a core", f"echo off | sudo tee {control}"


def _clock(places: Places) -> tuple[str, str]:
    folder = places.sys / "devices/system/clocksource/clocksource0"
    source = (folder / "current_clocksource").read_text().strip()
    if source in USER_SPACE_CLOCKS:
        return source, ""
    offered = (folder / "available_clocksource").read_text().split()
    better = next((clock for clock in USER_SPACE_CLOCKS if clock in offered), None)
    cure = (
        f"echo {better} | sudo tee {folder / 'current_clocksource'}" if better else "a kernel or host that offers tsc"
    )
    return f"{source}, slow to read", cure


def _affinity(places: Places) -> tuple[str, str]:
    cores, online = _usable(), (places.cpu / "online").read_text().strip()
    allowed = in_runs(cores)
    read = f"cores {allowed}, all of those online" if allowed == online else f"cores {allowed} of {online} online"
    return read, "" if len(cores) > 1 else "allow two cores: the system and its neighbours need one"


def _threads(places: Places) -> tuple[str, str]:
    usable = Groups(places.proc, places.sys, "cpu").usable_of(len(_usable()))
    variables = {name: places.environment.get(name) for name in (*THREAD_VARIABLES, *OPENMP_VARIABLES)}
    given = [f"{name}={value}" for name, value in variables.items() if value is not None]
    # A list gives the threads of nested parallel regions; the first entry is the outermost.
    numbers = {name: (variables[name] or "").partition(",")[0].strip() for name in THREAD_VARIABLES}
    wrong = [name for name, number in numbers.items() if number and not (number.isdigit() and int(number) <= usable)]
    read = f"{amount_of(usable, 'usable core')}; {', '.join(given) or 'no variable of OpenMP set'}"
    return read, f"unset {' '.join(wrong)}" if wrong else ""


def _load(_: Places) -> tuple[str, str]:
    load = psutil.getloadavg()[0]
    cure = "" if load <= IDLE_LOAD else f"{END_OTHERS}, then wait a minute"
    return f"{load:.1f} over the last minute", cure


def _neighbours(places: Places) -> tuple[str, str]:
    # Read first: a system without this file may not tell the usable cores either.
    before, own_s, start = _worked_s(places), process_time(), monotonic()
    cores = _usable()
    sleep(WATCH_S)
    after = _worked_s(places)
    watched = [core for core in cores if core in before.keys() & after.keys()]
    if not watched:
        raise LookupError("cores in stat")
    worked_s = sum(after[core] - before[core] for core in watched) - (process_time() - own_s)
    others = max(0.0, worked_s / (monotonic() - start))
    lacking = _needed(places, len(cores)) - (len(cores) - others)
    cure = "" if lacking <= LACKING_CORES else END_OTHERS
    return f"{others:.1f} of {amount_of(len(cores), 'usable core')} busy with other work", cure


def _worked_s(places: Places) -> dict[int, float]:
    """Return the seconds that each core has worked since boot, by its number."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    found: dict[int, float] = {}
    for line in (places.proc / "stat").read_text().splitlines():
        name, *times = line.split()
        if name.startswith("cpu") and name != "cpu":
            found[int(name.removeprefix("cpu"))] = tick_s * sum(int(times[i]) for i in BUSY_TIMES if i < len(times))
    return found


def _needed(places: Places, cores: int) -> int:
    """Return how many of these cores a measurement may use at once."""
    try:
        return Groups(places.proc, places.sys, "cpu").usable_of(cores)
    except UNTOLD:
        return cores


def _steal(_: Places) -> tuple[str, str]:
    # The reported times depend on the system; a KeyError means that one is not reported.
    spent = psutil.cpu_times()._asdict()
    worked = sum(spent[name] for name in ("user", "nice", "system", "irq", "softirq", "steal"))
    share = spent["steal"] / worked if worked else 0.0
    cure = "" if share <= TOLERABLE_STEAL else "a host with fewer guests, or a dedicated one"
    return f"{100 * share:.2g} % of the time worked since boot went to other guests", cure


def _quota(places: Places) -> tuple[str, str]:
    quota = Groups(places.proc, places.sys, "cpu").cpus()
    if math.isinf(quota):
        return "no limit", ""
    cure = "" if quota >= len(_usable()) else "whole cores instead of a share of time: docker --cpuset-cpus"
    return f"{quota:g} cores' worth of time", cure


def _throttling(places: Places) -> tuple[str, str]:
    throttled, periods = Groups(places.proc, places.sys, "cpu").throttled()
    cure = "fewer threads than the limit allows, or a higher limit: docker --cpus" if throttled else ""
    return f"throttled in {throttled:,} of {periods:,} periods", cure


def _memory_limit(places: Places) -> tuple[str, str]:
    limit = Groups(places.proc, places.sys, "memory").memory_bytes()
    if math.isinf(limit):
        return "no limit", ""
    return _gib(limit), "" if limit >= NEEDED_BYTES else f"at least {_gib(NEEDED_BYTES)}: docker --memory"


def _memory(_: Places) -> tuple[str, str]:
    memory = psutil.virtual_memory()
    needed = _gib(NEEDED_BYTES)
    cure = "" if memory.available >= NEEDED_BYTES else f"end processes that use memory, until {needed} are available"
    return f"{_gib(memory.available)} available of {_gib(memory.total)}", cure


def _swap(_: Places) -> tuple[str, str]:
    swap = psutil.swap_memory()
    cure = "free memory, then sudo swapoff --all && sudo swapon --all" if swap.used else ""
    return f"{_gib(swap.used)} used of {_gib(swap.total)}" if swap.total else "none", cure


def _autogroup(places: Places) -> tuple[str, str]:
    file = places.proc / "sys/kernel/sched_autogroup_enabled"
    if not int(file.read_text()):
        return "off", ""
    return "on: a neighbour's nice value has effect in its own session only", f"echo 0 | sudo tee {file}"


CHECKS: dict[str, Check] = {
    "governor": _governor,
    "turbo": _turbo,
    "SMT": _smt,
    "clock source": _clock,
    "affinity": _affinity,
    "threads": _threads,
    "load": _load,
    NEIGHBOURS: _neighbours,
    "steal": _steal,
    "CPU limit": _quota,
    "throttling": _throttling,
    "memory limit": _memory_limit,
    "memory": _memory,
    "swap": _swap,
    "autogroup": _autogroup,
}
"""All checks, in the order of the report."""


def _usable() -> list[int]:
    """Return the cores that this process may run on."""
    return sorted(psutil.Process().cpu_affinity())


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
