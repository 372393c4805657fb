"""The course of a comparison, with recorded replicates in place of measured ones."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnperf.duet.contest import Contest, Version
from cnnperf.duet.pair import Fault
from cnnperf.duet.schedule import QUADS, Conditions, Played
from cnnperf.errors import UsageError
from cnnperf.ipc.messages import Opened, Taken
from cnnperf.machine.disturbance import Disturbance
from cnnperf.machine.fingerprint import fingerprint
from cnnperf.record import Record
from cnnperf.regression import gate, ratios
from cnnperf.regression.gate import Result, compare_versions
from cnnperf.regression.gate_verdict import TimeVerdict, comparison
from cnnperf.regression.rule import Decision, Rule
from cnnperf.regression.samples_file import SAMPLES_FILE, SAMPLES_SCHEMA
from cnnperf.sides import Both, Side
from cnnperf.timing.sampling import Sample

TREE = Version(name="this tree")
Recorded = Callable[[Contest, int], "Played | Fault"]


def contest(trained: Callable[..., Record], model: str = "lenet", metric: str = "infer.forward") -> Contest:
    """Return a contest that no worker measures."""
    task = trained(model).task.model_copy(update={"threads": 1})
    return Contest(metric, Both(task, task), Path("arrays"))


def recorded(dice: random.Random, change: float = 0.0, noise: float = 0.01, steady: bool = True) -> Played:
    """Make a replicate of 20 pairs, with the candidate slower by `change`."""

    def taken(factor: float) -> Taken:
        times = [0.01 * factor * math.exp(dice.gauss(0, noise)) for _ in range(20)]
        samples = tuple(Sample(time, 0.9 * time, 1, 0.0) for time in times)
        return Taken(samples=samples, warmup=samples[:3], steady=steady, blocked_s=1.0, blocked_cpu_s=0.0)

    both = Both(taken(1.0), taken((1 + change) * math.exp(dice.gauss(0, noise))))
    quiet = Disturbance(seconds=1.0, load=0.0, steal_s=0.0, throttled_s=None, frequency_hz=None)
    machines = Both(fingerprint(), fingerprint())
    opened = Opened(outputs={"error": 1e-7}, settings={"batch_size": 32}, source=None)
    return Played(QUADS[0] * 10, both, Both(opened, opened), machines, quiet, 0.0)


def swapped(played: Played) -> Played:
    """Exchange the sides of a replicate."""
    return played._replace(taken=Both(*played.taken[::-1]), opened=Both(*played.opened[::-1]))


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> Callable[[Recorded], None]:
    """Replace real replicates by recorded ones."""

    def use(play: Recorded) -> None:
        counts: dict[Contest, int] = {}

        def calibrate(version: Version, contests: Any, *_: Any) -> Iterator[tuple[Contest, Conditions]]:
            yield from ((each, Conditions(1, 0.01, 20, 3)) for each in contests)

        def replicate(versions: Any, conditions: Mapping[Contest, Conditions], *_: Any) -> Iterator[Any]:
            for each in conditions:
                counts[each] = counts.get(each, 0) + 1
                yield each, play(each, counts[each])

        monkeypatch.setattr(gate, "calibrate", calibrate)
        monkeypatch.setattr(gate, "replicate", replicate)

    return use


def outcomes(result: Result) -> list[str]:
    """Return the outcome of each contest, in order."""
    return [verdict.outcome for verdict in comparison(result).verdicts]


def test_each_is_measured_until_it_is_decided(
    trained: Callable[..., Record], replay: Callable[[Recorded], None]
) -> None:
    """Equal times are the same after 8 replicates, slower ones worse after 14, noisy ones inconclusive after 22."""
    dice = random.Random(0)
    kinds = {"lenet": (0.0, 0.005), "vgg": (0.1, 0.005), "nin": (0.03, 0.4)}
    replay(lambda each, n: recorded(dice, *kinds[each.tasks.baseline.cell.model.name]))
    result = compare_versions(TREE, TREE, [contest(trained, name) for name in kinds])
    assert outcomes(result) == ["same", "worse", "inconclusive"]
    assert [len(result.played[each]) for each in result.contests] == [8, 14, 22]
    shown = comparison(result)
    assert shown.exit_code == 1
    same, worse, inconclusive = (verdict.evidence for verdict in shown.verdicts)
    assert "5 % excluded at 95 %, smaller ones are not; n=8×20 pairs" in same
    assert "n=14×20 pairs" in worse
    assert "< 0.005)" in worse
    assert "agrees" in worse
    assert re.search(
        r"slower in \d+ of 22; a verdict on 5 % needs about \d+ replicates, about 1 more minute$", inconclusive
    )
    block = "\n".join(shown.notes)
    assert f"upper bounds of a slowdown: cifar10/lenet/cpu infer.forward {100 * shown.verdicts[0].high:.1f} %" in block
    for words in (
        "gate: if none of the 3 cell-metrics is slower by more than 1 %, at most 1 % of runs call any worse "
        "(Holm; the last 2 looks); one that is slower by 5 % is called the same in at most 5 % of runs (all 3 looks)",
        "noise: between processes",
        "not steady 0/44",
        "gate test",
        "power: if one of 3 cell-metrics is slower by 5 %, it is called worse in ",
        "(here: median and largest)",
        "a slowdown of 3 % that is called worse is overestimated by ",
        "each bound holds at 95 % over all looks",
    ):
        assert words in block


def test_power_of_two_contests_is_that_of_their_median_scatter(trained: Callable[..., Record]) -> None:
    """The notes give the median of two standard deviations, which lies between them, and the largest."""
    dice = random.Random(0)
    played = {
        contest(trained, name): [recorded(dice, math.expm1(sign * shift), 1e-9) for sign in (-1, 1)]
        for name, shift in (("lenet", 0.01), ("vgg", 0.03))
    }
    result = Result(Both(TREE, TREE), tuple(played), Rule(), looks=(8, 14, 22), played=played)
    assert "SD of replicates: 2.8 / 4.2 % (here: median and largest)" in result.power()


@given(seed=st.integers(0, 2**32), change=st.floats(-0.2, 0.2), noise=st.floats(0.001, 0.1))
def test_swapped_arms_mirror_the_verdict(
    trained: Callable[..., Record], seed: int, change: float, noise: float
) -> None:
    """Swapping baseline and candidate changes only the sign of each number."""
    dice = random.Random(seed)
    one = contest(trained)
    played = [recorded(dice, change, noise) for _ in range(14)]
    numbers = [(ratios.series(each)) for each in (played, [swapped(each) for each in played])]
    assert [-d for d in numbers[0].differences] == list(numbers[1].differences)
    assert numbers[0].flagged == numbers[1].flagged
    results = []
    for each in (played, [swapped(each) for each in played]):
        result = Result((TREE, TREE), (one,), Rule(), conditions={one: Conditions(1, 0.01, 20, 3)}, played={one: each})
        result.decisions = gate.decide(result.series(), result.rule, (14, 14), final=True)
        results.append(result.decisions[one.key])
    assert results[0].estimate == -results[1].estimate
    assert (results[0].low, results[0].high) == (-results[1].high, -results[1].low)
    found = [result.outcome for result in results]
    assert found.count("worse") == found.count("better")


def test_a_fault_ends_its_contest_alone(
    trained: Callable[..., Record], replay: Callable[[Recorded], None], tmp_path: Path
) -> None:
    """A crash in the fifth replicate is an error of its contest, and stored; the other contest is decided."""
    dice = random.Random(1)

    def play(each: Contest, n: int) -> Played | Fault:
        broken = each.tasks.baseline.cell.model.name == "vgg" and n == 5
        return Fault("candidate: the process crashed (SIGSEGV)") if broken else recorded(dice, noise=0.002)

    faults: list[int] = []

    class Faults(gate.UnwatchedGate):
        def measured(self, number: int, contest: Contest, found: Played | Fault) -> None:
            faults.extend([number] * isinstance(found, Fault))

    replay(play)
    both = [contest(trained, "lenet"), contest(trained, "vgg")]
    result = compare_versions(TREE, TREE, both, watcher=Faults(), folder=tmp_path / "ab")
    assert outcomes(result) == ["same", "error"]
    assert faults == [5]
    lines = map(json.loads, (tmp_path / "ab" / SAMPLES_FILE).read_text().splitlines())
    assert [line["replicate"] for line in lines if "error" in line] == [5]
    assert "SIGSEGV" in comparison(result).verdicts[1].evidence
    assert comparison(result).exit_code == 1


@pytest.mark.parametrize(
    ("absent", "code", "words"), [("candidate", 1, "missing"), ("baseline", 0, "not in the baseline")]
)
def test_what_an_arm_does_not_have(
    trained: Callable[..., Record], replay: Callable[[Recorded], None], absent: Side, code: int, words: str
) -> None:
    """A model missing from the candidate fails; one missing from the baseline is only noted."""
    dice = random.Random(2)
    gone = Fault("unknown model 'vgg'", absent=absent)
    replay(lambda each, n: gone if each.tasks.baseline.cell.model.name == "vgg" else recorded(dice, noise=0.002))
    result = compare_versions(TREE, TREE, [contest(trained, "lenet"), contest(trained, "vgg")])
    shown = comparison(result)
    assert shown.exit_code == code
    assert words in " ".join([*(verdict.outcome for verdict in shown.verdicts), *shown.notes])


def test_unsteady_and_unchanging_times_give_no_verdict(
    trained: Callable[..., Record], replay: Callable[[Recorded], None]
) -> None:
    """Times that never become steady, and times that never vary, are inconclusive."""
    dice = random.Random(3)
    once = recorded(random.Random(8))
    kinds = {"lenet": lambda: recorded(dice, noise=0.002, steady=False), "vgg": lambda: once}
    replay(lambda each, n: kinds[each.tasks.baseline.cell.model.name]())
    result = compare_versions(TREE, TREE, [contest(trained, name) for name in kinds])
    assert outcomes(result) == ["inconclusive", "inconclusive"]
    reasons = [verdict.remark for verdict in comparison(result).verdicts]
    assert "drifted or never became steady" in reasons[0]
    assert "the clock is at fault" in reasons[1]
    assert not any(note.startswith("upper bounds of a slowdown") for note in comparison(result).notes)


def test_samples_of_no_length_are_an_error(trained: Callable[..., Record], replay: Callable[[Recorded], None]) -> None:
    """Samples of zero length have no ratio and are an error."""
    zero = Sample(0.0, 0.0, 0, None)
    still = Taken(samples=(zero,) * 20, warmup=(zero,), steady=True, blocked_s=1.0, blocked_cpu_s=0.0)
    replay(lambda each, n: recorded(random.Random(0))._replace(taken=Both(still, still)))
    assert outcomes(compare_versions(TREE, TREE, [contest(trained)], minutes=0)) == ["error"]


def test_replicates_end_with_the_minutes(
    trained: Callable[..., Record], replay: Callable[[Recorded], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicates of a minute each end where another one would exceed the time limit of five minutes."""
    clock, dice = [1000.0], random.Random(4)
    monkeypatch.setattr(gate.time, "monotonic", lambda: clock[0])

    def play(each: Contest, n: int) -> Played:
        clock[0] += 60
        return recorded(dice, noise=0.002)

    replay(play)
    result = compare_versions(TREE, TREE, [contest(trained)], minutes=5)
    assert len(result.played[result.contests[0]]) in (4, 5)


