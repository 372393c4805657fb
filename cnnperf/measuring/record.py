"""A record of accuracy: its seeds trained and its claim tested, or an earlier record verified on this machine."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from cnnperf.accuracy_record import RECORDS, SEEDS, SEEDS_AGAIN
from cnnperf.accuracy_record.claim import FEWEST_SEEDS, ClaimTest, RecordClaim
from cnnperf.accuracy_record.folder import (
    FORM_OF_NAME,
    AccuracyRecord,
    changed_sources,
    checksums,
    fault_in,
    kind_of,
    read_record,
    records_below,
    sources_of,
    standing_of,
    write_record,
)
from cnnperf.accuracy_record.table import write_page
from cnnperf.bench import trains
from cnnperf.errors import CnnperfWarning, RunError, UsageError, names_listed, shorten
from cnnperf.ipc.messages import Ready, SuiteRequest
from cnnperf.measuring.measured import MeasurementWatcher, UnwatchedMeasurement
from cnnperf.record import Record
from cnnperf.running.preflight import prepare
from cnnperf.running.runner import Run, created, folder_to_run, new_folder, pending, warn_if_busy
from cnnperf.stats import INTERVAL_LEVEL, Interval, Welch
from cnnperf.suite import DEFAULT_EXECUTOR, Suite, load_suite, parse, suite_file
from cnnperf.task import Cell, Choice, Task

RESUME = "resume the run with `resume`"
"""Cure for a fault in mid-run."""


@dataclass(frozen=True, slots=True)
class RecordAttempt:
    """The seeds of a record that was attempted, and whether its claim holds."""

    run: Path
    """The run folder."""
    record: AccuracyRecord
    test: ClaimTest
    folder: Path | None
    """The record's folder; None if the claim does not hold, and nothing was written."""


@dataclass(frozen=True, slots=True)
class Verification:
    """Seeds of an earlier record, trained again on this machine."""

    run: Path
    """The run folder."""
    record: AccuracyRecord
    """The record as it is stored."""
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    """Share of the test images, by seed."""
    test: ClaimTest
    """The test of the record's claim on these accuracies."""
    difference: float
    """Mean here minus the record's mean over all its seeds."""
    interval: Interval
    """The 95 % interval of the difference (Welch)."""
    changed: tuple[str, ...]
    """Source files of this version that are not those of the record."""


def make_record(
    suite: str | Path,
    cell: str,
    *,
    target: float | None = None,
    seeds: int = SEEDS,
    name: str | None = None,
    threads: int | None = None,
    data: Path | None = None,
    into: Path = RECORDS,
    resume: Path | None = None,
    allow_busy: bool = False,
    watcher: MeasurementWatcher | None = None,
) -> RecordAttempt:
    """Train the seeds of one cell of a suite, test that the mean accuracy is above a target, and write the record.

    cell: dataset/model/device, or a glob that matches one. target: share of the test images; None: the mean of the
    standing record of the same dataset, budget and device. name: of the record; default: that of the network.
    into: folder of all records. resume: run folder of an earlier attempt, whose seeds are kept.
    allow_busy: train although other processes compute on the GPU. Raises UsageError if the request cannot be carried
    out, RunError if a seed failed or the record cannot be written; the run folder is kept.
    """
    file, loaded = suite_file(suite), load_suite(suite)
    chosen, stage = _of_cell(loaded, cell), _training_of(loaded, str(suite))
    _check_seeds(seeds)
    _check_target(target)
    _check_folder(into)
    sources = sources_of(chosen, stage)
    name = _checked_name(chosen.model.name if name is None else name)
    only = {"only": (chosen.id,), "stages": (stage,), "repeats": seeds}
    narrowed = loaded.model_copy(update=only).launched(threads=threads)
    folder = folder_to_run(narrowed, None, resume)
    earlier = records_below(into).values()
    tasks = _prepared(narrowed, str(suite), data, watcher, allow_busy=allow_busy)
    claim = _claim_of(target, earlier, kind_of(tasks[0].task), into)
    before = checksums(sources)
    run = folder if resume else created(folder)
    records = _measured(tasks, run, is_new=resume is None, watcher=watcher, cure=f"; correct that, then {RESUME}")
    record = AccuracyRecord.of(records, claim, f"{datetime.now(UTC):%Y%m%d}-{name}", before)
    test = claim.tested(record.accuracies, record.test_images)
    if test.outcome != "holds":
        return RecordAttempt(run, record, test, None)
    if checksums(sources) != before:
        raise RunError(f"{run}: the source of cnnperf changed during the run; start again without `resume`")
    try:
        made = _new(into / record.kind / record.name)
        record = record.model_copy(update={"name": made.name})
        write_record(made, record, file, records)
        write_page(into)
    except OSError as error:
        raise RunError(f"{into}: cannot be written ({error.strerror}); correct that, then {RESUME} ({run})") from error
    return RecordAttempt(run, record, test, made)


