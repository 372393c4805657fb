"""Two versions measured in turns, from their names to the verdicts: `cnnperf.ab`."""

from __future__ import annotations

import math
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from cnnperf.duet.contest import METRICS_IN_TURNS, Version, contests
from cnnperf.duet.pair import Patience
from cnnperf.errors import UsageError
from cnnperf.ipc.messages import Prepared, Ready, SuiteRequest
from cnnperf.registry import declared, having
from cnnperf.regression import gate, revisions
from cnnperf.regression.gate_verdict import comparison
from cnnperf.regression.rule import TYPICAL_DEVIATIONS, Rule, power_words
from cnnperf.regression.samples_file import SAMPLES_FILE, refuse_unwritable
from cnnperf.regression.verdict import Comparison
from cnnperf.running.preflight import prepare
from cnnperf.running.runner import created, folder_to_make
from cnnperf.sides import PAIRS, Both
from cnnperf.suite import Suite, load_suite
from cnnperf.task import Task
from cnnperf.training.recipe import FORWARD_SETTINGS, timed
from cnnperf.units import amount_of

SETTERS = Both("`baseline_set`", "`candidate_set`")
"""The arguments that change settings, as messages name them."""
UNTIMED_CURE = "list the model twice in `models`, once with the setting, and compare the rows"
"""Way to see the effect of a setting that is not timed."""


class ComparisonWatcher(gate.GateWatcher, Protocol):
    """Listener to a comparison, including its preflight."""

    def downloading(self, dataset: str, done: int, total: int) -> None:
        """A dataset is downloading: bytes received, and bytes in total."""

    def installing(self, text: str) -> None:
        """An environment is made for a revision, which takes minutes; the text names the revision and the reason."""


class UnwatchedComparison(gate.UnwatchedGate):
    """Listener that ignores all events."""

    def downloading(self, dataset: str, done: int, total: int) -> None:
        """Say nothing."""

    def installing(self, text: str) -> None:
        """Say nothing."""


def ab(
    suite: str | Path | Suite,
    *,
    baseline: str | None = None,
    candidate: str | None = None,
    only: str | None = None,
    minutes: float | None = None,
    threads: int | None = None,
    pairs: int = PAIRS[1],
    baseline_set: Sequence[str] = (),
    candidate_set: Sequence[str] = (),
    data: Path | None = None,
    out: Path | None = None,
    allow_busy: bool = False,
    dry_run: bool = False,
    watcher: ComparisonWatcher | None = None,
) -> Comparison:
    """Tell whether one version is slower than another in training or inference, by measuring both in turns.

        comparison = cnnperf.ab("ci", baseline="HEAD~1", candidate="HEAD", minutes=8)
        print(comparison.summary)

    suite: a TOML file, the name of a suite that ships, or a Suite. baseline, candidate: a git revision, a Python
    interpreter or a virtual environment; `.` is this tree, and so is None, for the baseline only where a setting is
    changed. only: a glob over the cells. minutes: time limit of the measurement. pairs: maximum pairs of samples in a
    replicate. baseline_set, candidate_set: settings changed for one side, such as `train.memory_format=channels_last`.
    data: a folder in torchvision's layout. out: the folder for every sample; a new one below `results/ab/` if None.
    allow_busy: compare although other processes compute on a GPU.
    dry_run: measure nothing; the notes say what would be compared.
    Ctrl-C ends it early; the replicates so far are decided on (`interrupted`). Raises UsageError if the request cannot
    be carried out, as a rule before a worktree or an environment is made; RunError if the run fails midway.
    """
    chosen = suite if isinstance(suite, Suite) else load_suite(suite)
    chosen = _checked(chosen, only, minutes, threads, pairs)
    watcher = watcher or UnwatchedComparison()
    folder = folder_to_make(chosen.model_copy(update={"name": "ab"}), out, SAMPLES_FILE)
    refuse_unwritable(folder)
    assigned = Both(tuple(baseline_set), tuple(candidate_set))
    changed = Both.each(lambda side: _changed(chosen, assigned.of(side), SETTERS.of(side)))
    named = revisions.named(baseline, candidate)
    if not any(assigned):
        _refuse_missing(baseline)
        revisions.refuse_same(*named)
    revisions.warn_uncommitted(named.candidate)

    def prepared(each: Suite) -> Prepared:
        where = chosen.name if isinstance(suite, Suite) else str(suite)
        request = SuiteRequest(
            suite=each, where=where, only=only, data=data, download=not dry_run, allow_busy=allow_busy
        )
        return prepare(request, watcher.downloading)

    before = prepared(changed.baseline)
    tasks = Both(before.tasks, prepared(changed.candidate).tasks if any(assigned) else before.tasks)
    notes = (*_unchanged(tasks, assigned), *_untimed(tasks, assigned), *_skipped(tasks.baseline))
    keys = [f"{each.task.cell.id} {metric}" for each in before.tasks if not each.skip for metric in METRICS_IN_TURNS]
    gate.refuse_none(keys)
    gate.refuse_short(minutes, gate.shortest_turns(len(keys), pairs), Rule())
    if dry_run:
        names = Both.each(lambda side: _with_settings(named.of(side).name, assigned.of(side)))
        plan = (*_plan(names, keys, pairs), *_to_make(named), *_to_download(before))
        return Comparison(verdicts=(), notes=(*plan, *notes))
    with ExitStack() as stack:
        made = Both.each(lambda side: stack.enter_context(named.of(side).made(watcher.installing)))
        versions = Both.each(lambda side: _renamed(made.of(side), assigned.of(side)))
        folder = out or created(folder)
        if out is None:
            stack.callback(_remove_empty, folder)
        result = gate.compare_versions(
            *versions,
            contests(*tasks),
            minutes=minutes,
            folder=folder,
            watcher=watcher,
            patience=_patience(chosen.timeout_s),
            pairs=pairs,
            is_strict=True,
        )
    found = comparison(result)
    return found.model_copy(update={"notes": (*notes, *found.notes), "interrupted": result.interrupted})


