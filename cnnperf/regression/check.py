"""The gate for stored runs: a candidate's records are compared with a baseline's, cell by cell and metric by metric."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cnnperf import record as store
from cnnperf.bench import trains
from cnnperf.errors import UsageError
from cnnperf.inference.outcome import parity_of
from cnnperf.machine.fingerprint import ALLOCATOR_VARIABLES
from cnnperf.record import Measurement, Record
from cnnperf.regression.judge import Compared, Pending, is_compared, is_judged, judge
from cnnperf.regression.rule import Rule
from cnnperf.regression.verdict import Comparison, Verdict
from cnnperf.sides import SIDES, Both
from cnnperf.stats import holm
from cnnperf.task import Scalar
from cnnperf.training.recipe import ways_to_equal_steps
from cnnperf.units import one_line

SettingWords = tuple[tuple[str, str], ...]
"""Settings by name, their values in words."""


class CellStage(NamedTuple):
    """What one stage of one cell measured; settings that a suite changed between two sittings make another work."""

    cell: str
    stage: str
    told: SettingWords = ()
    """The settings that distinguish it, its training's included; empty unless both sides measured several."""

    @property
    def name(self) -> str:
        """Name it for a reader."""
        return f"{self.cell} {_label((self.stage, self.told))}"


ACCURACY, STEPS = "train.test_accuracy", "train.steps"
"""What a training measures, whatever its stage's name."""
Metric = tuple[str, tuple[tuple[str, Scalar], ...]]
"""A metric and the tags that tell it apart."""
SideRecords = Mapping[CellStage, Sequence[Record]]


def compare(baseline: Iterable[str | Path], candidate: Iterable[str | Path], rule: Rule | None = None) -> Comparison:
    """Compare the records of the candidate's run folders with those of the baseline's.

    Raises UsageError with the differences if a cell's settings, data, threads, environment or seeds differ, StoreError
    for a folder that cannot be read or is of a newer cnnperf.
    """
    folders = Both(_folders(baseline), _folders(candidate))
    records = {folder: store.read(folder) for folder in dict.fromkeys((*folders.baseline, *folders.candidate))}
    before, after = ([record for folder in side for record in records[folder]] for side in folders)
    return compare_records(before, after, rule)


def compare_records(baseline: Iterable[Record], candidate: Iterable[Record], rule: Rule | None = None) -> Comparison:
    """Compare records with others, as `compare` does."""
    rule = rule or Rule()
    before, after = _by_work(Both(tuple(baseline), tuple(candidate)))
    if not before:
        raise UsageError("`baseline`: these runs hold no record to compare with; give runs with results")
    found = _found(before, after, rule)
    tested = [each for each in found if isinstance(each, Pending)]
    worse = iter(holm([each.p_worse(rule) for each in tested]))
    better = iter(holm([each.p_better(rule) for each in tested]))
    verdicts = [v.settled(rule, next(worse), next(better)) if isinstance(v, Pending) else v for v in found]
    verdicts.sort(key=lambda verdict: verdict.outcome == "indicative")
    return Comparison(verdicts=tuple(verdicts), notes=tuple(_notes(before, after, rule, len(tested))))


def _folders(runs: Iterable[str | Path]) -> tuple[Path, ...]:
    """Return the folders of runs, each once."""
    return tuple(dict.fromkeys(Path(run).resolve() for run in runs))


def _by_work(records: Both[tuple[Record, ...]]) -> Both[SideRecords]:
    """Divide the records of both sides into works.

    A stage of a cell is divided by its settings where each that ended well on one side was tried on the other too.
    """
    trained = Both(*({r.key: r for r in side if trains(r.task.stage)} for side in records))
    of_stages: dict[CellStage, Both[list[tuple[Record, SettingWords]]]] = {}
    for side in SIDES:
        for record in records.of(side):
            work = CellStage(record.task.cell.id, record.task.stage)
            found = of_stages.setdefault(work, Both([], []))
            found.of(side).append((record, _settings(record, trained.of(side))))
    divided: Both[dict[CellStage, list[Record]]] = Both({}, {})
    for work, stated in of_stages.items():
        found = _filled(stated)
        equal = _equal_settings(found)
        for works, of_side in zip(divided, found, strict=True):
            for record, settings in of_side:
                told = () if equal is None else tuple(each for each in settings if each not in equal)
                works.setdefault(work._replace(told=told), []).append(record)
    return Both(divided.baseline, divided.candidate)


