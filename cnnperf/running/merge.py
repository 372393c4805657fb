"""Several run folders put together in one: records, artifacts and logs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnperf.errors import RunError, UsageError, shorten
from cnnperf.record import FILE, Record, line_of, read_attempts, replacing, run_folders
from cnnperf.running.runner import held_for_writing, refuse_run
from cnnperf.running.shards import missing_shards


@dataclass(frozen=True, slots=True)
class Merged:
    """The records of the merged run, and what it lacks."""

    records: tuple[Record, ...]
    """The latest record of each task, in the order of the runs."""
    missing: tuple[str, ...]
    """Shards of which no run was given: `cifar 2/3`."""


def merge(runs: Sequence[Path], out: Path) -> Merged:
    """Put run folders together in a new one: every attempt at a task, the artifacts and the logs.

    The runs stay as they are. A task that two runs have must have the same figures in both, and is taken once.
    Raises UsageError, before anything is written, if two runs have different figures of one task or if `out` contains
    a run; StoreError for a run without records, StageError for an artifact that is missing or has changed, and
    RunError if a file cannot be written.
    """
    refuse_run(out)
    attempts = {run: read_attempts(run) for run in run_folders(runs).values()}
    latest = _united(attempts)
    with held_for_writing(out):
        try:
            for run, records in attempts.items():
                _copy_files(run, records, out)
            with replacing(out / FILE) as file:  # All records or none.
                file.writelines(_lines(attempts.values()))
        except OSError as error:
            raise RunError(
                f"{out}: cannot be written ({error.strerror}); the runs are unchanged; free disk space and merge again"
            ) from error
    return Merged(tuple(latest.values()), missing_shards(latest.values()))


def _lines(attempts: Iterable[Sequence[Record]]) -> Iterator[str]:
    """Yield the lines of all runs, without those that an earlier run has."""
    known = set[str]()
    for records in attempts:
        lines = [line_of(each).decode() for each in records]
        yield from (line for line in lines if line not in known)
        known.update(lines)


def _united(attempts: Mapping[Path, Sequence[Record]]) -> dict[str, Record]:
    """Return the latest record of each task by label. Raises UsageError if two runs differ in one."""
    latest: dict[str, Record] = {}
    homes: dict[str, Path] = {}
    for run, records in attempts.items():
        for label, record in {record.task.label: record for record in records}.items():
            if record != latest.setdefault(label, record):
                raise UsageError(
                    f"{run}: {shorten(label, 150)} has other figures in {homes[label]}; leave one of the runs out"
                )
            homes.setdefault(label, run)
    return latest


def _copy_files(run: Path, records: Sequence[Record], out: Path) -> None:
    """Copy the artifacts that the latest records name, and the logs."""
    for record in {record.key: record for record in records}.values():
        for artifact in record.artifacts.values():
            _copy(artifact.verified(run), out / artifact.path)
    for log in sorted((run / "logs").glob("*.log")):
        if log.is_file() and not log.is_symlink():
            _copy(log, out / "logs" / log.name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