def _refuse_missing(baseline: str | None) -> None:
    """Raise UsageError where nothing is named that a version could be compared with."""
    if baseline is None:
        raise UsageError(
            "`baseline`: nothing to compare with; give a git revision (origin/main, HEAD~1), a Python interpreter or a "
            f"virtual environment, or {revisions.HERE_NAMED} for this tree; or change a setting with `candidate_set`"
        )


def _plan(names: Both[str], keys: Sequence[str], pairs: int) -> Iterator[str]:
    """Yield what a comparison would measure, and how long it would take."""
    rule, count = Rule(), len(keys)
    looks = rule.scheduled(count)
    least, most = gate.bounds(count, looks, pairs)
    yield f"baseline {names.baseline}, candidate {names.candidate}"
    yield from keys
    yield (
        f"{amount_of(count, 'cell-metric')}, {least:.0f} to {most:.0f} minutes: {looks[0]} replicates if nothing "
        f"changed, {looks[-1]} at most"
    )
    yield f"power: {power_words(rule, looks, count, TYPICAL_DEVIATIONS)}"


def _to_make(named: Both[revisions.NamedVersion]) -> Iterator[str]:
    """Yield the versions that get an environment of their own."""
    for each in named:
        if isinstance(each, revisions.Revision) and each.dependencies is not None:
            yield f"{each.name} has other dependencies: an environment is made for it, or kept from an earlier run"


def _to_download(prepared: Prepared) -> Iterator[str]:
    """Yield the datasets to be downloaded."""
    for dataset, size in prepared.downloads.items():
        yield f"to be downloaded: {dataset}, {size / 2**20:.0f} MiB"


def _remove_empty(folder: Path) -> None:
    """Remove a folder in which nothing was stored."""
    with suppress(OSError):
        folder.rmdir()


def _checked(suite: Suite, only: str | None, minutes: float | None, threads: int | None, pairs: int) -> Suite:
    """Return the part of a suite that is compared: one training per cell. Raises UsageError for an invalid option."""
    suite = suite.narrowed(only=only, stages=[_stage()]).model_copy(update={"repeats": 1})
    if minutes is not None and not (math.isfinite(minutes) and minutes >= 0):
        raise UsageError(f"`minutes`: got {minutes}; give a number above 0, or leave `minutes` out")
    if pairs not in range(PAIRS[0], PAIRS[1] + 1, 2):
        raise UsageError(f"`pairs`: got {pairs}; give an even number from {PAIRS[0]} to {PAIRS[1]}")
    if threads is None:
        return suite
    if threads < 1:
        raise UsageError(f"`threads`: got {threads}; give 1 or more")
    return suite.model_copy(update={"threads": threads})


