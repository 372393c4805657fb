"""The timing of a callable."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnperf.machine.disturbance import Disturbance
from cnnperf.record import Measurement
from cnnperf.timing import sampling
from cnnperf.timing.sampling import Plan, Sample, Samples, Usage, calibrated, is_steady, sample, take, usage

QUIET = Disturbance(seconds=1.0, load=0.1, steal_s=0.0, throttled_s=0.0, frequency_hz=None)


def spin(seconds: float) -> Callable[[], None]:
    """Return a callable that keeps a core busy for this CPU time."""

    def call() -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    return call


def nothing() -> None:
    """Do nothing."""


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace the real clocks by one that the test moves."""
    time_s = [0.0]
    monkeypatch.setattr(sampling, "perf_counter", lambda: time_s[0])
    monkeypatch.setattr(sampling, "perf_counter_ns", lambda: round(1e9 * time_s[0]))
    return time_s


def costing(now: list[float], costs: Iterator[float]) -> Callable[[], None]:
    """Return a callable that advances the clock by the next of the costs."""

    def call() -> None:
        now[0] += next(costs)

    return call


def test_a_sample_has_what_was_counted_since_its_start() -> None:
    """A sample has the difference of each counter, and None where a reading lacks it."""
    before, after = Usage(1_000_000_000, 3, 0.5, 10), Usage(5_000_000_000, 7, 2.0, 50)
    assert after.since(before, 9.0) == Sample(9.0, 4.0, 4, 1.5, 40)
    assert after.since(before._replace(waited_s=None), 9.0).waited_s is None
    assert after._replace(waited_s=None).since(before, 9.0).waited_s is None


def test_a_sample_is_long_against_the_clock() -> None:
    """A sample repeats a short call many times; `take` waits for the device once, `sample` after each call."""
    calls = waits = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    def wait() -> None:
        nonlocal waits
        waits += 1

    samples = sample(call, wait, Plan(samples=3, seconds=0.0, warmup_samples=0, warmup_s=5.0))
    assert samples.calls > 100
    assert len(samples.times) == samples.calls
    assert samples.calls <= waits < calls
    before = waits
    one = take(call, samples.calls, wait)
    assert waits == before + 1
    assert one.wall_s > 0


def test_warm_up_ends_when_it_is_steady(now: list[float]) -> None:
    """Slow first calls are kept in the warm-up and not counted in the samples."""
    costs = iter([0.5] + [0.012 + 0.1 / n for n in range(1, 40)] + [0.0121] * 1000)
    samples = sample(costing(now, costs), nothing, Plan(samples=20, seconds=0.1))
    assert samples.steady
    assert len(samples.warmup) > 10
    assert max(samples.call_s) < 0.02
    assert len(samples.values) == 20


def test_what_is_never_steady_is_said(now: list[float]) -> None:
    """A warm-up that never becomes steady ends at its limit, and a remark says so."""
    costs = (0.012 * 1.05**n for n in range(10_000))
    samples = sample(costing(now, costs), nothing, Plan(samples=5, seconds=0.1, warmup_s=2.0))
    assert not samples.steady
    assert samples.remark.startswith("not steady after ")


def test_no_time_to_warm_up_is_one_sample() -> None:
    """With a warm-up of 0 seconds one sample is a warm-up, not known to be steady, and the others count."""
    samples = sample(spin(0.001), nothing, Plan(samples=3, seconds=0.0, warmup_s=0.0))
    assert (len(samples.warmup), samples.steady) == (1, False)
    assert len(samples.times) == samples.calls * len(samples.values) >= 3