def _filled(stated: Both[list[tuple[Record, SettingWords]]]) -> Both[list[tuple[Record, SettingWords]]]:
    """Return the records of a stage with a word for each setting that any of them has."""
    absent = {name: _word(None) for side in stated for _, settings in side for name, _ in settings}
    return Both(
        *([(record, tuple(sorted({**absent, **dict(words)}.items()))) for record, words in of] for of in stated)
    )


def _equal_settings(found: Both[list[tuple[Record, SettingWords]]]) -> set[tuple[str, str]] | None:
    """Return the settings that all records share; None if the records are not to be divided by the others."""
    tried = Both(*({settings for _, settings in side} for side in found))
    ended = Both(*({settings for record, settings in side if record.status == "ok"} for side in found))
    is_alike = ended.baseline <= tried.candidate and ended.candidate <= tried.baseline
    if len(ended.baseline | ended.candidate) < 2 or not is_alike:
        return None
    return set.intersection(*map(set, tried.baseline | tried.candidate))


def _settings(record: Record, trained: Mapping[str, Record]) -> SettingWords:
    """Return what must be equal in two records, and the settings of the training that a later stage reads."""
    of_training = next((_content(trained[key]) for key in record.task.needs if key in trained), {})
    content = {key: value for key, value in of_training.items() if "." in key} | _content(record)
    return tuple((key, _word(value)) for key, value in sorted(content.items()) if value is not None)


def _trainings_of(work: CellStage, side: SideRecords) -> tuple[CellStage, ...]:
    """Return the works that trained what a work measured: those that it reads, or all of its cell if it names none."""
    of_cell = tuple(other for other in side if other.cell == work.cell and trains(other.stage))
    if trains(work.stage):
        return tuple(other for other in of_cell if other.told == work.told)
    needed = {key for r in side.get(work, ()) for key in r.task.needs}
    return tuple(other for other in of_cell if any(r.key in needed for r in side[other])) or of_cell


def _found(before: SideRecords, after: SideRecords, rule: Rule) -> list[Verdict | Pending]:
    """Compare all stages of all cells, and return the results in the baseline's order, then the candidate's failures.

    Trainings are compared first: if the accuracy of one is tested, accuracies that later stages measure of it are not.
    """
    found: dict[CellStage, list[Verdict | Pending]] = {}
    tested: set[CellStage] = set()
    accuracy = {work: _label((ACCURACY, work.told)) for work in before if trains(work.stage)}
    for work in sorted(before, key=lambda work: not trains(work.stage)):
        is_training_judged = not tested.isdisjoint(_trainings_of(work, before))
        found[work] = list(_compare(work, before, after, rule, is_training_judged=is_training_judged))
        if any(isinstance(v, Pending) and v.verdict.metric == accuracy.get(work) for v in found[work]):
            tested.add(work)
    added = (_failed(work, records) for work, records in after.items() if work not in before)
    return [*(each for work in before for each in found[work]), *(verdict for verdict in added if verdict)]


