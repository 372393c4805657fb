"""What the gate test came to: counted, kept for this machine, quoted by later verdicts."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from cnnperf.errors import CnnperfWarning, RunError
from cnnperf.machine.fingerprint import fingerprint
from cnnperf.regression import gate_test_result
from cnnperf.regression.gate_test_result import GateTest, Scope
from cnnperf.regression.gate_verdict import TimeVerdict
from cnnperf.regression.rule import Rule
from cnnperf.regression.verdict import Outcome, Verdict

SCOPE = Scope(devices=("cpu",), threads=1, metrics=("train.step",), torch="2.14.1")


def verdicts(*outcomes: Outcome) -> tuple[Verdict, ...]:
    """Return a verdict of each outcome."""
    return tuple(Verdict(cell=f"cell {i}", metric="step", outcome=outcome) for i, outcome in enumerate(outcomes))


def outcome_of(unchanged: tuple[Outcome, ...], slowed: tuple[Outcome, ...]) -> GateTest:
    """Return a gate test on this machine that came out so."""
    return GateTest(
        machine=fingerprint(),
        day=date(2026, 11, 24),
        slowdown=0.05,
        scope=SCOPE,
        unchanged=verdicts(*unchanged),
        slowed=verdicts(*slowed),
    )


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CNNPERF_CACHE", str(tmp_path))


def test_what_is_kept_is_quoted() -> None:
    """One line with the date, both counts, and the exact bound that so few cells allow."""
    assert "never run here" in gate_test_result.quoted(SCOPE)
    kept = outcome_of(("same",) * 5, ("worse",) * 5)
    kept.save()
    assert gate_test_result.stored_gate_test() == kept
    assert gate_test_result.quoted(SCOPE) == (
        "gate test on this machine: 2026-11-24 (cpu, 1 thread, train.step, torch 2.14.1), "
        "A/A 0 of 5 worse (95 % upper bound 45 %), +5 % 5 of 5 worse"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devices": ("cpu", "cuda")}, "cuda"),
        ({"threads": 2}, "2 threads"),
        ({"threads": None}, "a thread a core"),
        ({"metrics": ("infer.forward", "train.step")}, "infer.forward"),
        ({"torch": "2.15.0"}, "torch 2.15.0"),
        ({"devices": ("cuda",), "threads": 2, "metrics": ("infer.forward",)}, "cuda, infer.forward, 2 threads"),
    ],
)
def test_what_it_did_not_test_is_said_where_it_is_quoted(changes: dict[str, object], words: str) -> None:
    """Another device, number of threads, metric or torch than those that it ran with."""
    outcome_of(("same",) * 5, ("worse",) * 5).save()
    quoted = gate_test_result.quoted(SCOPE.model_copy(update=changes))
    assert quoted.endswith(f"+5 % 5 of 5 worse; not tested: {words}")


def test_one_that_was_stored_without_its_scope_has_that_of_its_time() -> None:
    """It ran on the CPU, on one thread, the training step alone; its torch is not known."""
    path = outcome_of(("same",), ("worse",)).save()
    document = json.loads(path.read_text())
    del document["scope"]
    path.write_text(json.dumps(document))
    assert "(cpu, 1 thread, train.step)" in gate_test_result.quoted(SCOPE)
    assert gate_test_result.quoted(SCOPE).endswith("not tested: torch 2.14.1")


def test_verdicts_on_times_are_kept_without_what_only_the_gate_knows() -> None:
    """What was measured and tested comes back; the number of pairs and the rule do not."""
    worse = TimeVerdict(cell="c", metric="m", outcome="worse", change=0.05, p=1e-4, n=14, pairs=60, rule=Rule())
    kept = outcome_of(("same",), ("worse",)).model_copy(update={"slowed": (worse,)})
    kept.save()
    found = gate_test_result.stored_gate_test()
    assert found is not None
    assert found.slowed == (Verdict(cell="c", metric="m", outcome="worse", change=0.05, p=1e-4, n=14),)


def test_each_count_is_told_with_what_so_few_cells_can_say() -> None:
    """Of five cells none or all still leave a rate of 45 or of 55 %."""
    tested = outcome_of(("same",) * 5, ("worse",) * 4 + ("inconclusive",))
    alarms, detections, misses, came_to = tested.summary
    assert alarms.startswith("false alarms: 0 of 5 decided ")
    assert alarms.endswith("at most 45 % (exact, 95 %)")
    assert detections == "detections: 4 of 5 called worse with +5 %; the rate is at least 34 % (exact, 95 %)"
    assert misses.startswith("misses: 0 of 4 decided ")
    assert came_to == "gate test: the gate held → exit 0"


def test_what_was_not_decided_is_no_pass() -> None:
    """An unchanged cell on which nothing was decided does not make the bound tighter, a slowed one was not found."""
    tested = outcome_of(("same", "same") + ("inconclusive",) * 3, ("worse",) * 3 + ("inconclusive",) * 2)
    assert (str(tested.false_alarms), str(tested.detections)) == ("0 of 2", "3 of 5")
    alarms, _, _, came_to = tested.summary
    assert "0 of 2 decided called worse" in alarms
    assert "(3 inconclusive, not counted); the rate is at most 78 %" in alarms
    assert came_to.startswith("gate test: inconclusive: ")
    assert came_to.endswith("→ exit 3")
    assert "A/A 0 of 2 worse (95 % upper bound 78 %; 3 inconclusive), +5 % 3 of 5 worse" in tested.sentence


def test_where_nothing_was_decided_nothing_is_excluded() -> None:
    """No trial leaves a rate of up to 100 %, and is not kept."""
    tested = outcome_of(("inconclusive",) * 5, ("inconclusive",) * 5)
    assert "A/A 0 of 0 worse (95 % upper bound 100 %; 5 inconclusive)" in tested.sentence
    assert not tested.has_decided
    assert outcome_of(("inconclusive",), ("worse",)).has_decided
    assert outcome_of(("same",), ("inconclusive",)).has_decided


@pytest.mark.parametrize(
    ("unchanged", "slowed", "code"),
    [
        (("same", "inconclusive", "better"), ("worse",) * 5, 0),
        (("same",) * 5, ("worse",) * 4 + ("inconclusive",), 0),
        (("same",) * 5, ("worse",) * 3 + ("inconclusive",) * 2, 3),
        (("inconclusive",) * 5, ("worse",) * 5, 3),
        (("same",) + ("inconclusive",) * 4, ("worse",) * 5, 3),
        (("same",) * 2 + ("inconclusive",) * 3, ("worse",) * 5, 3),
        (("same",) * 3 + ("inconclusive",) * 2, ("worse",) * 5, 0),
        (("same", "inconclusive"), ("worse",) * 5, 0),
        ((), ("worse",) * 5, 3),
        (("same", "same", "same"), ("inconclusive", "inconclusive", "inconclusive"), 3),
        (("same", "same", "worse"), ("worse", "worse", "worse"), 1),
        (("inconclusive", "inconclusive", "worse"), ("inconclusive", "inconclusive", "inconclusive"), 1),
        (("same", "same", "same"), ("worse", "worse", "same"), 1),
        (("same", "same", "same"), ("worse", "worse", "better"), 1),
        (("same", "same", "error"), ("worse", "worse", "worse"), 1),
    ],
)
def test_the_gate_held_or_did_not(unchanged: tuple[Outcome, ...], slowed: tuple[Outcome, ...], code: int) -> None:
    """A false alarm, a miss or a broken cell fails; too little decided or found is no pass either."""
    assert outcome_of(unchanged, slowed).exit_code == code


def test_another_machine_of_this_name_is_not_quoted() -> None:
    """Virtual machines share names; the processor and its cores tell them apart."""
    here = outcome_of(("same",), ("worse",))
    here.model_copy(update={"machine": here.machine.model_copy(update={"cores": 999})}).save()
    assert gate_test_result.stored_gate_test() is None


@pytest.mark.parametrize("fact", ["vendor", "family", "model", "stepping", "instruction_sets"])
def test_another_processor_of_this_name_is_not_quoted(fact: str) -> None:
    """Unlike processors share names; vendor, family, model, stepping and instruction sets tell them apart."""
    here = outcome_of(("same",), ("worse",))
    assert here.machine.processor is not None
    other = here.machine.processor.model_copy(update={fact: ("other",) if fact == "instruction_sets" else "other"})
    here.model_copy(update={"machine": here.machine.model_copy(update={"processor": other})}).save()
    assert gate_test_result.stored_gate_test() is None


def test_a_gate_test_that_does_not_tell_its_processor_is_not_quoted() -> None:
    """The name alone does not show that it was made on this one."""
    here = outcome_of(("same",), ("worse",))
    here.model_copy(update={"machine": here.machine.model_copy(update={"processor": None})}).save()
    assert gate_test_result.stored_gate_test() is None


def test_a_file_that_is_no_gate_test_is_named() -> None:
    """It is a warning with the cure, and counts as never run."""
    outcome_of(("same",), ("worse",)).save().write_text("{}")
    with pytest.warns(CnnperfWarning, match="run cnnperf doctor"):
        assert "never run here" in gate_test_result.quoted(SCOPE)


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """It names the variable that points elsewhere."""
    (tmp_path / "gate-test").write_text("a file where the folder should be")
    with pytest.raises(RunError, match="CNNPERF_CACHE"):
        outcome_of(("same",), ("worse",)).save()
