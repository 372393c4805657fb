"""What the machine did meanwhile: read from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnperf import disturbance
from cnnperf.disturbance import Disturbance, read, run_delay_s


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a folder in the place of /proc and /sys."""
    monkeypatch.setattr(disturbance, "PROC_STAT", tmp_path / "stat")
    monkeypatch.setattr(disturbance, "THROTTLING", (tmp_path / "two", tmp_path / "one"))
    monkeypatch.setattr(disturbance, "FREQUENCIES", tmp_path / "cpu")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "content"), [("two", "nr_periods 5\nthrottled_usec 2500000\n"), ("one", "throttled_time 2500000000\n")]
)
def test_counters_become_seconds(kernel: Path, file: str, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steal in clock ticks, throttling under either version of control groups, frequency in kilohertz."""
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    (kernel / "stat").write_text("cpu  1 2 3 4 5 6 7 800 9 0\ncpu0 …\n")
    (kernel / file).write_text(content)
    for core, kilohertz in enumerate((2_000_000, 3_000_000)):
        (kernel / f"cpu/cpu{core}/cpufreq").mkdir(parents=True)
        (kernel / f"cpu/cpu{core}/cpufreq/scaling_cur_freq").write_text(f"{kilohertz}\n")
    reading = read()
    assert (reading.steal_s, reading.throttled_s, reading.frequency_hz) == (8.0, 2.5, 2.5e9)
    (kernel / "stat").write_text("cpu  1 2 3 4 5 6 7 900 9 0\n")
    since = Disturbance.since(reading)
    assert (since.steal_s, since.throttled_s) == (1.0, 0.0)


def test_what_the_system_does_not_tell_is_absent(kernel: Path) -> None:
    """No file, no number."""
    since = Disturbance.since(read())
    assert (since.steal_s, since.throttled_s, since.frequency_hz) == (None, None, None)


def test_waiting_for_a_core_never_goes_down() -> None:
    """A counter, where there is one."""
    first, second = run_delay_s(), run_delay_s()
    assert (first is None) == (second is None)
    assert first is None or second is None or 0 <= first <= second


def test_several_stretches_are_summed_up() -> None:
    """The load is the highest; what the system does not tell stays untold."""
    one = Disturbance(seconds=1.0, load=1.0, steal_s=0.1, throttled_s=None, frequency_hz=2e9)
    other = Disturbance(seconds=3.0, load=2.0, steal_s=None, throttled_s=None, frequency_hz=4e9)
    assert Disturbance.over([one, other]) == Disturbance(4.0, 2.0, 0.1, None, 3e9)
    assert Disturbance.over([]) == Disturbance(0, None, None, None, None)
