"""The difference of a replicate, and the flags of replicates that are not reliable."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnperf.duet.schedule import Played
from cnnperf.ipc.messages import Opened, Taken
from cnnperf.machine.disturbance import Disturbance
from cnnperf.machine.fingerprint import fingerprint
from cnnperf.regression.ratios import Noise, difference, drifted, pairs, series
from cnnperf.regression.rule import Rule, decide
from cnnperf.sides import SIDES, Both
from cnnperf.timing.sampling import Sample

QUIET = Disturbance(seconds=1.0, load=0.0, steal_s=0.0, throttled_s=None, frequency_hz=None)
HERE = fingerprint()
OPENED = Opened(outputs={}, settings={}, source=None)


def replicate(ratios: Sequence[float], *, common: Sequence[float] | None = None, steady: bool = True) -> Played:
    """Return a replicate with these log ratios of its pairs; `common` moves both sides of a pair."""
    both: list[list[Sample]] = [[], []]
    for ratio, moved in zip(ratios, common or [0.0] * len(ratios), strict=True):
        for samples, log in zip(both, (moved, moved + ratio), strict=True):
            time = 0.01 * math.exp(log)
            samples.append(Sample(time, 0.9 * time, 0, 0.0))
    one, other = (
        Taken(samples=tuple(samples), warmup=(), steady=steady, blocked_s=1.0, blocked_cpu_s=0.0) for samples in both
    )
    return Played(SIDES * len(ratios), Both(one, other), Both(OPENED, OPENED), Both(HERE, HERE), QUIET, 0.0)


def noise(seed: int, pairs: int = 60, deviation: float = 0.01) -> list[float]:
    """Return log ratios that scatter without a drift."""
    dice = random.Random(seed)
    return [dice.gauss(0, deviation) for _ in range(pairs)]


def stepped(ratios: Sequence[float], by: float) -> list[float]:
    """Return the ratios, the second half of them shifted."""
    return [ratio + by * (index >= len(ratios) // 2) for index, ratio in enumerate(ratios)]


@given(st.integers(0, 10_000), st.sampled_from([12, 30, 60]), st.floats(-1, 1))
def test_a_ratio_that_moves_within_the_replicate_is_flagged(seed: int, pairs: int, change: float) -> None:
    """A shift of forty standard deviations is flagged, in either direction and whatever the change of the candidate."""
    ratios = [change + each for each in noise(seed, pairs, 0.005)]
    assert drifted(replicate(stepped(ratios, 0.2)))
    assert drifted(replicate(stepped(ratios, -0.2)))


@given(st.integers(0, 10_000), st.floats(0, 3))
def test_what_moves_both_sides_is_no_drift(seed: int, drift: float) -> None:
    """A drift of the machine changes neither the difference nor the flag."""
    ratios = noise(seed)
    common = [drift * index / len(ratios) for index in range(len(ratios))]
    assert drifted(replicate(ratios, common=common)) == drifted(replicate(ratios))
    assert difference(replicate(ratios, common=common)) == pytest.approx(difference(replicate(ratios)), abs=1e-12)


def test_replicates_that_only_scatter_are_seldom_flagged() -> None:
    """At most 5 of 500 replicates without a drift are flagged."""
    assert sum(drifted(replicate(noise(seed))) for seed in range(500)) <= 5


def test_a_replicate_is_flagged_for_either_reason() -> None:
    """A replicate that drifted or never became steady is flagged in the series."""
    quiet = noise(1)
    played = [replicate(quiet), replicate(stepped(quiet, 0.1)), replicate(quiet, steady=False)]
    found = series(played)
    assert found.flagged == (False, True, True)
    assert found.differences == tuple(map(difference, played))
    counted = Noise.of([played])
    assert (counted.drifted, counted.unsteady, counted.replicates) == (1, 1, 3)
    assert "drift 1/3, not steady 1/3" in str(counted)


def test_stolen_time_is_a_share_of_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of stolen time counts all cores of the system, not only those of the process."""
    monkeypatch.setattr("cnnperf.regression.ratios.os.cpu_count", lambda: 4)
    stolen = replicate(noise(1))._replace(disturbance=dataclasses.replace(QUIET, steal_s=0.2))
    assert Noise.of([[stolen]]).steal == pytest.approx(0.05)


def test_samples_that_lost_the_processor_are_counted() -> None:
    """The noise has the share of samples whose main thread waited for a core for more than 1 ms."""
    played = replicate(noise(1, pairs=10))
    first, *others = played.taken.baseline.samples
    waiting = played.taken.baseline.model_copy(update={"samples": (first._replace(waited_s=0.002), *others)})
    counted = Noise.of([[played._replace(taken=Both(waiting, played.taken.candidate))]])
    assert counted.lost == pytest.approx(1 / 20)
    assert "lost the CPU for > 1 ms 5 %" in str(counted)


def test_the_noise_is_that_of_replicates_and_not_of_single_pairs() -> None:
    """The noise is the scatter between the medians of the replicates, and is named so."""
    counted = Noise.of([[replicate(noise(seed, deviation=0.1)) for seed in range(20)]])
    assert counted.between_replicates is not None
    assert 0.005 < counted.between_replicates < 0.03
    assert f", replicates {100 * counted.between_replicates:.2g} %, " in str(counted)
    assert "pair" not in str(counted)


@pytest.mark.parametrize(("share", "words"), [(1.0, "100 %"), (0.996, "100 %"), (0.994, "99 %"), (0.0123, "1.2 %")])
def test_a_noise_is_no_power_of_ten(share: float, words: str) -> None:
    """A share is printed with two digits, and with three if it is one."""
    counted = dataclasses.replace(Noise.of([[replicate(noise(0))]]), switched=share)
    assert f", involuntary switches {words}, " in f", {counted}"


def test_two_replicates_are_enough_for_a_noise() -> None:
    """Two replicates have a deviation, of their differences and of the baseline's times; one replicate has none."""
    one, two = replicate([0.1] * 12), replicate([0.3] * 12, common=[1.0] * 12)
    single, both = Noise.of([[one]]), Noise.of([[one, two]])
    assert (single.between_replicates, single.between_processes) == (None, None)
    assert both.between_replicates == pytest.approx(0.2 / math.sqrt(2))
    assert both.between_processes == pytest.approx(1 / math.sqrt(2))


@pytest.mark.parametrize(("drifting", "outcome"), [(3, "worse"), (4, "inconclusive")])
def test_no_verdict_stands_on_replicates_that_drift(drifting: int, outcome: str) -> None:
    """With 3 of 14 replicates drifting a slowdown of 10 % is called worse; with 4 it is inconclusive."""
    played = [
        replicate(stepped([0.1 + each for each in noise(seed)], 0.1 if seed < drifting else 0.0)) for seed in range(14)
    ]
    rule = Rule()
    decision = decide({"cell": series(played)}, rule, rule.scheduled(1)[:2], final=True)["cell"]
    assert decision.outcome == outcome
    assert ("drifted or never became steady" in decision.reason) == (outcome == "inconclusive")


def test_a_clock_that_showed_nothing_gives_no_figure() -> None:
    """One sample of zero length makes its pair and its replicate NaN."""
    played = replicate(noise(2, 12))
    first, *others = played.taken.baseline.samples
    one = played.taken.baseline.model_copy(update={"samples": (first._replace(wall_s=0.0), *others)})
    broken = played._replace(taken=played.taken._replace(baseline=one))
    assert math.isnan(pairs(broken)[0])
    assert math.isnan(difference(broken))
    assert not math.isnan(difference(broken, "cpu_s"))
