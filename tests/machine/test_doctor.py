"""The report on the machine, read from trees of /proc and /sys: each subject is fine, has a cure or is unreadable."""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from cnnperf.machine import doctor
from cnnperf.machine.doctor import CHECKS, Finding, Places, examine

Tree = Callable[[dict[str, str]], Path]

CPU = "sys/devices/system/cpu"
CLOCK = "sys/devices/system/clocksource/clocksource0"
MEMORY = (
    "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\nMemFree: 0 kB\nBuffers: 0 kB\nCached: 0 kB\n"
    "Active: 0 kB\nInactive: 0 kB\nShmem: 0 kB\n"
    "SwapTotal: 0 kB\nSwapFree: 0 kB\n"
)
QUIET = {
    f"{CPU}/cpu0/cpufreq/scaling_governor": "performance\n",
    f"{CPU}/cpu1/cpufreq/scaling_governor": "performance\n",
    f"{CPU}/intel_pstate/no_turbo": "1\n",
    f"{CPU}/smt/active": "0\n",
    f"{CPU}/smt/control": "off\n",
    f"{CPU}/online": "0-1\n",
    f"{CLOCK}/current_clocksource": "tsc\n",
    f"{CLOCK}/available_clocksource": "tsc hpet acpi_pm \n",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    "sys/fs/cgroup/cpu.stat": "usage_usec 1\nnr_periods 0\nnr_throttled 0\n",
    "proc/self/cgroup": "0::/\n",
    "affinity": "0 1",
    "loads": "0.04 0.20 0.30",
    "proc/stat": "cpu  900 0 95 5000 9 0 0 5 0 0\ncpu0 1 2\n",
    "proc/meminfo": MEMORY,
    "proc/vmstat": "pswpin 0\npswpout 0\n",
    "proc/sys/kernel/sched_autogroup_enabled": "0\n",
}
"""A machine with nothing to be said against it; `affinity` and `loads` stand for what psutil asks the kernel itself."""


def found(root: Path, **environment: str) -> dict[str, Finding]:
    """Return the findings on a tree, which psutil reads too."""

    def numbers(file: str) -> list[float]:
        return [float(word) for word in (root / file).read_text().split()]

    def here() -> SimpleNamespace:
        return SimpleNamespace(cpu_affinity=lambda: list(map(int, numbers("affinity"))))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psutil, "PROCFS_PATH", str(root / "proc"))
        patch.setattr(psutil, "getloadavg", lambda: tuple(numbers("loads")))
        patch.setattr(psutil, "Process", here)
        patch.setattr(doctor, "WATCH_S", 0.0)
        places = Places(root / "proc", root / "sys", environment)
        return {finding.subject: finding for finding in examine(places)}


def test_a_quiet_machine_is_fine_throughout(tree: Tree) -> None:
    """On a quiet machine every subject is fine; its line has the value and no cure."""
    findings = found(tree(QUIET))
    assert [finding.mark for finding in findings.values()] == ["✓"] * len(CHECKS)
    assert str(findings["steal"]) == "✓ steal        0.5 % of the time worked since boot went to other guests"
    assert findings["memory"].read == "4.0 GiB available of 8.0 GiB"
    assert findings["affinity"].read == "cores 0-1, all of those online"
    assert findings["swap"].read == "none"
    assert findings["threads"].read == "2 usable cores; no variable of OpenMP set"


