"""Disturbances during a measurement, read from files in the kernel's format."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from cnnperf.machine import disturbance
from cnnperf.machine.disturbance import Disturbance, disturbed, is_disturbing, read_counters, run_delay_s
from cnnperf.record import Measurement, single

GROUPS = {
    "version 2": {
        "proc/self/cgroup": "0::/job\n",
        "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
        "sys/fs/cgroup/cpu.stat": "usage_usec 9\n",
        "sys/fs/cgroup/job/cpu.stat": "nr_periods 5\nthrottled_usec 2500000\n",
    },
    "version 1": {
        "proc/self/cgroup": "1:cpu,cpuacct:/job\n",
        "sys/fs/cgroup/cpu/cpu.stat": "throttled_time 0\n",
        "sys/fs/cgroup/cpu/job/cpu.stat": "throttled_time 2500000000\n",
    },
}


@pytest.fixture
def kernel(tree: Callable[[Mapping[str, str]], Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that replaces /proc and /sys by a folder with the given files."""

    def lay(files: Mapping[str, str] = {}) -> Path:
        root = tree(files)
        monkeypatch.setattr(disturbance, "PROC", root / "proc")
        monkeypatch.setattr(psutil, "PROCFS_PATH", str(root / "proc"))
        monkeypatch.setattr(disturbance, "SYS", root / "sys")
        return root

    return lay


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_counters_become_seconds(
    kernel: Callable[..., Path], groups: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steal and throttling are read in seconds, and the frequency in hertz, under either version of control groups."""
    monkeypatch.setattr(psutil, "cpu_freq", lambda: SimpleNamespace(current=2500.0))
    second = os.sysconf("SC_CLK_TCK")
    root = kernel({**groups, "proc/stat": f"cpu  1 2 3 4 5 6 7 {8 * second} 9 0\ncpu0 …\n"})
    reading = read_counters()
    assert (reading.steal_s, reading.throttled_s, reading.frequency_hz) == (8.0, 2.5, 2.5e9)
    (root / "proc/stat").write_text(f"cpu  1 2 3 4 5 6 7 {9 * second} 9 0\n")
    since = Disturbance.since(reading)
    assert (since.steal_s, since.throttled_s) == (1.0, 0.0)


def test_a_stop_by_any_of_the_groups_counts(kernel: Callable[..., Path]) -> None:
    """Throttling of any group counts, even if another group has been throttled for longer before."""
    files = {**GROUPS["version 2"], "sys/fs/cgroup/cpu.stat": "throttled_usec 9000000\n"}
    root = kernel(files)
    before = read_counters()
    (root / "sys/fs/cgroup/job/cpu.stat").write_text("throttled_usec 3500000\n")
    assert Disturbance.since(before).throttled_s == pytest.approx(1.0)


def test_what_the_system_does_not_tell_is_absent(kernel: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters that the system lacks are None, and so is the frequency if psutil has none."""
    kernel()
    monkeypatch.setattr(psutil, "cpu_freq", lambda: None)
    since = Disturbance.since(read_counters())
    assert (since.steal_s, since.throttled_s, since.frequency_hz) == (None, None, None)


def test_waiting_for_a_core_never_goes_down() -> None:
    """The seconds of waiting for a core, if the system counts them, never decrease."""
    first, second = run_delay_s(), run_delay_s()
    assert (first is None) == (second is None)
    assert first is None or second is None or 0 <= first <= second


def test_several_stretches_are_summed_up() -> None:
    """Over several periods, times are added, the load is the highest, and unknown figures stay unknown."""
    one = Disturbance(seconds=1.0, load=1.0, steal_s=0.1, throttled_s=None, frequency_hz=2e9)
    other = Disturbance(seconds=3.0, load=2.0, steal_s=None, throttled_s=None, frequency_hz=4e9)
    assert Disturbance.over([one, other]) == Disturbance(4.0, 2.0, 0.1, None, 3e9)
    assert Disturbance.over([]) == Disturbance(0, None, None, None, None)


def threads(waits: Mapping[int, int]) -> dict[str, str]:
    """Return the files of threads that have waited this many nanoseconds for a core."""
    return {f"proc/self/task/{number}/schedstat": f"5000 {waited} 3\n" for number, waited in waits.items()}


def test_the_thread_that_waited_longest_counts(kernel: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of waiting is that of the thread with the longest wait between two readings; new threads count too."""
    clock = iter((10.0, 12.0, 10.0, 11.0))
    monkeypatch.setattr(disturbance, "monotonic", lambda: next(clock))
    root = kernel(threads({1: 7_000_000_000, 2: 100_000_000}))
    before = read_counters()
    for file, text in threads({1: 7_200_000_000, 2: 900_000_000}).items():
        (root / file).write_text(text)
    since = Disturbance.since(before)
    assert (since.waited_s, since.shares) == (pytest.approx(0.8), {"waited_share": pytest.approx(0.4)})
    before = read_counters()
    (root / "proc/self/task/3").mkdir()
    (root / "proc/self/task/3/schedstat").write_text("1 300000000 1\n")
    assert Disturbance.since(before).shares == {"waited_share": pytest.approx(0.3)}


def test_waits_of_the_threads_of_this_process_are_read() -> None:
    """On Linux each thread of this process has a wait, which never decreases."""
    first, second = read_counters().waited_s, read_counters().waited_s
    assert (first is None) == (second is None)
    assert first is None or second is None or all(second[thread] >= first[thread] for thread in first.keys() & second)


def timed(**shares: float) -> Measurement:
    """Return a timed measurement with these shares of lost time."""
    return single("infer.latency", "s", 0.1, "lower", dict(shares))


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ([], None),
        ([{}], None),
        ([{"stolen_share": 0.0}], None),
        ([{"waited_share": 0.05}], "no"),
        ([{"waited_share": 0.051}], "a thread waited for a core for 5.1 % of the time"),
        ([{"waited_share": 0.0}, {}, {"waited_share": 0.5}], "a thread waited for a core for 50.0 % of the time"),
        ([{"throttled_share": 0.2}], "the cgroup's quota stopped it for 20.0 % of the time"),
        (
            [{"waited_share": 0.3, "stolen_share": 0.1, "throttled_share": 0.0}],
            "a thread waited for a core for 30.0 % of the time; the hypervisor took 10.0 % of the processor time",
        ),
    ],
)
def test_one_rule_decides_what_is_disturbed(measured: list[dict[str, float]], said: str | None) -> None:
    """A measurement is disturbed above 5 % of lost time; without a known wait it is not known to be undisturbed."""
    words = disturbed(timed(**shares) for shares in measured)
    assert words == said
    assert is_disturbing(words) == (said not in (None, "no"))