def verify_record(
    folder: Path,
    *,
    seeds: int | None = None,
    data: Path | None = None,
    allow_busy: bool = False,
    watcher: MeasurementWatcher | None = None,
) -> Verification:
    """Check a record's folder, train the first of its seeds again on this machine, and test its claim on them.

    seeds: how many; default: five, or all of fewer. allow_busy: as for `make_record`. Warns of source files
    that differ from those of the record. Raises StoreError for a damaged folder, UsageError if the request cannot be
    carried out, RunError if a seed failed.
    """
    stored, _ = read_record(folder)
    again = min(SEEDS_AGAIN, len(stored.seeds)) if seeds is None else seeds
    _check_seeds(again)
    if again > len(stored.seeds):
        raise UsageError(f"`seeds`: got {again}; the record in {folder} has {len(stored.seeds)} seeds")
    changed = changed_sources(stored)
    if changed:
        commit = (stored.machine.commit or "").removesuffix("+")
        cure = f"check out {commit}" if commit else f"put the files of {folder / 'source'} in their places"
        warnings.warn(
            f"the source differs from the record's ({names_listed(changed)}); this verifies the code here; {cure} to "
            "verify the record's",
            CnnperfWarning,
            stacklevel=2,
        )
    suite = _suite_of(stored, again, str(folder))
    tasks = _prepared(suite, str(folder), data, watcher, allow_busy=allow_busy)
    _check_data(tasks[0], stored, folder)
    run = created(new_folder(suite))
    records = _measured(tasks, run, is_new=True, watcher=watcher)
    here = tuple(record.find("train.test_accuracy")[0].values[0] for record in records)
    least = 1 / stored.test_images
    apart = Welch(stored.accuracies, here, (least, least))
    return Verification(
        run=run,
        record=stored,
        seeds=stored.seeds[:again],
        accuracies=here,
        test=stored.claim.tested(here, stored.test_images),
        difference=apart.estimate,
        interval=Interval(apart.lower(INTERVAL_LEVEL), apart.upper(INTERVAL_LEVEL)),
        changed=changed,
    )


def _of_cell(suite: Suite, pattern: str) -> Cell:
    """Return the one cell of a suite that a glob matches. Raises UsageError."""
    found = [cell for cell in suite.cells() if cell.matches(pattern)]
    if len(found) == 1:
        return found[0]
    known = names_listed((cell.id for cell in found or suite.cells()), 250)
    matched = f"{len(found)} cells match" if found else "nothing matches"
    raise UsageError(f"`cell`: {matched} {shorten(pattern, 60)!r}; give one of: {known}")


def _check_target(target: float | None) -> None:
    if target is not None and not 0 < target < 1:
        raise UsageError(f"`target`: got {target:g}; give a share of the test images above 0 and below 1, such as 0.85")


def _check_folder(into: Path) -> None:
    if into.exists() and not into.is_dir():
        raise UsageError(f"`into`: {into} is not a folder; give the folder of all records")


def _checked_name(name: str) -> str:
    if not FORM_OF_NAME.fullmatch(name):
        raise UsageError(f"`name`: got {shorten(repr(name), 100)}; give letters, digits and any of _ . = - only")
    return name


def _claim_of(target: float | None, earlier: Iterable[AccuracyRecord], kind: str, into: Path) -> RecordClaim:
    """Return the claim to be above a target, or without one above the standing record. Raises UsageError."""
    if target is not None:
        return RecordClaim(target=target)
    standing = standing_of(earlier, kind)
    if standing is None:
        raise UsageError(f"no record of {kind} stands in {into}; give `target`, a share of the test images")
    return RecordClaim(standing=standing.as_standing())


