"""The check of stored runs against a baseline: each unit has its own rule, incomparable runs are refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compared import CELL, STEPS, Held, Repeats, inferred, of, once, parity

from cnnperf import record as store
from cnnperf.errors import StoreError, UsageError
from cnnperf.record import Measurement, Record
from cnnperf.regression import check
from cnnperf.regression.check import compare, compare_records
from cnnperf.regression.judge import Pending
from cnnperf.regression.rule import Rule
from cnnperf.regression.verdict import Verdict
from cnnperf.stats import SignedRanks, Welch


def test_a_run_on_both_sides_is_read_once(repeats: Repeats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run given on both sides, or under two names on one side, is read once and counts once per side."""
    for each in repeats(0.9, 0.91, 0.905):
        store.append(tmp_path, each)
    found: list[Path] = []
    read = store.read
    monkeypatch.setattr(check, "read", lambda folder: found.append(folder) or read(folder))
    comparison = compare([tmp_path, tmp_path / "."], [tmp_path])
    assert found == [tmp_path]
    assert {v.n for v in comparison.verdicts if v.metric == "train.test_accuracy"} == {3}


def test_bounds_are_explained_where_there_are_any(repeats: Repeats) -> None:
    """A note explains the bounds, except for single trainings, which have none."""
    records = repeats(0.9, 0.91, 0.905)
    words = "in brackets: the least and the greatest change that is not excluded, each a one-sided bound at 95 %"
    assert words in compare_records(records, records).notes
    assert not any("in brackets" in note for note in compare_records(records[:1], records[:1]).notes)


def test_a_run_is_the_same_as_itself(repeats: Repeats, held: Held) -> None:
    """A run compared with itself has no worse metric and exit code 0; times are indicative."""
    records = repeats(0.9, 0.91, 0.905)
    comparison = held(records, records)
    assert comparison.exit_code == 0
    assert {v.metric: v.outcome for v in comparison.verdicts} == {
        "train.test_accuracy": "same",
        "train.step_time": "indicative",
        "train.total_images_per_s": "indicative",
    }


@pytest.mark.parametrize(
    ("unit", "tags"), [("count", {}), ("bytes", {"artifact": "onnx"})], ids=["count", "artifact's size"]
)
@pytest.mark.parametrize(("value", "outcome"), [(1000, "same"), (1001, "worse"), (999, "better")])
def test_counts_and_sizes_are_compared_exactly(
    repeats: Repeats, held: Held, unit: str, tags: dict[str, str], value: int, outcome: str
) -> None:
    """A count or size larger by one in a thousand is worse, a smaller one better; the remark has both."""
    before, after = ([once("x.size", unit, v, **tags)] for v in (1000, value))
    comparison = held(repeats(*[0.9] * 3, measured=before), repeats(*[0.9] * 3, measured=after))
    verdict = of(comparison, "x.size" + ("[artifact=onnx]" if tags else ""))
    assert verdict.outcome == outcome
    assert (verdict.baseline, verdict.candidate) == (1000, value)
    assert ("1,000 → " in verdict.remark) == (outcome != "same")
    assert comparison.exit_code == (outcome == "worse")


def test_a_count_that_differs_among_repeats_tells_nothing(trained: Callable[..., Record], held: Held) -> None:
    """A count that differs among repeats is inconclusive, which gives exit code 3."""
    records = [trained(repeat=i, measured=[once("x.count", "count", 10 + i)]) for i in range(2)]
    comparison = held(records, records)
    assert of(comparison, "x.count").outcome == "inconclusive"
    assert comparison.exit_code == 3


def test_what_has_no_direction_and_the_points_of_curves_are_not_judged(repeats: Repeats, held: Held) -> None:
    """Metrics without a direction and points of a curve get no verdict."""
    before, after = (
        [once("x.count", "count", v, None), once("x.curve", "fraction", v / 10, "higher", {"step": v, "n": 50})]
        for v in (3, 4)
    )
    metrics = {v.metric for v in held(repeats(0.9, measured=before), repeats(0.9, measured=after)).verdicts}
    assert metrics == {"train.test_accuracy", "train.step_time", "train.total_images_per_s"}