def _compare(
    work: CellStage, before: SideRecords, after: SideRecords, rule: Rule, *, is_training_judged: bool
) -> Iterator[Verdict | Pending]:
    """Compare all metrics of one stage of one cell; a stage that failed, was skipped or is missing has one verdict."""
    baseline, candidate = before[work], after.get(work, ())
    ended = _ended(work, baseline, candidate)
    if ended:
        yield ended
    first, second = _ok(baseline), _ok(candidate)
    if not first or not second:
        return
    _refuse_unlike(work, first, second)
    _refuse_unlike_trainings(work, before, after)
    unlike = "; ".join(_differences(*([_capacity(r) for r in side] for side in (first, second))))
    old, new = _metrics(first), _metrics(second)
    for metric, measured in old.items():
        if metric not in new and is_judged(measured[0][1]):
            reason = "measured in the baseline and not in the candidate"
            yield Verdict(cell=work.cell, metric=_label(metric, work.told), outcome="missing", remark=reason)
        elif metric in new and is_compared(measured[0][1]):
            sides = Both(measured, new[metric])
            yield judge(
                Compared(
                    cell=work.cell,
                    metric=_label(metric, work.told),
                    sides=Both(*(tuple(m for _, m in side) for side in sides)),
                    seeds=Both(*(tuple(_training_seed(r) for r, _ in side) for side in sides)),
                    is_of_training=trains(work.stage),
                    is_trained=any(_trainings(work, side) for side in (before, after)),
                    is_training_judged=is_training_judged,
                    parity=parity_of(r for r, _ in sides.candidate),
                    unequal_training=_unequal_training(work, before, after),
                    unlike_machines=unlike or None,
                ),
                rule,
            )


def _training_seed(record: Record) -> int:
    """Return the seed of the training that a record describes: any later stage reads the training of repeat 0."""
    task = record.task
    return task.seed if trains(task.stage) else task.seed - task.repeat


def _trainings(work: CellStage, side: SideRecords) -> tuple[Record, ...]:
    """Return the records of the trainings of what a work measured."""
    return tuple(r for training in _trainings_of(work, side) for r in side[training])


def _ended(work: CellStage, baseline: Sequence[Record], candidate: Sequence[Record]) -> Verdict | None:
    """Return the verdict on a stage that failed, was skipped or is missing on a side.

    None if it ended well on both sides, or if the baseline skipped it and the candidate did not fail.
    """
    cell, stage = work.cell, _label((work.stage, work.told))
    if failed := _failed(work, candidate):
        return failed
    if _is_skipped(baseline):
        return None
    if not _ok(baseline):
        bad = next(r for r in baseline if r.status != "skipped")
        why = f"the baseline {bad.status}: {one_line(bad.error or '')}; make one that is ok"
        return Verdict(cell=cell, metric=stage, outcome="inconclusive", remark=why)
    if not _ok(candidate):
        why = f"skipped in the candidate: {one_line(candidate[0].error or '')}" if candidate else "not in the candidate"
        return Verdict(cell=cell, metric=stage, outcome="missing", remark=why)
    return None


def _failed(work: CellStage, candidate: Sequence[Record]) -> Verdict | None:
    """Return the verdict on a stage that failed in the candidate, whether the baseline has it or not; else None."""
    failed = [r for r in candidate if r.status in ("failed", "timeout")]
    if not failed:
        return None
    why = f"{len(failed)} of {len(candidate)} in the candidate {failed[0].status}: {one_line(failed[0].error or '')}"
    return Verdict(cell=work.cell, metric=_label((work.stage, work.told)), outcome="error", remark=why)


def _ok(records: Iterable[Record]) -> list[Record]:
    return [r for r in records if r.status == "ok"]


def _is_skipped(records: Sequence[Record]) -> bool:
    return bool(records) and all(r.status == "skipped" for r in records)


def _metrics(records: Iterable[Record]) -> dict[Metric, list[tuple[Record, Measurement]]]:
    """Group what records measured; the points of a curve are one metric."""
    found: dict[Metric, list[tuple[Record, Measurement]]] = defaultdict(list)
    for r in records:
        for m in r.measurements:
            found[m.metric, tuple(sorted(m.tags.items()))].append((r, m))
    return found


def _label(metric: tuple[str, Iterable[tuple[str, Scalar]]], told: SettingWords = ()) -> str:
    """Name a metric with its tags, and with the settings by which its work is told apart."""
    name, tags = metric[0], (*metric[1], *told)
    return f"{name}[{','.join(f'{key}={value}' for key, value in tags)}]" if tags else name