def _check_seeds(seeds: int) -> None:
    if seeds < FEWEST_SEEDS:
        raise UsageError(f"`seeds`: got {seeds}; give {FEWEST_SEEDS} or more, because the test needs their spread")


def _training_of(suite: Suite, where: str) -> str:
    """Return the first stage of a suite that trains. Raises UsageError if none does."""
    stage = next(filter(trains, suite.stages), None)
    if stage is None:
        raise UsageError(f"{where}: no stage of the suite trains; name one in stages")
    return stage


def _prepared(
    suite: Suite, where: str, data: Path | None, watcher: MeasurementWatcher | None, *, allow_busy: bool
) -> tuple[Ready, ...]:
    """Return the tasks of the seeds, each tested on all test images. Raises UsageError if one cannot run."""
    local = {"executor": Choice(name=DEFAULT_EXECUTOR), "require_real_data": True}
    asked = SuiteRequest(suite=suite.model_copy(update=local), where=where, data=data, allow_busy=allow_busy)
    tasks = prepare(asked, (watcher or UnwatchedMeasurement()).downloading).tasks
    for ready in tasks:
        if ready.skip:
            raise UsageError(f"{where}: {ready.task.cell.id}: {ready.skip}; nothing was measured")
        _check_rules(ready.task, where)
    return tuple(map(_on_all_test_images, tasks))


def _check_rules(task: Task, where: str) -> None:
    """Raise UsageError for settings that test early, or on fewer than all test images."""
    assert task.data
    if task.settings.get("test_curve"):
        raise UsageError(f"{where}: test_curve tests during the training, which a record may not; leave it out")
    count, chosen = task.data.test_count, task.settings.get("test_images")
    if chosen not in (None, count):
        raise UsageError(
            f"{where}: test_images is {chosen}, and a record counts all {count:,} test images; leave it out"
        )


def _on_all_test_images(ready: Ready) -> Ready:
    assert ready.task.data
    settings = {**ready.task.settings, "test_images": ready.task.data.test_count}
    return ready.model_copy(update={"task": ready.task.model_copy(update={"settings": settings})})


def _measured(
    tasks: Sequence[Ready], folder: Path, *, is_new: bool, watcher: MeasurementWatcher | None, cure: str = ""
) -> tuple[Record, ...]:
    """Run the pending tasks in a run folder and return the records of all. Raises RunError if one is unfit."""
    watching = watcher or UnwatchedMeasurement()
    with Run(folder, "resume", is_new=is_new) as run:
        left = pending(tasks, run.left)
        watching.planned(left, folder)
        warn_if_busy(left)
        for _ in run.execute(tasks, watching):
            pass
        by_key = {record.key: record for record in run.records}
    records = tuple(by_key[ready.task.key] for ready in tasks)
    if fault := fault_in(records):
        raise RunError(f"{folder}: {fault}{cure}")
    return records


def _new(folder: Path) -> Path:
    """Create a folder, under a name with `-2`, `-3` … appended if it exists. Raises OSError."""
    for number in count(1):
        path = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            break
    return path


def _suite_of(record: AccuracyRecord, seeds: int, where: str) -> Suite:
    """Return a suite of the first seeds of a record, with all its settings."""
    task = record.task
    cell = task.cell.model_dump(mode="json")
    document = {
        **{f"{room}s": [choice] for room, choice in cell.items()},
        "stages": [task.stage],
        "repeats": seeds,
        "seed": record.seeds[0],
        "timeout_s": task.timeout_s,
        **task.model_dump(mode="json", include={"threads", "waiting", "allocator"}, exclude_none=True),
        task.stage: task.settings,
    }
    return parse(document, where=where, name="verify")


def _check_data(ready: Ready, record: AccuracyRecord, folder: Path) -> None:
    """Raise UsageError if the images are not those of the record."""
    now, then = ready.task.data, record.task.data
    assert now
    assert then
    if now.sha256 != then.sha256:
        raise UsageError(
            f"{folder}: {now.name} has other images than the record's (sha256 {now.sha256[:12]}…, recorded "
            f"{then.sha256[:12]}…); give the folder of those with `data`"
        )