MEMORY = {100.0: "same", 104.9: "same", 95.5: "same", 105.1: "worse", 90.0: "better"}


@pytest.mark.parametrize(("after", "outcome"), MEMORY.items())
def test_memory_has_a_margin(repeats: Repeats, held: Held, after: float, outcome: str) -> None:
    """Memory that changes by less than 5 % is the same."""
    records = (repeats(0.9, 0.9, measured=[once("x.bytes", "bytes", v)]) for v in (100.0, after))
    assert of(held(*records), "x.bytes").outcome == outcome


@pytest.mark.parametrize(
    ("runs", "outcome"), [((1, 1), "indicative"), ((1, 3), "indicative"), ((3, 1), "inconclusive"), ((2, 2), "worse")]
)
def test_memory_of_a_single_process_proves_nothing(
    repeats: Repeats, held: Held, runs: tuple[int, int], outcome: str
) -> None:
    """Memory of a single repeat is indicative, or inconclusive if the candidate has fewer repeats."""
    sides = (
        repeats(*[0.9] * n, measured=[once("x.bytes", "bytes", v)]) for n, v in zip(runs, (31.2, 65.7), strict=True)
    )
    verdict = of(held(*sides), "x.bytes")
    assert (verdict.outcome, verdict.n) == (outcome, min(runs))
    assert (
        verdict.remark
        == {
            "indicative": "needs 2 repeats per side",
            "inconclusive": "the candidate has 1 repeat, the baseline 3; run at least 1 more",
            "worse": "",
        }[outcome]
    )


def test_memory_that_scatters_more_than_it_changed_is_inconclusive(trained: Callable[..., Record], held: Held) -> None:
    """Medians 10 % apart whose repeats overlap are inconclusive."""

    def side(*sizes: float) -> list[Record]:
        return [trained(repeat=i, measured=[once("x.bytes", "bytes", v)]) for i, v in enumerate(sizes)]

    assert of(held(side(90, 100, 115), side(95, 110, 120)), "x.bytes").outcome == "inconclusive"


DIFFERENCES = {
    "a drop in accuracy": ("infer.accuracy_drop", "1", (0.001, -0.002), -0.003, "0.1 % → -0.2 %  -0.3 points"),
    "a drop that stays one": ("infer.accuracy_drop", "1", (0.001, 0.004), 0.003, "0.1 % → 0.4 %  +0.3 points"),
    "no count before": ("infer.class_disagreements", "count", (0.0, 4.0), 4.0, "0 → 4  +4"),
    "no count at all": ("infer.class_disagreements", "count", (0.0, 0.0), 0.0, "0 → 0  +0"),
    "no memory after": ("x.bytes", "bytes", (2**20, 0.0), -(2.0**20), "1.00 MiB → 0 B  -1.00 MiB"),
    "an error that is gone": ("infer.max_difference", "1", (0.25, 0.0), -0.25, "0.250 → 0  -0.250"),
    "no seconds before": ("x.rest", "s", (0.0, 0.002), 0.002, "0 µs → 2.00 ms  +2.00 ms"),
    "a ratio": ("infer.max_difference", "1", (0.2, 0.25), 0.25, "0.200 → 0.250  +25.0 %"),
}