def test_no_counter_is_read_between_calls(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call is timed by the clock alone; the counters are read around the ten calls that fill a sample."""
    done: list[str] = []
    costs = itertools.repeat(0.001)

    def call() -> None:
        done.append("call")
        now[0] += next(costs)

    def read() -> Usage:
        done.append("read")
        return Usage(0, 0, None, 0)

    monkeypatch.setattr(sampling, "usage", read)
    samples = sample(call, nothing, Plan(samples=20, seconds=0.0))
    assert samples.times == pytest.approx([0.001] * 20)
    assert [each.wall_s for each in samples.values] == pytest.approx([0.010] * 2)
    assert done[-24:] == ["read", *["call"] * 10, "read"] * 2


@pytest.mark.parametrize(("count", "seconds", "taken"), [(30, 0.1, 30), (5, 1.0, 100)])
def test_both_the_count_and_the_time_are_reached(now: list[float], count: int, seconds: float, taken: int) -> None:
    """Sampling ends when both the count and the time are reached."""
    samples = sample(costing(now, iter([0.0100001] * 10_000)), nothing, Plan(samples=count, seconds=seconds))
    assert len(samples.values) == taken


def test_garbage_is_collected_once_before_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Garbage is collected before the first call, and the collector is off until the last call has ended."""
    done: list[str] = []
    steps = {"collect": "collected", "disable": "off", "enable": "on"}
    counting = {name: partial(done.append, word) for name, word in steps.items()}
    monkeypatch.setattr(sampling, "gc", SimpleNamespace(isenabled=gc.isenabled, **counting))
    sample(lambda: done.append("called"), nothing, Plan(samples=1, seconds=0.0, warmup_s=0.1))
    assert [word for word in done if word != "called"] == ["collected", "off", "on"]
    assert (done[:3], done[-2:]) == (["collected", "off", "called"], ["called", "on"])


def test_the_collector_is_off_within_and_as_it_was_after() -> None:
    """The collector is off during sampling and then restored, also where the call raises."""
    seen: list[bool] = []
    plan = Plan(samples=1, seconds=0.0, warmup_s=0.1)
    sample(lambda: seen.append(gc.isenabled()), nothing, plan)
    assert not any(seen)
    assert gc.isenabled()

    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        sample(fail, nothing)
    assert gc.isenabled()
    gc.disable()
    try:
        sample(nothing, nothing, plan)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_cpu_time_is_told_from_wall_time() -> None:
    """A sleep takes wall time and little CPU time; a busy loop takes CPU time."""
    slept, span = take(lambda: time.sleep(0.05), 1, nothing), take(spin(0.05), 1, nothing)
    assert slept.cpu_s < 0.5 * slept.wall_s
    assert span.cpu_s >= 0.05


def test_calibration_estimates_the_number_from_one_call(now: list[float]) -> None:
    """Calls of a millisecond take two trials: one call, then the ten that fill ten milliseconds."""
    costs = iter([0.001] * 11)
    assert calibrated(costing(now, costs), nothing, 0.010) == 10


def test_calls_that_become_faster_are_counted_anew(now: list[float]) -> None:
    """Calls that take a tenth once warm get samples of eleven calls: 5 % more than fill ten milliseconds."""
    costs = itertools.chain([0.010001], itertools.repeat(0.001))
    assert sample(costing(now, costs), nothing, Plan(samples=5, seconds=0.0)).calls == 11


@given(st.lists(st.floats(1e-6, 1e3), max_size=30))
def test_calibration_only_ever_adds_calls(costs: list[float]) -> None:
    """Calibration ends with a sample of at least ten milliseconds, whatever the calls cost."""
    remaining = iter(costs)
    lengths: list[float] = []

    def fake(call: object, calls: int, wait: object) -> Sample:
        lengths.append(calls * next(remaining, 0.001))
        return Sample(lengths[-1], 0.0, 0, None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "take", fake)
        assert calibrated(nothing, nothing, 0.010, 2) >= 2
    assert lengths[-1] >= 0.010


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([1.0] * 9, False),
        ([1.0] * 10, True),
        ([1.2] * 5 + [1.0] * 5, False),
        ([1.0] * 5 + [1.09] * 5, True),
        ([1.2] * 3 + [1.0] * 7, False),
    ],
)
def test_what_is_steady(times: list[float], expected: bool) -> None:
    """Times are steady if the medians of two spans of five lie within 10 %, in either direction."""
    assert is_steady(times) is expected
    assert is_steady(times[::-1]) is expected