@pytest.mark.parametrize(("minutes", "replicates"), [(0.0, 1), (None, 8)])
def test_when_the_minutes_are_over(
    trained: Callable[..., Record], replay: Callable[[Recorded], None], minutes: float | None, replicates: int
) -> None:
    """At zero minutes the gate measures one replicate; the inconclusive verdict says how many it needs."""
    dice = random.Random(4)
    replay(lambda each, n: recorded(dice, noise=0.002))
    result = compare_versions(TREE, TREE, [contest(trained)], minutes=minutes)
    assert len(result.played[result.contests[0]]) == replicates
    shown = comparison(result)
    assert shown.exit_code == (3 if minutes == 0 else 0)
    if minutes == 0:
        assert re.search(
            r"slower in . of 1; a verdict needs . replicates, about 1 more minute$", shown.verdicts[0].remark
        )


def test_an_inconclusive_verdict_says_what_it_needs(
    trained: Callable[..., Record], replay: Callable[[Recorded], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After seven replicates of a minute, all slower, the verdict names nine and two more minutes."""
    clock, dice = [1000.0], random.Random(4)
    monkeypatch.setattr(gate.time, "monotonic", lambda: clock[0])

    def play(each: Contest, n: int) -> Played:
        clock[0] += 60
        return recorded(dice, change=0.1, noise=0.002)

    replay(play)
    [verdict] = comparison(compare_versions(TREE, TREE, [contest(trained)], minutes=7)).verdicts
    assert verdict.outcome == "inconclusive"
    assert verdict.remark == "slower in 7 of 7; a verdict needs 9 replicates, about 2 more minutes"


@pytest.mark.parametrize(
    ("minutes", "contests", "words"), [(0.0, 2, "about 1 minute"), (1.0, 2, ""), (1.0, 10, "about 2.7 minutes")]
)
def test_minutes_without_a_possible_verdict_are_refused(minutes: float, contests: int, words: str) -> None:
    """Fewer minutes than six replicates take are refused, with what they take; the stated minutes are accepted."""
    turns_s = [Conditions.of(1, 0.01).turn_s] * contests
    if not words:
        gate.refuse_short(minutes, turns_s, Rule())
        return
    with pytest.raises(UsageError, match=rf"^`minutes`: {minutes:g} is too short; 6 replicates, .* take {words}$"):
        gate.refuse_short(minutes, turns_s, Rule())


def test_minutes_are_refused_once_the_calls_are_timed(
    trained: Callable[..., Record], replay: Callable[[Recorded], None], tmp_path: Path
) -> None:
    """A strict comparison ends after the calibration, before a replicate and without a file of samples."""
    replay(lambda each, n: recorded(random.Random(n)))
    with pytest.raises(UsageError, match=r"^`minutes`: 0\.1 is too short"):
        compare_versions(TREE, TREE, [contest(trained)], minutes=0.1, folder=tmp_path / "ab", is_strict=True)
    assert not (tmp_path / "ab").exists()


def test_a_smaller_batch_is_said(
    trained: Callable[..., Record], replay: Callable[[Recorded], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verdict names the images that were measured instead of those of the suite."""
    replay(lambda each, n: recorded(random.Random(n), noise=0.002))
    cut = Conditions(1, 0.2, 20, 3, cut=(512, 96))
    monkeypatch.setattr(gate, "calibrate", lambda _, contests, *__: ((each, cut) for each in contests))
    [verdict] = comparison(compare_versions(TREE, TREE, [contest(trained)])).verdicts
    assert verdict.outcome == "same"
    words = "measured with 96 images per call on both sides: 512 take over 250 ms here"
    assert verdict.remark == words
    assert verdict.evidence.endswith(words)


def test_more_replicates_are_planned_before_anything_is_measured(
    trained: Callable[..., Record], replay: Callable[[Recorded], None], tmp_path: Path
) -> None:
    """The minutes decide the planned looks, which are stored at first and do not depend on the differences."""
    looks = []
    for number, change in enumerate((0.0, 0.2, 0.05)):
        dice = random.Random(number)
        replay(lambda each, n, dice=dice, change=change: recorded(dice, change, 0.05))  # type: ignore[misc]
        folder = tmp_path / str(number)
        result = compare_versions(TREE, TREE, [contest(trained)], minutes=60, folder=folder)
        header = json.loads((folder / SAMPLES_FILE).read_text().splitlines()[0])
        assert header["looks"] == list(result.looks)
        looks.append(result.looks)
    assert looks == [(8, 14, Rule().scheduled(1, 1000)[-1])] * 3
    assert looks[0][-1] > 22
    assert compare_versions(TREE, TREE, [contest(trained)]).looks == (8, 14, 22)


def test_a_cell_metric_more_does_not_plan_another_start(
    trained: Callable[..., Record], replay: Callable[[Recorded], None]
) -> None:
    """A replicate of calls of 10 ms is planned at 6 s for both processes to start and 1.3 s for each cell-metric."""
    told: list[tuple[float, float]] = []

    class GateWatcher(gate.UnwatchedGate):
        def planned(self, minutes: tuple[float, float], looks: Sequence[int], power: str) -> None:
            told.append(minutes)
            raise KeyboardInterrupt

    replay(lambda each, n: recorded(random.Random(n)))
    for names in (("lenet",), ("lenet", "vgg", "nin", "mlp")):
        compare_versions(TREE, TREE, [contest(trained, name) for name in names], watcher=GateWatcher())
    expected = [tuple(look * (6 + 1.3 * contests) / 60 for look in (8, 22)) for contests in (1, 4)]
    assert told == [pytest.approx(minutes) for minutes in expected]


def test_the_power_is_told_before_and_after_the_replicates(
    trained: Callable[..., Record], replay: Callable[[Recorded], None]
) -> None:
    """The gate tells its power for typical deviations at first, then for those measured at each look."""
    told: list[str] = []

    class GateWatcher(gate.UnwatchedGate):
        def planned(self, minutes: tuple[float, float], looks: Sequence[int], power: str) -> None:
            told.append(power)

        def decided(self, number: int, decisions: Mapping[str, Decision], power: str) -> None:
            told.append(power)

    dice = random.Random(9)
    replay(lambda each, n: recorded(dice, 0.05, 0.06))
    compare_versions(TREE, TREE, [contest(trained)], watcher=GateWatcher())
    before, *after = told
    assert before.startswith("if the only cell-metric is slower by 5 %, it is called worse in 100 / 98 / 9")
    assert before.endswith("SD of replicates: 2 / 3 / 4 / 5 %")
    assert after
    assert all(words.endswith("% (here)") for words in after)


def test_the_power_of_a_run_that_was_cut_short_is_that_of_its_looks(
    trained: Callable[..., Record], replay: Callable[[Recorded], None]
) -> None:
    """After five replicates of an interrupted run nothing can be called worse."""
    dice = random.Random(5)

    def play(each: Contest, n: int) -> Played:
        if n == 6:
            raise KeyboardInterrupt
        return recorded(dice, 0.03, 0.02)

    replay(play)
    block = comparison(compare_versions(TREE, TREE, [contest(trained)])).notes
    assert any("is called worse in 0 of 100 runs" in note for note in block)


def test_an_interruption_keeps_what_was_measured(
    trained: Callable[..., Record], replay: Callable[[Recorded], None], tmp_path: Path
) -> None:
    """After an interruption the measured replicates are stored and decided on."""
    dice = random.Random(5)

    def play(each: Contest, n: int) -> Played:
        if n == 6:
            raise KeyboardInterrupt
        return recorded(dice, 0.03, 0.02)

    replay(play)
    result = compare_versions(TREE, TREE, [contest(trained)], folder=tmp_path / "ab")
    assert result.interrupted
    [verdict] = comparison(result).verdicts
    assert verdict.n == 5
    lines = [json.loads(line) for line in (tmp_path / "ab" / SAMPLES_FILE).read_text().splitlines()]
    assert all("disturbed" in line and "settings" in line for line in lines if "arm" in line)
    assert [line["arm"] for line in lines[1:]] == ["baseline", "candidate"] * 5
    assert {line["order"] for line in lines[1:]} == {"ABBA" * 10}
    assert lines[0]["schema"] == SAMPLES_SCHEMA
    assert len(lines[1]["wall_s"]) == len(lines[1]["cpu_s"]) == 20


def test_a_second_opinion_that_differs_is_flagged(
    trained: Callable[..., Record], replay: Callable[[Recorded], None]
) -> None:
    """The evidence flags a slowdown in wall time that CPU time does not show."""
    dice = random.Random(6)

    def play(each: Contest, n: int) -> Played:
        played = recorded(dice, 0.1, 0.002)
        same = [
            s._replace(cpu_s=b.cpu_s)
            for s, b in zip(played.taken.candidate.samples, played.taken.baseline.samples, strict=True)
        ]
        candidate = played.taken.candidate.model_copy(update={"samples": tuple(same)})
        return played._replace(taken=played.taken._replace(candidate=candidate))

    replay(play)
    [verdict] = comparison(compare_versions(TREE, TREE, [contest(trained)])).verdicts
    assert isinstance(verdict, TimeVerdict)
    assert (verdict.outcome, verdict.better) == ("worse", "lower")
    assert "cpu +0.0 % DISAGREES" in verdict.evidence


def test_json_carries_what_only_times_have(trained: Callable[..., Record], replay: Callable[[Recorded], None]) -> None:
    """The JSON of a verdict on times has the number of pairs and the change in CPU time."""
    dice = random.Random(7)
    replay(lambda each, n: recorded(dice, noise=0.002))
    document = json.loads(comparison(compare_versions(TREE, TREE, [contest(trained)])).model_dump_json())
    assert document["verdicts"][0]["pairs"] == 20
    assert document["verdicts"][0]["cpu_change"] == pytest.approx(document["verdicts"][0]["change"])


def test_nothing_to_compare_is_a_usage_error() -> None:
    """`compare_versions` refuses an empty list of contests."""
    with pytest.raises(UsageError, match="nothing to compare"):
        compare_versions(TREE, TREE, [])


def test_nothing_in_the_baseline_is_no_pass(trained: Callable[..., Record], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every contest is absent from the baseline there is no plan, no verdict, and exit code 3."""
    monkeypatch.setattr(
        gate, "calibrate", lambda _, contests, *__: ((c, Fault("none", absent="baseline")) for c in contests)
    )
    watched: list[str] = []

    class GateWatcher(gate.UnwatchedGate):
        def planned(self, *_: object) -> None:
            watched.append("planned")

    shown = comparison(compare_versions(TREE, TREE, [contest(trained)], watcher=GateWatcher()))
    assert (shown.verdicts, shown.exit_code, watched) == ((), 3, [])
    assert any("not compared" in note for note in shown.notes)
    assert not any(note.startswith("gate:") for note in shown.notes)


def test_an_arm_that_no_longer_starts_costs_what_is_left(
    trained: Callable[..., Record], replay: Callable[[Recorded], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that no longer starts is a fault; the replicate measured before is kept."""
    replay(lambda _, n: recorded(random.Random(n)))
    real = gate.replicate

    def one_and_out(versions: Any, conditions: Mapping[Contest, Conditions], *rest: Any) -> Iterator[Any]:
        yield next(iter(real(versions, conditions, *rest)))
        raise UsageError("it cannot be run")

    monkeypatch.setattr(gate, "replicate", one_and_out)
    result = compare_versions(TREE, TREE, [contest(trained), contest(trained, "vgg")])
    assert sum(map(len, result.played.values())) == 1
    assert "it cannot be run" in [str(fault) for fault in result.faults.values()]


def test_settings_that_differ_are_named(trained: Callable[..., Record], replay: Callable[[Recorded], None]) -> None:
    """A note names a setting that differs between the sides, both values and the cell."""

    def play(_: Contest, n: int) -> Played:
        played = recorded(random.Random(n))
        other = played.opened.candidate.model_copy(
            update={"settings": {"batch_size": 32, "memory_format": "contiguous"}}
        )
        return played._replace(opened=Both(played.opened.baseline, other))

    replay(play)
    one = contest(trained)
    notes = comparison(compare_versions(TREE, TREE, [one])).notes
    assert f"settings differ: memory_format (not known against contiguous) in {one.cell}" in notes