@pytest.mark.parametrize(("metric", "unit", "values", "change", "words"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_what_has_no_ratio_changes_by_a_difference(
    repeats: Repeats, held: Held, metric: str, unit: str, values: tuple[float, float], change: float, words: str
) -> None:
    """Values of 0 or below have no ratio: the change is a difference, in points or in the metric's unit.

    The unit is the metric's: a drop in accuracy, which may be negative, is no fraction.
    """
    before, after = (repeats(0.9, 0.9, measured=[once(metric, unit, v)]) for v in values)
    verdict = of(held(before, after), metric)
    assert verdict.unit == unit
    assert verdict.change == pytest.approx(change)
    assert verdict.evidence.startswith(f"{words}  n=2")


def test_a_speedup_is_the_estimate_of_the_table_of_engines(repeats: Repeats, held: Held) -> None:
    """The speedup is the Hodges–Lehmann estimate of the log ratios over all repeats, as in the table of engines."""
    ratios = (1.0, 1.1, 1.21, 2.0, 4.0, 1.5), (2.0, 2.1, 2.2, 2.3, 9.0, 2.4)
    [training] = repeats(0.9)

    tags = {"engine": "onnxruntime", "batch_size": 8, "baseline": "torch"}

    def run(*of_repeats: tuple[float, ...]) -> list[Record]:
        paired = once("infer.speedup", "1", 1.0, "higher", **tags)
        found = [paired.model_copy(update={"values": values}) for values in of_repeats]
        return [inferred(training, repeat, 0.9, [each]) for repeat, each in enumerate(found)]

    verdict = of(held(run(*ratios), run(ratios[0])), "infer.speedup[baseline=torch,batch_size=8,engine=onnxruntime]")
    both, first = (math.exp(SignedRanks(np.log(each)).estimate) for each in (sum(ratios, ()), ratios[0]))
    assert (verdict.baseline, verdict.candidate) == (pytest.approx(both), pytest.approx(first))


def test_tests_of_different_size_are_told(repeats: Repeats, held: Held) -> None:
    """A note tells that trainings were tested on unlike numbers of images; each training weighs the same."""
    before, after = repeats(0.9, 0.91, 0.905), repeats(0.9, 0.91, 0.905, n=2000)
    mixed = [*before[:1], *after[1:]]
    comparison = held(before, mixed)
    words = f"tested on different numbers of images, and each training weighs the same: {CELL} train (2,000 to 10,000)"
    assert words in comparison.notes
    assert of(comparison, "train.test_accuracy").candidate == pytest.approx(0.905)
    assert not any("tested on" in note for note in compare_records(before, before).notes)


ACCURACIES = {
    (0.90, 0.91, 0.905): "same",
    (0.80, 0.81, 0.79): "worse",
    (0.97, 0.98, 0.975): "better",
    (0.75, 0.95, 0.85): "inconclusive",
    (0.886, 0.882, 0.884): "inconclusive",  # surely less, yet not surely by more than a point
}


@pytest.mark.parametrize(("after", "outcome"), ACCURACIES.items())
def test_accuracy_is_compared_by_a_test_over_repeats(
    repeats: Repeats, held: Held, after: tuple[float, ...], outcome: str
) -> None:
    """The change in accuracy is in points, with a bound on each side and a p-value."""
    verdict = of(held(repeats(0.9, 0.91, 0.905), repeats(*after)), "train.test_accuracy")
    assert verdict.outcome == outcome, verdict
    assert verdict.n == 3
    assert verdict.change == pytest.approx(sum(after) / 3 - 0.905)
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.low < verdict.change < verdict.high
    assert verdict.p is not None
    assert verdict.p_holm == verdict.p


@pytest.mark.parametrize(("worse", "better", "outcome"), [(0.0099, 1, "worse"), (1, 0.0099, "better")])
def test_alpha_is_the_level_of_the_adjusted_p_values(worse: float, better: float, outcome: str) -> None:
    """An adjusted p-value below 1 % decides in either direction; p-values slightly above it are inconclusive."""
    verdict = Verdict(cell=CELL, metric="x", unit="fraction", outcome="indicative")
    tested = Pending(verdict, Welch([0.0, 0.1], [0.05, 0.06], (0.01, 0.01)), "lower")
    assert tested.settled(Rule(), worse, better).outcome == outcome
    assert tested.settled(Rule(), worse + 0.0002, better + 0.0002).outcome == "inconclusive"


def test_equal_accuracies_on_few_images_prove_nothing(repeats: Repeats, held: Held) -> None:
    """Three equal accuracies on 40 images do not prove sameness within 5 points."""
    verdict = of(held(repeats(0.9, 0.9, 0.9, n=40), repeats(0.9, 0.9, 0.9, n=40)), "train.test_accuracy")
    assert verdict.outcome == "inconclusive"


def test_an_error_rate_that_falls_is_better(trained: Callable[..., Record], held: Held) -> None:
    """The measurement gives the direction in which a fraction is better."""

    def side(*rates: float) -> list[Record]:
        return [
            trained(repeat=i, measured=[STEPS, once("x.error", "fraction", v, remarks={"n": 10_000})])
            for i, v in enumerate(rates)
        ]

    assert of(held(side(0.2, 0.21, 0.22), side(0.1, 0.11, 0.09)), "x.error").outcome == "better"


def test_the_more_is_tested_the_more_it_takes(repeats: Repeats, held: Held) -> None:
    """Holm adjusts over all cells: a p-value that suffices alone does not suffice among forty."""
    fall = (0.871, 0.866, 0.876)
    before, after = repeats(0.9, 0.905, 0.91), repeats(*fall)
    others = [r for i in range(39) for r in repeats(0.9, 0.905, 0.91, model={"name": "mlp", "hidden": i + 1})]
    comparison = held([*before, *others], [*after, *others])
    [verdict] = [v for v in comparison.verdicts if v.cell == CELL and v.metric == "train.test_accuracy"]
    assert verdict.p is not None
    assert verdict.p < 0.01
    assert verdict.p_holm == pytest.approx(40 * verdict.p)
    assert verdict.outcome == "inconclusive"
    assert (
        "if none of the 40 tested fractions loses more than 1 point, at most 1 % of checks call any worse (Holm); "
        "one that loses 5 points is called the same in at most 5 % of checks"
    ) in comparison.notes


@pytest.mark.parametrize("runs", [(1, 1), (2, 2), (1, 3)])
def test_accuracy_of_too_few_trainings_is_no_pass(repeats: Repeats, held: Held, runs: tuple[int, int]) -> None:
    """A large loss with too few trainings is inconclusive, and the remark gives the repeats needed."""
    comparison = held(repeats(*[0.9] * runs[0]), repeats(*[0.3] * runs[1]))
    verdict = of(comparison, "train.test_accuracy")
    assert (verdict.outcome, verdict.n, verdict.p) == ("inconclusive", min(runs), None)
    assert verdict.change == pytest.approx(-0.6)
    assert verdict.remark == "needs 3 repeats per side with different seeds"
    assert not any("tested fractions" in note for note in comparison.notes)
    assert comparison.exit_code == 3


@pytest.mark.parametrize("runs", [(3, 1), (4, 2)])
def test_leaving_repeats_out_does_not_disarm_the_test(repeats: Repeats, held: Held, runs: tuple[int, int]) -> None:
    """A candidate with fewer repeats than the baseline is inconclusive, and the remark gives the missing number."""
    comparison = held(repeats(*[0.9] * runs[0]), repeats(*[0.1] * runs[1]))
    verdict = of(comparison, "train.test_accuracy")
    assert verdict.outcome == "inconclusive"
    assert comparison.exit_code == 3
    trainings = "1 training" if runs[1] == 1 else f"{runs[1]} trainings"
    assert verdict.remark == (
        f"the candidate has {trainings}, the baseline {runs[0]}; run at least {3 - runs[1]} more with different seeds"
    )


def test_a_single_training_on_a_budget_in_seconds_names_both_cures(repeats: Repeats, held: Held) -> None:
    """A single training on a budget in seconds gets a remark that asks for repeats and for a budget in steps."""
    longer = once("train.steps", "count", 600, None)
    [after] = repeats(0.3)
    after = after.model_copy(update={"measurements": (longer, *(m for m in after.measurements if m != STEPS))})
    remark = of(held(repeats(0.9), [after]), "train.test_accuracy").remark
    assert "3 repeats per side" in remark
    assert "give the budget in steps or epochs" in remark


@pytest.mark.parametrize(
    ("budget", "steps", "words"),
    [
        ({}, [STEPS], "trained for 500–600 against 500 steps; give the budget in steps or epochs"),
        (
            {"target_accuracy": 0.9, "stop_at_target": False},
            [STEPS],
            "500 steps; give the budget in steps or epochs",
        ),
        (
            {"target_accuracy": 0.9},
            [STEPS],
            "500 steps; give the budget in steps or epochs and set stop_at_target = false",
        ),
        ({"seconds": None, "epochs": 6, "target_accuracy": 0.9}, [STEPS], "500 steps; set stop_at_target = false"),
        ({}, [], "do not record how many steps were trained; give runs of the stage train"),
    ],
)
def test_accuracy_at_unequal_steps_is_no_pass(
    trained: Callable[..., Record], held: Held, budget: dict[str, Any], steps: list[Measurement], words: str
) -> None:
    """Accuracy is inconclusive where a budget in seconds or a target made the numbers of steps unequal."""

    def side(*counts: int) -> list[Record]:
        lasting = [[once("train.steps", "count", c, None)] if steps else [] for c in counts]
        return [trained(repeat=i, measured=measured, **budget) for i, measured in enumerate(lasting)]

    comparison = held(side(500, 500, 600), side(500, 500, 500))
    verdict = of(comparison, "train.test_accuracy")
    assert verdict.outcome == "inconclusive"
    assert verdict.remark.endswith(words)
    assert comparison.exit_code == 3


def test_a_fraction_of_nobody_knows_how_many_is_no_pass(repeats: Repeats, held: Held) -> None:
    """A fraction without a number of images is inconclusive, and its remark names the missing `n`."""
    before, after = (repeats(0.9, 0.9, 0.9, measured=[once("x.share", "fraction", v, "higher")]) for v in (0.9, 0.3))
    verdict = of(held(before, after), "x.share")
    assert (verdict.outcome, "remark n" in verdict.remark) == ("inconclusive", True)


def test_the_same_seed_again_is_no_further_repeat(repeats: Repeats, tmp_path: Path) -> None:
    """Three runs with one seed count as one training."""
    for run in range(3):
        (tmp_path / str(run)).mkdir()
        store.append(tmp_path / str(run), repeats(0.9)[0])
    runs = [tmp_path / str(run) for run in range(3)]
    verdict = of(compare(runs, runs), "train.test_accuracy")
    assert (verdict.outcome, verdict.n) == ("inconclusive", 1)


def seeded(training: Record, seed: int) -> Record:
    """Return a copy of a training with another seed."""
    task = training.task.model_copy(update={"seed": seed})
    return training.model_copy(update={"task": task, "key": task.key})


def test_repeats_of_an_engine_read_one_training(repeats: Repeats, held: Held) -> None:
    """Three repeats of an engine with the weights of one training count as one, whatever their seeds."""
    training = repeats(0.9)[0]
    engines = [inferred(training, repeat, 0.9) for repeat in range(3)]
    verdict = of(held([training, *engines], [training, *engines]), "infer.test_accuracy[engine=onnxruntime]")
    assert (verdict.outcome, verdict.n) == ("inconclusive", 1)
    assert verdict.remark.startswith("all repeats of a run read its first training; needs 3 runs per side with")


def test_an_engine_of_one_training_is_indicative_where_the_trainings_are_tested(repeats: Repeats, held: Held) -> None:
    """An engine's accuracy is indicative where that of the trainings is tested and the engine has parity."""
    trainings = repeats(0.9, 0.91, 0.905)
    sides = [[*trainings, inferred(trainings[0], 0, accuracy, parity())] for accuracy in (0.9, 0.7)]
    comparison = held(*sides)
    verdict = of(comparison, "infer.test_accuracy[engine=onnxruntime]")
    assert (verdict.outcome, verdict.n, verdict.change) == ("indicative", 1, pytest.approx(-0.2))
    assert verdict.remark.startswith("based on one training; see the test of the trainings' accuracy")
    assert comparison.exit_code == 0


@pytest.mark.parametrize(
    ("candidate", "told"),
    [(parity(lost=4, images=200), "undecided"), (parity(value=0), "failed"), ([], "not recorded")],
)
def test_an_engine_is_inconclusive_where_its_parity_is_not_ok(
    repeats: Repeats, held: Held, candidate: list[Measurement], told: str
) -> None:
    """Undecided, failed or missing parity in one candidate repeat makes the engine's accuracy inconclusive."""
    trainings = repeats(0.9, 0.91, 0.905)
    before = [*trainings, inferred(trainings[0], 0, 0.9, parity())]
    measured = [candidate, parity()] if candidate else [candidate]
    after = [*trainings, *(inferred(trainings[0], repeat, 0.7, each) for repeat, each in enumerate(measured))]
    comparison = held(before, after)
    verdict = of(comparison, "infer.test_accuracy[engine=onnxruntime]")
    assert (verdict.outcome, comparison.exit_code) == ("inconclusive", 3)
    assert f"the candidate's parity is {told}" in verdict.remark


def test_an_engine_is_inconclusive_where_no_training_is_tested(repeats: Repeats, held: Held) -> None:
    """An engine's accuracy is inconclusive where unequal steps keep that of its training untested."""
    trainings = repeats(0.9, 0.91, 0.905)
    longer = repeats(0.9, 0.91, 0.905, measured=[once("train.steps", "count", 501, None)])
    sides = [[*of_side, inferred(of_side[0], 0, 0.9, parity())] for of_side in (trainings, longer)]
    assert of(held(*sides), "infer.test_accuracy[engine=onnxruntime]").outcome == "inconclusive"


def test_engines_of_several_trainings_are_judged(repeats: Repeats, held: Held) -> None:
    """Engines of three trainings with seeds of their own are judged as three repeats."""
    runs = [seeded(repeats(0.9)[0], seed) for seed in (7, 8, 9)]
    records = [each for training in runs for each in (training, inferred(training, 0, 0.9), inferred(training, 1, 0.9))]
    verdict = of(held(records, records), "infer.test_accuracy[engine=onnxruntime]")
    assert (verdict.outcome, verdict.n) == ("same", 3)


@pytest.mark.parametrize(("after", "outcome"), [(0.9, "same"), (0.8999, "inconclusive"), (0.3, "inconclusive")])
def test_weights_that_were_not_trained_here_give_the_same_figure(
    repeats: Repeats, held: Held, after: float, outcome: str
) -> None:
    """Weights without a training must give an equal accuracy; any other accuracy is inconclusive."""
    training = repeats(0.9)[0]
    sides = ([inferred(training, repeat, accuracy) for repeat in range(2)] for accuracy in (0.9, after))
    verdict = of(held(*sides), "infer.test_accuracy[engine=onnxruntime]")
    assert (verdict.outcome, verdict.n) == (outcome, 1)
    assert ("the network was not trained" in verdict.remark) == (outcome == "inconclusive")


JUDGED = {
    "count": once("x", "count", 1),
    "artifact's size": once("x", "bytes", 1, artifact="onnx"),
    "memory": once("x", "bytes", 1),
    "fraction": once("x", "fraction", 1, "higher"),
}


@pytest.mark.parametrize("gone", JUDGED.values(), ids=JUDGED)
def test_a_judged_metric_that_vanished_is_missing(repeats: Repeats, held: Held, gone: Measurement) -> None:
    """A judged metric that the candidate lacks is missing and fails; a new metric does not."""
    comparison = held(repeats(0.9, measured=[gone]), repeats(0.9, measured=[once("x.new", "count", 1)]))
    [missing] = [v for v in comparison.verdicts if v.outcome == "missing"]
    assert missing.metric.startswith("x")
    assert comparison.exit_code == 1


def test_what_is_not_judged_may_vanish_and_is_listed(repeats: Repeats, held: Held) -> None:
    """Missing metrics that are not judged fail nothing; a note lists them, many figures by their number."""
    gone = [
        once("infer.latency", "s", 0.1, batch_size=64),
        once("infer.latency_steal", "s", 0.1, None, batch_size=64),
        *[once("infer.node_time", "s", 0.1, layer=str(i), operator="Conv") for i in range(3)],
        once("x.curve", "fraction", 0.5, "higher", {"step": 7}),
        once("x.rate", "images/s", 9, "higher"),
    ]
    comparison = held(repeats(*[0.9] * 3, measured=gone), repeats(*[0.9] * 3))
    assert comparison.exit_code == 0
    [note] = [note for note in comparison.notes if note.startswith("not measured in the candidate, and not judged")]
    assert note.endswith(
        ": infer.latency[batch_size=64], infer.latency_steal[batch_size=64], infer.node_time (3 figures), "
        "x.curve, x.rate"
    )


def test_a_cell_that_vanished_is_missing_and_a_new_one_is_named(repeats: Repeats, held: Held) -> None:
    """A cell only in the baseline is missing, a cell only in the candidate is named; the rest is compared."""
    common = repeats(0.9)
    comparison = held([*common, *repeats(0.9, model="vgg")], [*common, *repeats(0.9, model="nin")])
    assert [(v.cell, v.metric) for v in comparison.verdicts if v.outcome == "missing"] == [("cifar10/vgg/cpu", "train")]
    assert any("not in the baseline, and not compared: cifar10/nin/cpu train" in note for note in comparison.notes)
    assert comparison.exit_code == 1


ENDINGS = {
    ("ok", "failed"): ("error", " failed in the candidate: boom"),
    ("ok", "timeout"): ("error", " timed out in the candidate: boom"),
    ("failed", "failed"): ("error", " failed in the candidate: boom"),
    ("ok", "skipped"): ("missing", "skipped in the candidate: boom"),
    ("failed", "ok"): ("inconclusive", "the baseline failed: boom at line 3; repeat it"),
    ("timeout", "ok"): ("inconclusive", "the baseline timed out: boom at line 3; repeat it"),
    ("ok", "disturbed"): ("inconclusive", "the candidate was disturbed: boom at line 3; repeat it"),
    ("disturbed", "ok"): ("inconclusive", "the baseline was disturbed: boom at line 3; repeat it"),
    ("skipped", "failed"): ("error", " failed in the candidate: boom"),
}


def ended(repeats: Repeats, statuses: tuple[str, str]) -> list[list[Record]]:
    """Return a baseline and a candidate with these statuses."""
    return [repeats(0.9, status=s, error=None if s == "ok" else "boom\nat line 3") for s in statuses]


@pytest.mark.parametrize(("statuses", "expected"), ENDINGS.items(), ids=map("-".join, ENDINGS))
def test_what_did_not_end_well(
    repeats: Repeats, held: Held, statuses: tuple[str, str], expected: tuple[str, str]
) -> None:
    """A failed candidate is an error, a skipped one missing; a failed baseline or a disturbed side is inconclusive."""
    [verdict] = held(*ended(repeats, statuses)).verdicts
    assert verdict.outcome == expected[0]
    assert expected[1] in verdict.remark


SKIPPED = {
    ("skipped", "ok"): "skipped in the baseline",
    ("skipped", "skipped"): "skipped on both sides",
}


@pytest.mark.parametrize(("statuses", "words"), SKIPPED.items(), ids=map("-".join, SKIPPED))
def test_what_the_baseline_skipped_is_named_with_its_reason(
    repeats: Repeats, held: Held, statuses: tuple[str, str], words: str
) -> None:
    """A task that the baseline skipped gets a note, no verdict; without any verdict the exit code is 3."""
    comparison = held(*ended(repeats, statuses))
    assert comparison.verdicts == ()
    assert f"not compared: {CELL} train: {words}: boom at line 3" in comparison.notes
    assert comparison.exit_code == 3


def test_one_failed_repeat_is_an_error_and_the_others_are_compared(repeats: Repeats, held: Held) -> None:
    """A failed repeat is an error, and the times of the other repeats are still compared."""
    before = repeats(0.9, 0.9)
    after = [before[0], before[1].model_copy(update={"status": "failed", "error": "boom", "measurements": ()})]
    comparison = held(before, after)
    assert "1 of 2 failed in the candidate: boom" in of(comparison, "train").remark
    assert of(comparison, "train.step_time").outcome == "indicative"


def test_a_baseline_without_records_is_refused(repeats: Repeats, held: Held) -> None:
    """A baseline without records is refused."""
    with pytest.raises(UsageError, match="hold no record to compare with"):
        held([], repeats(0.9))


def test_a_candidate_without_records_lacks_everything(repeats: Repeats, held: Held) -> None:
    """Every cell of the baseline is missing from a candidate without records."""
    comparison = held(repeats(0.9), [])
    assert [(v.cell, v.outcome) for v in comparison.verdicts] == [(CELL, "missing")]


def test_a_newer_schema_is_refused_and_numbers_that_are_none(repeats: Repeats, held: Held, tmp_path: Path) -> None:
    """The error for a newer schema asks for an update, that for NaN names the line."""
    [record] = repeats(0.9)
    held([record], [record])
    for changes, words in (
        ({"schema": 99}, f"newer than {store.SCHEMA}.*update cnnperf"),
        ({"duration_s": float("nan")}, "line 1: .*NaN"),
    ):
        document = json.loads(record.model_dump_json(by_alias=True)) | changes
        (tmp_path / "candidate" / store.FILE).write_bytes(store.sealed(json.dumps(document).encode()))
        with pytest.raises(StoreError, match=words):
            compare([tmp_path / "baseline"], [tmp_path / "candidate"])


def stored(folder: Path, records: Iterable[Record]) -> Path:
    """Write records into a new folder and return it."""
    folder.mkdir()
    for each in records:
        store.append(folder, each)
    return folder


def on_threads(records: Iterable[Record], threads: int) -> list[Record]:
    """Return the records as those of tasks with this number of threads."""
    tasks = [(each, each.task.model_copy(update={"threads": threads})) for each in records]
    return [each.model_copy(update={"task": task, "key": task.key}) for each, task in tasks]


def test_a_reference_is_of_another_machine(
    repeats: Repeats, as_reference: Callable[[Path, str], str], tmp_path: Path
) -> None:
    """Threads may differ from a reference's, memory is only shown, and what the candidate lacks is not missing."""
    memory = [Measurement(metric="train.peak_above_start_bytes", unit="bytes", better="lower", values=(2**20,))]
    params = [Measurement(metric="train.parameters", unit="count", better="lower", values=(7,))]
    accuracies = (0.60, 0.61, 0.62)
    first = repeats(*accuracies, measured=[*memory, *params])
    run = stored(tmp_path / "theirs", [*first, *repeats(*accuracies, model="vgg")])
    more = [m.model_copy(update={"values": (2 * m.values[0],)}) for m in memory]
    mine = on_threads(repeats(*accuracies, measured=[*more, *params], host="mine"), 8)
    candidate = stored(
        tmp_path / "mine", [r.model_copy(update={"machine": r.machine.model_copy(update={"cores": 8})}) for r in mine]
    )
    with pytest.raises(UsageError, match=r"the runs differ in threads \(2 against 8\)"):
        compare([run], [candidate])
    comparison = compare([as_reference(run, "mnist")], [candidate])
    outcomes = {verdict.metric: verdict.outcome for verdict in comparison.verdicts}
    assert outcomes["train.parameters"] == outcomes["train.test_accuracy"] == "same"
    assert outcomes["train.peak_above_start_bytes"] == "indicative"
    assert "missing" not in outcomes.values()
    assert comparison.exit_code == 0
    notes = "\n".join(comparison.notes)
    assert "not in the candidate, and not compared: cifar10/vgg/cpu train\n" in notes
    assert "differences from the reference (allowed): threads (2 against 8)\n" in notes


def test_an_accuracy_that_a_reference_cannot_judge_has_its_intervals(
    trained: Callable[..., Record], as_reference: Callable[[Path, str], str], tmp_path: Path
) -> None:
    """With one training per side the accuracy is inconclusive; the remark says whether the intervals overlap."""
    run = stored(tmp_path / "theirs", [trained(accuracy=0.60)])
    name = as_reference(run, "cifar")
    for accuracy, words in ((0.61, "95 % intervals of the test images overlap (56.9 to 63.0 % and "), (0.9, "do not")):
        candidate = stored(tmp_path / f"mine-{accuracy}", [trained(accuracy=accuracy)])
        [verdict] = [v for v in compare([name], [candidate]).verdicts if v.metric == "train.test_accuracy"]
        assert verdict.outcome == "inconclusive"
        assert words in verdict.remark
        assert "needs 3 repeats per side" in verdict.remark
        [verdict] = [v for v in compare([run], [candidate]).verdicts if v.metric == "train.test_accuracy"]
        assert "intervals" not in verdict.remark


def test_a_candidate_that_shares_nothing_with_a_reference_is_refused(
    trained: Callable[..., Record], as_reference: Callable[[Path, str], str], tmp_path: Path
) -> None:
    """A candidate of other cells is refused with the cells of the reference."""
    name = as_reference(stored(tmp_path / "theirs", [trained()]), "cifar")
    with pytest.raises(UsageError, match=r"`candidate`: .*share nothing .*\(cifar10/lenet/cpu train\)"):
        compare([name], [stored(tmp_path / "mine", [trained("vgg")])])
