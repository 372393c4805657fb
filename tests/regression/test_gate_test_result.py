"""The result of the gate test: counted, stored for this machine, quoted by later verdicts."""

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
    """Return a gate test on this machine with these outcomes."""
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
    """A stored gate test is quoted in one line with its date, both counts and the exact bound."""
    assert "never run on this machine" in gate_test_result.quoted(SCOPE)
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
        ({"threads": None}, "one thread per core"),
        ({"metrics": ("infer.forward", "train.step")}, "infer.forward"),
        ({"torch": "2.15.0"}, "torch 2.15.0"),
        ({"devices": ("cuda",), "threads": 2, "metrics": ("infer.forward",)}, "cuda, infer.forward, 2 threads"),
    ],
)
def test_what_it_did_not_test_is_said_where_it_is_quoted(changes: dict[str, object], words: str) -> None:
    """The quotation names devices, threads, metrics and torch that the gate test did not cover."""
    outcome_of(("same",) * 5, ("worse",) * 5).save()
    quoted = gate_test_result.quoted(SCOPE.model_copy(update=changes))
    assert quoted.endswith(f"+5 % 5 of 5 worse; not tested: {words}")


def test_one_that_was_stored_without_its_scope_has_that_of_its_time() -> None:
    """A gate test stored without a scope gets the CPU, one thread and the training step, without torch."""
    path = outcome_of(("same",), ("worse",)).save()
    document = json.loads(path.read_text())
    del document["scope"]
    path.write_text(json.dumps(document))
    assert "(cpu, 1 thread, train.step)" in gate_test_result.quoted(SCOPE)
    assert gate_test_result.quoted(SCOPE).endswith("not tested: torch 2.14.1")


def test_verdicts_on_times_are_kept_without_what_only_the_gate_knows() -> None:
    """A stored verdict keeps its measured and tested values, not the number of pairs and the rule."""
    worse = TimeVerdict(cell="c", metric="m", outcome="worse", change=0.05, p=1e-4, n=14, pairs=60, rule=Rule())
    kept = outcome_of(("same",), ("worse",)).model_copy(update={"slowed": (worse,)})
    kept.save()
    found = gate_test_result.stored_gate_test()
    assert found is not None
    assert found.slowed == (Verdict(cell="c", metric="m", outcome="worse", change=0.05, p=1e-4, n=14),)


def test_each_count_is_told_with_what_so_few_cells_can_say() -> None:
    """The summary gives each count with the exact bound on its rate."""
    tested = outcome_of(("same",) * 5, ("worse",) * 4 + ("inconclusive",))
    alarms, detections, misses, came_to = tested.summary
    assert alarms.startswith("false alarms: 0 of the 5 decided unchanged cells were called worse; ")
    assert alarms.endswith("at most 45 % (exact, 95 %)")
    assert (
        detections
        == "detections: 4 of the 5 cells slowed by 5 % were called worse; the rate is at least 34 % (exact, 95 %)"
    )
    assert misses.startswith("misses: 0 of the 4 decided cells slowed by 5 % were called the same or better; ")
    assert came_to == "gate test: the gate held → exit 0"


def test_what_was_not_decided_is_no_pass() -> None:
    """An undecided cell does not tighten the bound on false alarms and does not count as detected."""
    tested = outcome_of(("same", "same") + ("inconclusive",) * 3, ("worse",) * 3 + ("inconclusive",) * 2)
    assert (str(tested.false_alarms), str(tested.detections)) == ("0 of 2", "3 of 5")
    alarms, _, _, came_to = tested.summary
    assert "0 of the 2 decided unchanged cells were called worse" in alarms
    assert "(3 inconclusive, not counted); the rate is at most 78 %" in alarms
    assert came_to == (
        "gate test: inconclusive: at least 50 % of the unchanged cells must be decided and 80 % of the slowed cells "
        "called worse; raise `minutes` or use a quieter machine → exit 3"
    )
    assert "A/A 0 of 2 worse (95 % upper bound 78 %; 3 inconclusive), +5 % 3 of 5 worse" in tested.sentence


def test_where_nothing_was_decided_nothing_is_excluded() -> None:
    """Without a decided cell the bound is 100 %, and `has_decided` is false."""
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
    """A false alarm, a miss or an error fails; too few decided or detected cells give exit code 3."""
    assert outcome_of(unchanged, slowed).exit_code == code


def test_another_machine_of_this_name_is_not_quoted() -> None:
    """A gate test of a machine with another number of cores is not found, in spite of an equal name."""
    here = outcome_of(("same",), ("worse",))
    here.model_copy(update={"machine": here.machine.model_copy(update={"cores": 999})}).save()
    assert gate_test_result.stored_gate_test() is None


@pytest.mark.parametrize("fact", ["vendor", "family", "model", "stepping", "instruction_sets"])
def test_another_processor_of_this_name_is_not_quoted(fact: str) -> None:
    """A gate test of an unlike processor is not found, in spite of an equal name."""
    here = outcome_of(("same",), ("worse",))
    assert here.machine.processor is not None
    other = here.machine.processor.model_copy(update={fact: ("other",) if fact == "instruction_sets" else "other"})
    here.model_copy(update={"machine": here.machine.model_copy(update={"processor": other})}).save()
    assert gate_test_result.stored_gate_test() is None


def test_a_gate_test_that_does_not_tell_its_processor_is_not_quoted() -> None:
    """A gate test without a processor is not found."""
    here = outcome_of(("same",), ("worse",))
    here.model_copy(update={"machine": here.machine.model_copy(update={"processor": None})}).save()
    assert gate_test_result.stored_gate_test() is None


def test_a_file_that_is_no_gate_test_is_named() -> None:
    """A file that is no gate test gives a warning with the cure, and counts as never run."""
    outcome_of(("same",), ("worse",)).save().write_text("{}")
    with pytest.warns(CnnperfWarning, match="run cnnperf doctor"):
        assert "never run on this machine" in gate_test_result.quoted(SCOPE)


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """The error for a cache that cannot be written names CNNPERF_CACHE."""
    (tmp_path / "gate-test").write_text("a file where the folder should be")
    with pytest.raises(RunError, match="CNNPERF_CACHE"):
        outcome_of(("same",), ("worse",)).save()
