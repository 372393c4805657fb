"""The gate for stored runs: a candidate's records are compared with a baseline's, cell by cell and metric by metric."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from cnnperf.bench import metrics_of, trains
from cnnperf.errors import UsageError, names_listed
from cnnperf.inference.outcome import parity_of
from cnnperf.record import Record, located, read, reference_runs
from cnnperf.regression.benchmark_files import compare_files, is_benchmark_file
from cnnperf.regression.cell_stages import (
    CellStage,
    SideRecords,
    all_skipped,
    by_cell_stage,
    by_metric,
    ended_well,
    metric_label,
    training_records,
    trainings_of,
)
from cnnperf.regression.conditions import capacity_facts, differing_facts, listed, required_facts, version_facts
from cnnperf.regression.judge import INDICATIVE_TIMES, Compared, Pending, is_compared, is_judged, judge
from cnnperf.regression.rule import Rule
from cnnperf.regression.verdict import Comparison, Verdict
from cnnperf.sides import Both
from cnnperf.stats import holm
from cnnperf.training.recipe import ways_to_equal_steps
from cnnperf.units import one_line

ACCURACY, STEPS = "train.test_accuracy", "train.steps"
"""Metrics that every training measures, whatever the name of its stage."""
FREE = ("threads",)
"""Facts that may differ from those of a reference, which another machine measured."""
_FAILED = {"failed": "failed", "timeout": "timed out"}
_ENDED = {**_FAILED, "disturbed": "was disturbed"}
"""The statuses of a task that failed, and of one that did not end well, in words."""


def compare(baseline: Iterable[str | Path], candidate: Iterable[str | Path], rule: Rule | None = None) -> Comparison:
    """Compare the records of the candidate's run folders with those of the baseline's.

    A baseline that comes with cnnperf is a reference of another machine: the number of threads may differ, memory is
    only shown, and only the cells and stages that the candidate has are compared. JSON files of pytest-benchmark are
    listed, if both sides give nothing else: their times are indicative.

    Raises UsageError with the differences if a cell's settings, data, threads, environment or seeds differ, StoreError
    for a folder that cannot be read or is of a newer cnnperf.
    """
    given = Both(tuple(map(Path, baseline)), tuple(map(Path, candidate)))
    if _are_benchmark_files(given):
        return compare_files(given)
    folders = Both(*map(_folders, given))
    records = {folder: read(folder) for folder in dict.fromkeys((*folders.baseline, *folders.candidate))}
    before, after = ([record for folder in side for record in records[folder]] for side in folders)
    return compare_records(before, after, rule, is_reference=hold_a_reference(folders.baseline))


def hold_a_reference(folders: Iterable[Path]) -> bool:
    """Return whether any of these folders holds a run that comes with cnnperf."""
    return not {folder.resolve() for folder in reference_runs().values()}.isdisjoint(folders)


def compare_records(
    baseline: Iterable[Record], candidate: Iterable[Record], rule: Rule | None = None, *, is_reference: bool = False
) -> Comparison:
    """Compare records with others, as `compare` does. is_reference: whether the baseline is one."""
    rule = rule or Rule()
    before, after = by_cell_stage(Both(tuple(baseline), tuple(candidate)))
    if not before:
        raise UsageError("`baseline`: these runs hold no record to compare with; give runs with results")
    notes: tuple[str, ...] = ()
    if is_reference:
        before, notes = _shared(before, after)
    found = _found(before, after, rule, is_reference=is_reference)
    tested = [each for each in found if isinstance(each, Pending)]
    worse = iter(holm([each.p_worse(rule) for each in tested]))
    better = iter(holm([each.p_better(rule) for each in tested]))
    verdicts = [v.settled(rule, next(worse), next(better)) if isinstance(v, Pending) else v for v in found]
    verdicts.sort(key=lambda verdict: verdict.outcome == "indicative")
    return Comparison(verdicts=tuple(verdicts), notes=(*notes, *_notes(before, after, rule, len(tested))))


def _are_benchmark_files(given: Both[tuple[Path, ...]]) -> bool:
    """Return whether all that is given are files of pytest-benchmark. Raises UsageError if only a part is."""
    runs = [path for side in given for path in side if not is_benchmark_file(path)]
    files = [path for side in given for path in side if is_benchmark_file(path)]
    if runs and files:
        raise UsageError(
            f"{files[0]} is a file of pytest-benchmark and {runs[0]} is none; give such files on both sides, or runs"
        )
    return bool(files)


def _folders(runs: Iterable[str | Path]) -> tuple[Path, ...]:
    """Return the folders of runs, each once."""
    return tuple(dict.fromkeys(located(run).resolve() for run in runs))


def _shared(reference: SideRecords, candidate: SideRecords) -> tuple[SideRecords, tuple[str, ...]]:
    """Return the part of a reference that the candidate has too, and notes on the rest and on unlike threads.

    Raises UsageError if they share no stage of a cell.
    """
    shared = {cell_stage: records for cell_stage, records in reference.items() if cell_stage in candidate}
    if not shared:
        known = names_listed(cell_stage.name for cell_stage in reference)
        raise UsageError(f"`candidate`: these runs share nothing with the baseline; give runs of its suite ({known})")
    sides = Both(shared, {cell_stage: candidate[cell_stage] for cell_stage in shared})
    free = [[{name: required_facts(r)[name] for name in FREE} for of in side.values() for r in of] for side in sides]
    told = {
        "not in the candidate, and not compared": names_listed(each.name for each in reference if each not in shared),
        "differences from the reference (allowed)": ", ".join(differing_facts(*free, is_mixed=True)),
    }
    return shared, tuple(f"{about}: {words}" for about, words in told.items() if words)


def _found(before: SideRecords, after: SideRecords, rule: Rule, *, is_reference: bool) -> list[Verdict | Pending]:
    """Compare all stages of all cells, and return the results in the baseline's order, then the candidate's failures.

    Trainings are compared first: if the accuracy of one is tested, accuracies that later stages measure of it are not.
    """
    found: dict[CellStage, list[Verdict | Pending]] = {}
    tested: set[CellStage] = set()
    accuracy = {
        cell_stage: metric_label((ACCURACY, cell_stage.told)) for cell_stage in before if trains(cell_stage.stage)
    }
    for cell_stage in sorted(before, key=lambda cell_stage: not trains(cell_stage.stage)):
        is_training_judged = not tested.isdisjoint(trainings_of(cell_stage, before))
        found[cell_stage] = list(
            _compare(cell_stage, before, after, rule, is_training_judged=is_training_judged, is_reference=is_reference)
        )
        if any(isinstance(v, Pending) and v.verdict.metric == accuracy.get(cell_stage) for v in found[cell_stage]):
            tested.add(cell_stage)
    added = (_failed(cell_stage, records) for cell_stage, records in after.items() if cell_stage not in before)
    return [*(each for cell_stage in before for each in found[cell_stage]), *(verdict for verdict in added if verdict)]


def _compare(
    cell_stage: CellStage,
    before: SideRecords,
    after: SideRecords,
    rule: Rule,
    *,
    is_training_judged: bool,
    is_reference: bool,
) -> Iterator[Verdict | Pending]:
    """Compare all metrics of one stage of one cell; a stage that failed, was skipped or is missing has one verdict."""
    baseline, candidate = before[cell_stage], after.get(cell_stage, ())
    ended = _ended(cell_stage, baseline, candidate)
    if ended:
        yield ended
    first, second = ended_well(baseline), ended_well(candidate)
    if not first or not second:
        return
    _refuse_unlike(cell_stage, first, second, free=FREE if is_reference else ())
    _refuse_unlike_trainings(cell_stage, before, after)
    unlike = "; ".join(differing_facts(*([capacity_facts(r) for r in side] for side in (first, second))))
    old, new = by_metric(first), by_metric(second)
    for metric, measured in old.items():
        if metric not in new and is_judged(measured[0][1]):
            reason = "measured in the baseline and not in the candidate"
            yield Verdict(
                cell=cell_stage.cell, metric=metric_label(metric, cell_stage.told), outcome="missing", remark=reason
            )
        elif metric in new and is_compared(measured[0][1]):
            sides = Both(measured, new[metric])
            yield judge(
                Compared(
                    cell=cell_stage.cell,
                    metric=metric_label(metric, cell_stage.told),
                    sides=Both(*(tuple(m for _, m in side) for side in sides)),
                    seeds=Both(*(tuple(_training_seed(r) for r, _ in side) for side in sides)),
                    is_of_training=trains(cell_stage.stage),
                    is_trained=any(training_records(cell_stage, side) for side in (before, after)),
                    is_training_judged=is_training_judged,
                    parity=parity_of(r for r, _ in sides.candidate),
                    unequal_training=_unequal_training(cell_stage, before, after),
                    unlike_machines=unlike or None,
                    is_reference=is_reference,
                ),
                rule,
            )


def _training_seed(record: Record) -> int:
    """Return the seed of the training that a record describes: any later stage reads the training of repeat 0."""
    task = record.task
    return task.seed if trains(task.stage) else task.seed - task.repeat


def _ended(cell_stage: CellStage, baseline: Sequence[Record], candidate: Sequence[Record]) -> Verdict | None:
    """Return the verdict on a stage that failed, was skipped or is missing on a side.

    None if it ended well on both sides, or if the baseline skipped it and the candidate did not fail.
    """
    cell, stage = cell_stage.cell, metric_label((cell_stage.stage, cell_stage.told))
    if failed := _failed(cell_stage, candidate):
        return failed
    if all_skipped(baseline):
        return None
    if not ended_well(baseline):
        bad = next(r for r in baseline if r.status != "skipped")
        why = f"the baseline {_ENDED[bad.status]}: {one_line(bad.error or '')}; repeat it"
        return Verdict(cell=cell, metric=stage, outcome="inconclusive", remark=why)
    if not ended_well(candidate):
        if stayed := next((r for r in candidate if r.status == "disturbed"), None):
            why = f"the candidate {_ENDED[stayed.status]}: {one_line(stayed.error or '')}; repeat it"
            return Verdict(cell=cell, metric=stage, outcome="inconclusive", remark=why)
        why = f"skipped in the candidate: {one_line(candidate[0].error or '')}" if candidate else "not in the candidate"
        return Verdict(cell=cell, metric=stage, outcome="missing", remark=why)
    return None


def _failed(cell_stage: CellStage, candidate: Sequence[Record]) -> Verdict | None:
    """Return the verdict on a stage that failed in the candidate, whether the baseline has it or not; else None."""
    failed = [r for r in candidate if r.status in _FAILED]
    if not failed:
        return None
    how = f"{_FAILED[failed[0].status]} in the candidate"
    why = f"{len(failed)} of {len(candidate)} {how}: {one_line(failed[0].error or '')}"
    return Verdict(
        cell=cell_stage.cell, metric=metric_label((cell_stage.stage, cell_stage.told)), outcome="error", remark=why
    )


def _refuse_unlike(
    cell_stage: CellStage, baseline: Sequence[Record], candidate: Sequence[Record], *, free: Collection[str]
) -> None:
    """Raise UsageError if settings, data, threads, environment or seeds differ: all figures depend on them.

    free: names of those that may differ.
    """
    required = (required_facts(r) for r in (*baseline, *candidate))
    found = [{name: value for name, value in facts.items() if name not in free} for facts in required]
    contents = [dict.fromkeys(key for each in found for key in each) | content for content in found]
    differences = list(differing_facts(contents[: len(baseline)], contents[len(baseline) :]))
    seeds = Both(*(sorted({r.task.seed - r.task.repeat for r in side}) for side in (baseline, candidate)))
    if seeds.baseline != seeds.candidate:
        differences.append(f"seed ({listed(seeds.baseline)} against {listed(seeds.candidate)})")
    if differences:
        raise UsageError(f"{cell_stage.name}: the runs differ in {', '.join(differences)}; compare runs that are alike")


def _refuse_unlike_trainings(cell_stage: CellStage, before: SideRecords, after: SideRecords) -> None:
    """Raise UsageError if the sides read different ones of several trainings."""
    trainings = Both(*([training.told for training in trainings_of(cell_stage, side)] for side in (before, after)))
    if all(trainings) and set(trainings.baseline) != set(trainings.candidate):
        words = (
            listed(", ".join(f"{key}={value}" for key, value in told) for told in of_side) for of_side in trainings
        )
        raise UsageError(
            f"{cell_stage.name}: the runs read different trainings ({' against '.join(words)}); "
            "compare runs that are alike"
        )


def _unequal_training(cell_stage: CellStage, before: SideRecords, after: SideRecords) -> str | None:
    """Return why the trainings that a stage of a cell reads were not equally long; None if they were."""
    trained = Both(*(training_records(cell_stage, side) for side in (before, after)))
    steps = Both(*({v for r in side for m in r.find(STEPS) for v in m.values} for side in trained))
    if not all(steps):
        return "the runs do not record how many steps were trained; give runs of the stage train"
    if len(steps.baseline | steps.candidate) > 1:
        ends = (f"{min(side):g}–{max(side):g}" if len(side) > 1 else f"{max(side):g}" for side in steps)
        cures = ways_to_equal_steps(r.task.settings for side in trained for r in side)
        return f"trained for {' against '.join(ends)} steps; {' and '.join(cures)}"
    return None


def _notes(before: SideRecords, after: SideRecords, rule: Rule, tests: int) -> Iterator[str]:
    """Yield the notes on the verdicts."""
    if tests:
        yield (
            "in brackets: the least and the greatest change that is not excluded, each a one-sided bound at "
            f"{100 * (1 - rule.beta):g} %"
        )
    records = [[r for of in side.values() for r in of] for side in (before, after)]
    for facts, is_mixed, words in (
        (version_facts, True, "differences (allowed)"),
        (capacity_facts, False, "machines differ, so memory is not compared"),
    ):
        differences = list(differing_facts(*([facts(r) for r in side] for side in records), is_mixed=is_mixed))
        if differences and all(records):
            yield f"{words}: {', '.join(differences)}"
    yield from _skipped(before, after)
    vanished = _vanished(before, after)
    if vanished:
        yield f"not measured in the candidate, and not judged: {', '.join(vanished)}"
    new = [cell_stage.name for cell_stage in after if cell_stage not in before]
    if new:
        yield f"not in the baseline, and not compared: {', '.join(new)}"
    unequal = list(_unequal_tests(before, after))
    if unequal:
        yield f"tested on different numbers of images, and each training weighs the same: {', '.join(unequal)}"
    yield (
        f"counts and artifacts' sizes must be equal, memory of two or more repeats per side may grow by "
        f"{100 * rule.theta:g} %; of fractions a loss of {100 * rule.tau:g} point is ignored, one of "
        f"{100 * rule.theta:g} points must be excluded"
    )
    if tests:
        yield (
            f"if none of the {tests} tested fractions loses more than {100 * rule.tau:g} point, at most "
            f"{100 * rule.alpha:g} % of checks call any worse (Holm); one that loses {100 * rule.theta:g} points is "
            f"called the same in at most {100 * rule.beta:g} % of checks"
        )
    yield INDICATIVE_TIMES


def _skipped(before: SideRecords, after: SideRecords) -> Iterator[str]:
    """Yield the tasks that the baseline skipped, which cannot be compared, with the reason."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for cell_stage, records in before.items():
        if all_skipped(records):
            where = "on both sides" if all_skipped(after.get(cell_stage, ())) else "in the baseline"
            reasons[f"skipped {where}: {one_line(records[0].error or '')}"].append(cell_stage.name)
    for reason, names in reasons.items():
        yield f"not compared: {', '.join(names)}: {reason}"


def _unequal_tests(before: SideRecords, after: SideRecords) -> Iterator[str]:
    """Yield the stages of cells whose accuracies were tested on different numbers of images, with these numbers."""
    for cell_stage, records in before.items():
        metric = f"{metrics_of(cell_stage.stage)}.test_accuracy"
        tests = (m for r in ended_well((*records, *after.get(cell_stage, ()))) for m in r.find(metric))
        counts = {int(m.remarks["n"]) for m in tests if "n" in m.remarks}
        if len(counts) > 1:
            yield f"{cell_stage.name} ({min(counts):,} to {max(counts):,})"


def _vanished(before: SideRecords, after: SideRecords) -> list[str]:
    """Return the metrics without judgement that the candidate lacks; several of one name as their number."""
    found: dict[str, list[str]] = defaultdict(list)
    for cell_stage, records in before.items():
        new = by_metric(ended_well(after.get(cell_stage, ())))
        for metric, measured in by_metric(ended_well(records)).items() if new else ():
            if metric not in new and not is_judged(measured[0][1]):
                found[metric[0]].append(metric_label(metric, cell_stage.told))
    return [labels[0] if len(labels) == 1 else f"{name} ({len(labels)} figures)" for name, labels in found.items()]