def _changed(suite: Suite, assignments: Sequence[str], option: str) -> Suite:
    """Return the suite with settings changed as `train.memory_format=channels_last` says."""
    sections = {stage: dict(section) for stage, section in suite.sections.items()}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        stage, dot, name = key.strip().partition(".")
        if not (equals and dot and name):
            raise UsageError(
                f"{option}: {assignment!r} must be section.key=value, such as train.memory_format=contiguous"
            )
        if stage != _stage():  # The forward pass, too, is measured as training has it.
            raise UsageError(f"{option}: only settings of [{_stage()}] can be changed, got {stage!r}")
        if name in declared("stages", stage)["UNTIMED"]:
            raise UsageError(
                f"{option}: {assignment} changes nothing that is measured (a training step, and a forward pass); "
                f"change another setting, or {UNTIMED_CURE}"
            )
        sections.setdefault(stage, {})[name] = _value(value)
    return suite.model_copy(update={"sections": sections})


def _stage() -> str:
    """Return the stage whose step is compared: the one that declares which of its settings do not affect a step."""
    [name] = having("stages", "UNTIMED")
    return name


def _value(text: str) -> Any:
    """Parse a value as TOML; a text that is no TOML value is a string without quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _renamed(version: Version, assignments: Sequence[str]) -> Version:
    """Return the version with its changed settings in its name."""
    return version.model_copy(update={"name": _with_settings(version.name, assignments)})


def _with_settings(name: str, assignments: Sequence[str]) -> str:
    return f"{name} with {', '.join(assignments)}" if assignments else name


def _unchanged(tasks: Both[tuple[Ready, ...]], assigned: Both[tuple[str, ...]]) -> Iterator[str]:
    """Yield the cells in which an assignment changes nothing. Raises UsageError if it changes nothing in any cell."""
    for option, assignments in zip(SETTERS, assigned, strict=True):
        for assignment in assignments:
            name = assignment.partition("=")[0].strip().partition(".")[2]
            pairs = [(one.task, other.task) for one, other in zip(*tasks, strict=True)]
            alike = [one.cell.id for one, other in pairs if one.settings[name] == other.settings[name]]
            if len(alike) == len(pairs):
                raise UsageError(
                    f"{option}: {assignment} changes nothing: both sides already have {name} = "
                    f"{pairs[0][0].settings[name]!r}; change another setting, or compare two revisions"
                )
            if alike:
                yield f"{assignment} changes no setting of {', '.join(alike)}: both sides already have it"


def _untimed(tasks: Both[tuple[Ready, ...]], assigned: Both[tuple[str, ...]]) -> Iterator[str]:
    """Yield the cells whose settings differ without effect on timed work, or on the forward pass.

    Raises UsageError if no timed work of any cell differs.
    """
    both = ((one.task, other.task) for one, other in zip(*tasks, strict=True))
    # A dry run downloads nothing, and does not know images that it would have to.
    pairs = [(one, other) for one, other in both if one.settings != other.settings and one.data and other.data]
    alike = [one.cell.id for one, other in pairs if _timed(one) == _timed(other)]
    options = [option for option, assignments in zip(SETTERS, assigned, strict=True) if assignments]
    changed = ", ".join(dict.fromkeys((*assigned.baseline, *assigned.candidate)))
    if alike and len(alike) == len(pairs):
        raise UsageError(
            f"{' and '.join(options)}: {changed} changes nothing that is timed (a training step at a learning rate "
            f"of 0, and a forward pass); change another setting, or {UNTIMED_CURE}"
        )
    if alike:
        yield f"{changed} changes nothing that is timed in {', '.join(alike)}"
    of_steps = [
        one.cell.id
        for one, other in pairs
        if one.cell.id not in alike and all(one.settings[name] == other.settings[name] for name in FORWARD_SETTINGS)
    ]
    if of_steps:
        yield f"{changed} changes the training step and not the forward pass in {', '.join(of_steps)}"


def _timed(task: Task) -> dict[str, Any]:
    """Return the settings of a task that affect timed work on its images, which preflight has found."""
    assert task.data is not None
    return timed(task.settings, task.data.shape[0])


def _skipped(tasks: Sequence[Ready]) -> Iterator[str]:
    """Yield the cells that cannot be compared on this machine, with the reason."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for each in tasks:
        if each.skip:
            reasons[each.skip].append(each.task.cell.id)
    for reason, cells in reasons.items():
        yield f"not compared: {', '.join(cells)}: {reason}"


def _patience(timeout_s: float) -> Patience:
    """Return the time limits of a silent worker: the defaults, each at most the suite's time limit of a task."""
    return Patience(*(min(seconds, timeout_s) for seconds in Patience()))