@pytest.mark.parametrize(
    ("subject", "files", "read", "cure"),
    [
        ("governor", {f"{CPU}/cpu1/cpufreq/scaling_governor": "powersave"}, "performance, powersave", "cpupower"),
        ("turbo", {f"{CPU}/intel_pstate/no_turbo": "0"}, "on", "echo 1 | sudo tee /"),
        ("SMT", {f"{CPU}/smt/active": "1", f"{CPU}/smt/control": "on"}, "on", "echo off"),
        ("clock source", {f"{CLOCK}/current_clocksource": "hpet"}, "hpet", "echo tsc | sudo tee /"),
        (
            "clock source",
            {f"{CLOCK}/current_clocksource": "hpet", f"{CLOCK}/available_clocksource": "hpet"},
            "hpet",
            "offers tsc",
        ),
        ("affinity", {"affinity": "1"}, "cores 1 of 0-1 online", "two cores"),
        ("CPU limit", {"affinity": "3 0 1 8", "sys/fs/cgroup/cpu.max": "350000 100000"}, "3.5 cores", "whole cores"),
        ("load", {"loads": "6.26855 0.2 0.3"}, "6.3 over the last minute", "ps -eo"),
        ("steal", {"proc/stat": "cpu 90 0 0 500 0 0 0 10 0 0"}, "10 % of the time worked", "fewer guests"),
        ("CPU limit", {"sys/fs/cgroup/cpu.max": "150000 100000"}, "1.5 cores", "whole cores"),
        ("throttling", {"sys/fs/cgroup/cpu.stat": "nr_periods 9000\nnr_throttled 1000"}, "1,000 of 9,000", "--cpus"),
        ("memory limit", {"sys/fs/cgroup/memory.max": "1073741824"}, "1.0 GiB", "at least 2.0 GiB"),
        (
            "memory",
            {"proc/meminfo": MEMORY.replace("8388608", "2097152").replace("4194304", "1048576")},
            "1.0 GiB available of 2.0 GiB",
            "end processes that use memory",
        ),
        (
            "swap",
            {"proc/meminfo": MEMORY + "SwapTotal: 2097152 kB\nSwapFree: 524288 kB\n"},
            "1.5 GiB used of 2.0",
            "swapoff",
        ),
        ("autogroup", {"proc/sys/kernel/sched_autogroup_enabled": "1"}, "on", "echo 0 | sudo tee /"),
    ],
)
def test_what_disturbs_is_named_with_its_cure(
    tree: Tree, subject: str, files: dict[str, str], read: str, cure: str
) -> None:
    """A disturbance has a line with its value and its cure."""
    finding = found(tree(QUIET | files))[subject]
    assert finding.mark == "✗"
    assert read in finding.read
    assert cure in str(finding).partition("; cure: ")[2]