def disturbed(**changes: float) -> Samples:
    """Return samples of which one in ten waited for a core, with these changes of the disturbance."""
    values = tuple(Sample(0.02, 0.01, 1, 0.005 if index % 10 == 0 else 0.0) for index in range(100))
    fields = {name: getattr(QUIET, name) for name in Disturbance.__slots__} | changes
    return Samples(2, values, values[:10], True, Disturbance(**fields))


def test_what_disturbed_it_is_said_in_words() -> None:
    """The remark names lost cores, stolen and throttled time and high load, and is empty without any."""
    assert disturbed().remark == "the main thread lost the CPU for > 1 ms in 10 % of samples"
    words = disturbed(steal_s=1.0, throttled_s=0.2, load=1000.0).remark
    for word in ("the hypervisor took", "quota stopped it for 20.0 % of the time", "the load was 1000.0 on"):
        assert word in words
    calm = (Sample(0.02, 0.02, 0, None),)
    assert Samples(1, calm, calm, True, QUIET).remark == ""


@pytest.mark.parametrize(("lost", "share"), [(1, "< 1 %"), (49, "< 1 %"), (50, "1 %"), (5000, "100 %")])
def test_a_few_lost_samples_are_not_called_one_in_a_hundred(lost: int, share: str) -> None:
    """Fewer than 50 lost samples of 5,000 are written as < 1 %."""
    values = tuple(Sample(0.02, 0.02, 0, 0.005 if index < lost else 0.0) for index in range(5000))
    assert (
        Samples(1, values, values[:1], True, QUIET).remark
        == f"the main thread lost the CPU for > 1 ms in {share} of samples"
    )


def test_without_a_warm_up_there_is_none_in_the_record() -> None:
    """Samples without a warm-up give no measurement of it."""
    calm = (Sample(0.02, 0.02, 0, None),)
    found = {m.metric for m in Samples(1, calm, (), True, QUIET).measurements("train.step_time")}
    assert found == {f"train.step_time{end}" for end in ("", "_cpu", "_switches", "_load", "_steal", "_throttled")}


def test_usage_tells_what_happened_since_an_earlier_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Usage gives the CPU time and the waited time since a reading, or None if the system lacks it."""
    delays: Iterator[float | None] = iter([1.0, 1.25, None])
    monkeypatch.setattr(sampling, "run_delay_s", lambda: next(delays))
    before = usage()
    spin(0.02)()
    found = usage().since(before, 7.0)
    assert (found.wall_s, found.waited_s) == (7.0, 0.25)
    assert found.cpu_s >= 0.02
    assert found.switches >= 0
    assert usage().since(before, 1.0).waited_s is None


def test_measurements_carry_everything_in_order() -> None:
    """The measurements have times per call, CPU time, switches and warm-up; an unknown frequency is absent."""
    found = {m.metric: m for m in disturbed().measurements("infer.latency", engine="torch")}
    latency = found["infer.latency"]
    assert (latency.unit, latency.better, latency.values) == ("s", "lower", (0.01,) * 100)
    assert latency.tags == {"engine": "torch"}
    words = "the main thread lost the CPU for > 1 ms in 10 % of samples"
    assert latency.remarks == {"calls": 2, "disturbed": words, "stolen_share": 0.0, "throttled_share": 0.0}
    assert found["infer.latency_cpu"].values == (0.005,) * 100
    assert found["infer.latency_switches"].values == (1,) * 100
    assert found["infer.latency_warmup"].values == (0.01,) * 10
    assert "infer.latency_frequency" not in found
    assert all(isinstance(m, Measurement) and m.tags == {"engine": "torch"} for m in found.values())