def _refuse_unlike(work: CellStage, baseline: Sequence[Record], candidate: Sequence[Record]) -> None:
    """Raise UsageError if settings, data, threads, environment or seeds differ: all figures depend on them."""
    found = [_content(r) for r in (*baseline, *candidate)]
    contents = [dict.fromkeys(key for each in found for key in each) | content for content in found]
    differences = list(_differences(contents[: len(baseline)], contents[len(baseline) :]))
    seeds = Both(*(sorted({r.task.seed - r.task.repeat for r in side}) for side in (baseline, candidate)))
    if seeds.baseline != seeds.candidate:
        differences.append(f"seed ({_listed(seeds.baseline)} against {_listed(seeds.candidate)})")
    if differences:
        raise UsageError(f"{work.name}: the runs differ in {', '.join(differences)}; compare runs that are alike")


def _refuse_unlike_trainings(work: CellStage, before: SideRecords, after: SideRecords) -> None:
    """Raise UsageError if the sides read different ones of several trainings."""
    read = Both(*([training.told for training in _trainings_of(work, side)] for side in (before, after)))
    if all(read) and set(read.baseline) != set(read.candidate):
        words = (_listed(", ".join(f"{key}={value}" for key, value in told) for told in of_side) for of_side in read)
        raise UsageError(
            f"{work.name}: the runs read different trainings ({' against '.join(words)}); compare runs that are alike"
        )


def _content(record: Record) -> dict[str, Any]:
    """Return what must be equal in two records, by name."""
    task = record.task
    data = task.data.model_dump(exclude={"source", "fallback"}) if task.data else {}
    return {
        **{f"{task.stage}.{key}": value for key, value in task.settings.items()},
        **{f"data.{key}": value for key, value in data.items()},
        "threads": task.threads,
        "waiting": task.waiting,
        "allocator": task.allocator,
    }


def _capacity(record: Record) -> dict[str, Any]:
    """Return what must be equal for memory to be compared; without the host's name, which is new in each container."""
    machine, device = record.machine, record.task.cell.device.name
    # In whole GiB, because kernels reserve slightly different amounts.
    facts = {**machine.model_dump(include={"cores", "governor"}), "memory": f"{machine.memory_bytes / 2**30:.0f} GiB"}
    facts |= {"cpu": machine.label("cpu"), "instruction_sets": machine.instruction_sets}
    if device != "cpu" and (gpu := machine.label(device)):
        facts["gpu"] = gpu
    if machine.platform:
        facts |= machine.platform.model_dump(include={"page_bytes", "transparent_hugepages"})
    if machine.environment is not None:
        allocator = {k: v for k, v in machine.environment.items() if k.startswith(ALLOCATOR_VARIABLES)}
        facts["allocator"] = " ".join(f"{name}={value}" for name, value in allocator.items()) or "default"
    return facts


def _versions(record: Record) -> dict[str, Any]:
    """Return what may differ between the sides and is listed; facts that the record lacks are left out."""
    machine = record.machine
    told: dict[str, Any] = {}
    if machine.processor:
        told |= machine.processor.model_dump(include={"microcode", "hypervisor"})
    if machine.libraries:
        told |= machine.libraries.model_dump(include={"onednn", "mkl", "cpu_capability", "cudnn"})
        for name in ("openmp", "allocators"):
            told[name] = " + ".join(getattr(machine.libraries, name) or ())
    others = {k: v for k, v in (machine.environment or {}).items() if not k.startswith(ALLOCATOR_VARIABLES)}
    return {
        **machine.model_dump(include={"host", "os", "driver", "python", "commit"}),
        **machine.packages,
        **{name: value for name, value in (told | others).items() if value},
    }


