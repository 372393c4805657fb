"""Records of two runs that are divided by settings and tags before they are compared."""

from __future__ import annotations

import pytest
from compared import Held, Repeats, inferred, of, once, parity

from cnnperf.errors import UsageError
from cnnperf.record import Record
from cnnperf.regression.check import compare_records


@pytest.mark.parametrize("name", ["at", "never heard of"])
def test_a_remark_tells_no_figures_apart(repeats: Repeats, held: Held, name: str) -> None:
    """Figures that differ only in a remark, such as the layer of a peak, are compared."""
    before, after = (
        repeats(0.9, 0.9, measured=[once("x", "bytes", 100.0, remarks={name: value})]) for value in ("conv1", "conv2")
    )
    assert of(held(before, after), "x").outcome == "same"


@pytest.mark.parametrize("name", ["layer", "at"])
def test_a_tag_tells_figures_apart_whatever_its_name(repeats: Repeats, held: Held, name: str) -> None:
    """Figures with unlike tags are not compared, so the baseline's figure is missing from the candidate."""
    before, after = (
        repeats(0.9, 0.9, measured=[once("x", "bytes", 100.0, **{name: value})]) for value in ("conv1", "conv2")
    )
    assert of(held(before, after), f"x[{name}=conv1]").outcome == "missing"


def two_settings(repeats: Repeats, *, second: float = 0.9) -> list[Record]:
    """Return a run with two trainings that differ in lr, and an engine of each."""
    trainings = [repeats(a, a, a, lr=lr) for lr, a in ((0.1, 0.8), (0.5, second))]
    return [
        r for each in trainings for r in (*each, inferred(each[0], 0, 0.8, [*parity(), once("x.size", "count", 7)]))
    ]


def test_settings_that_were_changed_in_both_runs_are_each_compared_with_their_like(
    repeats: Repeats, held: Held
) -> None:
    """Trainings are compared by equal settings; each verdict names them, an engine's also those of its training."""
    comparison = held(two_settings(repeats), two_settings(repeats, second=0.5))
    outcomes = {v.metric: (v.outcome, v.n) for v in comparison.verdicts if v.outcome != "indicative"}
    assert outcomes == {
        "train.test_accuracy[train.lr=0.1]": ("same", 3),
        "train.test_accuracy[train.lr=0.5]": ("worse", 3),
        "x.size[infer.lr=0.1,train.lr=0.1]": ("same", 1),
        "x.size[infer.lr=0.5,train.lr=0.5]": ("same", 1),
    }


def test_a_setting_that_is_absent_in_one_of_two_is_named_in_both(repeats: Repeats, held: Held) -> None:
    """Each verdict names the setting, also where one training does not have it."""
    run = [r for target in (None, 0.6) for r in repeats(0.9, 0.9, 0.9, target_accuracy=target)]
    assert {v.metric for v in held(run, run).verdicts if v.outcome != "indicative"} == {
        "train.test_accuracy[train.target_accuracy=none]",
        "train.test_accuracy[train.target_accuracy=0.6]",
    }


def test_a_failure_under_other_settings_leaves_the_rest_compared(repeats: Repeats, held: Held) -> None:
    """A training that failed is an error under its settings; the other settings are still compared."""
    [good], [bad] = repeats(0.9, lr=0.1), repeats(0.9, lr=0.5)
    failed = bad.model_copy(update={"status": "failed", "error": "non-finite loss", "measurements": ()})
    verdicts = {v.metric: v.outcome for v in held([good, bad], [good, failed]).verdicts}
    assert verdicts["train[train.lr=0.5]"] == "error"
    assert verdicts["train.test_accuracy[train.lr=0.1]"] == "inconclusive"


def test_what_the_candidate_alone_tried_must_not_fail(repeats: Repeats, held: Held) -> None:
    """A failure only in the candidate, under new settings or in a new cell, is an error."""
    first, second, third = (repeats(0.9, 0.9, 0.9, lr=lr) for lr in (0.1, 0.5, 9.0))
    failure = {"status": "failed", "error": "non-finite loss", "measurements": ()}
    failed = [each.model_copy(update=failure) for each in third]
    comparison = compare_records([*first, *second], [*first, *second, *failed])
    assert of(comparison, "train[train.lr=9.0]").outcome == "error"
    assert "3 of 3 failed in the candidate: non-finite loss" in of(comparison, "train[train.lr=9.0]").remark
    assert comparison.exit_code == 1
    assert of(compare_records(first, [*first, *failed]), "train").outcome == "error"
    other = [each.model_copy(update=failure) for each in repeats(0.9, model="nin")]
    comparison = held(first, [*first, *other])
    assert [(v.cell, v.metric) for v in comparison.verdicts if v.outcome == "error"] == [("cifar10/nin/cpu", "train")]
    assert comparison.exit_code == 1


def test_settings_of_one_side_alone_are_refused(repeats: Repeats, held: Held) -> None:
    """A run with settings that the other side lacks is refused."""
    run = two_settings(repeats)
    with pytest.raises(UsageError, match=r"the runs differ in train.lr \(0.1 and 0.5 against 0.1\)"):
        held(run, run[:4])


def test_engines_of_different_trainings_are_refused(repeats: Repeats, held: Held) -> None:
    """Engines of unlike trainings are refused, though both sides have both trainings."""
    trainings = [r for lr in (0.1, 0.5) for r in repeats(0.9, lr=lr)]
    engines = [inferred(each, 0, 0.9) for each in trainings]
    alike = [each.task.model_copy(update={"settings": {"lr": 1}}) for each in engines]
    sides = (
        [*trainings, each.model_copy(update={"task": task, "key": task.key})]
        for each, task in zip(engines, alike, strict=True)
    )
    with pytest.raises(UsageError, match=r"different trainings \(train.lr=0.1 against train.lr=0.5\)"):
        held(*sides)