def test_a_system_without_stolen_time_is_not_told(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line on stolen time says `not readable here` if the system does not count it."""
    times = namedtuple("times", "user nice system idle")(9.0, 0.0, 1.0, 90.0)
    monkeypatch.setattr(psutil, "cpu_times", lambda: times)
    assert str(found(tree(QUIET))["steal"]) == "? steal        not readable here"


def test_what_cannot_be_read_is_said_and_not_guessed(tree: Tree) -> None:
    """Every subject is unreadable if its file is missing or meaningless, except that any word counts as a name."""
    nothing, nonsense = found(tree({})), found(tree(dict.fromkeys(QUIET, "? ?\n")))
    assert {str(finding) for finding in nothing.values()} == {f"? {name:12} not readable here" for name in CHECKS}
    plain_words = {"governor", "clock source"}  # Any word is a name.
    assert {name for name, finding in nonsense.items() if finding.mark != "?"} <= plain_words


def test_turbo_of_other_drivers_is_told_the_other_way_round(tree: Tree) -> None:
    """Turbo is off with `boost` 0 of other drivers, where Intel's `no_turbo` is 1."""
    other = {name: text for name, text in QUIET.items() if "no_turbo" not in name}
    assert found(tree(other | {f"{CPU}/cpufreq/boost": "0\n"}))["turbo"].mark == "✓"
    assert "echo 0 |" in found(tree(other | {f"{CPU}/cpufreq/boost": "1\n"}))["turbo"].cure


@pytest.mark.parametrize(
    ("value", "cure"), [("2", ""), ("1,4", ""), ("3", "unset OMP_NUM_THREADS"), ("many", "unset OMP_NUM_THREADS")]
)
def test_more_threads_than_cores_are_to_be_cured(tree: Tree, value: str, cure: str) -> None:
    """OMP_NUM_THREADS above the number of cores needs a cure; of nested values the outermost counts."""
    finding = found(tree(QUIET), OMP_NUM_THREADS=value, OMP_WAIT_POLICY="PASSIVE")["threads"]
    assert f"OMP_NUM_THREADS={value}, OMP_WAIT_POLICY=PASSIVE" in finding.read
    assert finding.cure == cure


def test_a_share_of_time_counts_against_the_threads(tree: Tree) -> None:
    """A quota of one core's time leaves one usable core, whatever the affinity."""
    root = tree(QUIET | {"sys/fs/cgroup/cpu.max": "100000 100000"})
    assert found(root)["threads"].read.startswith("1 usable core;")


def test_cores_are_listed_as_the_kernel_lists_them(tree: Tree) -> None:
    """Consecutive cores are listed as ranges."""
    assert found(tree(QUIET | {"affinity": "8 0 1 2 3 5", f"{CPU}/online": "0-8"}))["affinity"].read == (
        "cores 0-3,5,8 of 0-8 online"
    )


def test_this_machine_is_examined_too() -> None:
    """Each subject is examined once, in order; load, steal, memory and affinity are readable."""
    findings = examine()
    assert [finding.subject for finding in findings] == list(CHECKS)
    readable = {finding.subject for finding in findings if finding.read != doctor.UNREADABLE}
    assert {"load", "steal", "memory", "affinity"} <= readable


SECOND = os.sysconf("SC_CLK_TCK")
"""Ticks of the clock in a second."""


def stat(**cores: float) -> str:
    """Return /proc/stat of a machine whose cores have worked for these seconds, half of that in the kernel."""
    times = {"cpu": 0.0} | cores
    return "".join(
        f"{name} {int(SECOND * s / 2)} 0 {int(SECOND * s / 2)} 900 0 0 0 0 0 0\n" for name, s in times.items()
    )


def watched(root: Path, monkeypatch: pytest.MonkeyPatch, own_s: float = 0.0, **after: float) -> Finding:
    """Return the finding on the work of others, of a second after which the cores have worked for these seconds."""
    own, clock = iter((0.0, own_s)), iter((0.0, 1.0))
    monkeypatch.setattr(doctor, "sleep", lambda _: (root / "proc/stat").write_text(stat(**after)))
    monkeypatch.setattr(doctor, "process_time", lambda: next(own))
    monkeypatch.setattr(doctor, "monotonic", lambda: next(clock))
    return found(root)["neighbours"]


def test_others_that_work_are_seen_within_a_second(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work of others on the usable cores is measured in cores; this process and cores out of reach do not count."""
    root = tree(QUIET | {"proc/stat": stat(cpu0=10, cpu1=20, cpu7=0)})
    finding = watched(root, monkeypatch, own_s=0.5, cpu0=11, cpu1=21, cpu7=1)
    assert (finding.mark, finding.read) == ("✗", "1.5 of 2 usable cores busy with other work")
    assert finding.cure.startswith("end other processes")


def test_others_may_work_where_cores_are_left_over(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a quota of one of two cores, one busy core leaves all that is needed; two do not."""
    quota = {"proc/stat": stat(cpu0=10, cpu1=20), "sys/fs/cgroup/cpu.max": "100000 100000"}
    assert watched(tree(QUIET | quota), monkeypatch, cpu0=11, cpu1=20).mark == "✓"
    assert watched(tree(QUIET | quota), monkeypatch, cpu0=11, cpu1=21).mark == "✗"


def test_a_machine_is_awaited_until_it_is_quiet_or_the_limit_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting ends with the first quiet second, or after the limit."""
    now = [0.0]
    looks: list[str | None] = ["2.0 of 2 usable cores busy with other work"] * 3 + [None]
    monkeypatch.setattr(doctor, "monotonic", lambda: now[0])
    monkeypatch.setattr(doctor, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(doctor, "busy", lambda: looks[min(int(now[0] // doctor.BETWEEN_LOOKS_S), len(looks) - 1)])
    assert doctor.becomes_quiet(100.0)
    assert now[0] == 3 * doctor.BETWEEN_LOOKS_S
    now[0] = 0.0
    looks.pop()
    assert not doctor.becomes_quiet(10.0)
    assert 10.0 < now[0] <= 10.0 + doctor.BETWEEN_LOOKS_S