def _differences(
    baseline: Sequence[Mapping[str, Any]], candidate: Sequence[Mapping[str, Any]], *, is_mixed: bool = False
) -> Iterator[str]:
    """Yield the facts that differ, with the values of both sides; records without a fact are ignored.

    is_mixed: a side may have several values of a fact, from different processes; the other must have the same set.
    """
    sides = baseline, candidate
    for key in dict.fromkeys(key for facts in (*baseline, *candidate) for key in facts):
        one, other = ([_word(facts[key]) for facts in side if key in facts] or ["none"] for side in sides)
        if set(one) != set(other) if is_mixed else len({*one, *other}) > 1:
            yield f"{key} ({_listed(one)} against {_listed(other)})"


def _word(value: Any) -> str:
    return "none" if value is None else str(value)


def _listed(values: Iterable[Any]) -> str:
    return " and ".join(dict.fromkeys(map(str, values)))


def _unequal_training(work: CellStage, before: SideRecords, after: SideRecords) -> str | None:
    """Return why the trainings of what a work measured were not equally long; None if they were."""
    trained = Both(*(_trainings(work, side) for side in (before, after)))
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
        (_versions, True, "different, which is allowed"),
        (_capacity, False, "machines differ, so memory is not compared"),
    ):
        differences = list(_differences(*([facts(r) for r in side] for side in records), is_mixed=is_mixed))
        if differences and all(records):
            yield f"{words}: {', '.join(differences)}"
    yield from _skipped(before, after)
    vanished = _vanished(before, after)
    if vanished:
        yield f"not measured in the candidate, and not judged: {', '.join(vanished)}"
    new = [work.name for work in after if work not in before]
    if new:
        yield f"not in the baseline, and not compared: {', '.join(new)}"
    unequal = list(_unequal_tests(before, after))
    if unequal:
        yield f"tested on different numbers of images, and each training weighs the same: {', '.join(unequal)}"
    yield (
        f"counts and artifacts' sizes must be equal, memory of two repeats a side or more may grow by "
        f"{100 * rule.theta:g} %; of fractions a loss of {100 * rule.tau:g} point is ignored, one of "
        f"{100 * rule.theta:g} points must be excluded"
    )
    if tests:
        yield (
            f"if none of the {tests} tested fractions loses more than {100 * rule.tau:g} point, at most "
            f"{100 * rule.alpha:g} % of checks call any worse (Holm); one that loses {100 * rule.theta:g} points is "
            f"called the same in at most {100 * rule.beta:g} % of checks"
        )
    yield "times and speeds are indicative: two processes that run the same code easily differ by 20 %"


def _skipped(before: SideRecords, after: SideRecords) -> Iterator[str]:
    """Yield the tasks that the baseline skipped, which cannot be compared, with the reason."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for work, records in before.items():
        if _is_skipped(records):
            where = "on both sides" if _is_skipped(after.get(work, ())) else "in the baseline"
            reasons[f"skipped {where}: {one_line(records[0].error or '')}"].append(work.name)
    for reason, works in reasons.items():
        yield f"not compared: {', '.join(works)}: {reason}"


def _unequal_tests(before: SideRecords, after: SideRecords) -> Iterator[str]:
    """Yield the stages of cells whose accuracies were tested on different numbers of images, with these numbers."""
    for work, records in before.items():
        tests = (m for r in _ok((*records, *after.get(work, ()))) for m in r.find(f"{work.stage}.test_accuracy"))
        counts = {int(m.remarks["n"]) for m in tests if "n" in m.remarks}
        if len(counts) > 1:
            yield f"{work.name} ({min(counts):,} to {max(counts):,})"


def _vanished(before: SideRecords, after: SideRecords) -> list[str]:
    """Return the metrics without judgement that the candidate lacks; several of one name as their number."""
    found: dict[str, list[str]] = defaultdict(list)
    for work, records in before.items():
        new = _metrics(_ok(after.get(work, ())))
        for metric, measured in _metrics(_ok(records)).items() if new else ():
            if metric not in new and not is_judged(measured[0][1]):
                found[metric[0]].append(_label(metric, work.told))
    return [labels[0] if len(labels) == 1 else f"{name} ({len(labels)} figures)" for name, labels in found.items()]
