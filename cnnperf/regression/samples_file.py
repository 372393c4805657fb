"""The file of all samples of a comparison: one line per replicate, contest and side, written to disk at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from cnnperf.duet.contest import Contest
from cnnperf.duet.schedule import Conditions, Played
from cnnperf.errors import RunError, UsageError
from cnnperf.ipc.messages import letters
from cnnperf.machine.fingerprint import fingerprint
from cnnperf.sides import SIDES
from cnnperf.timing.sampling import Samples

SAMPLES_SCHEMA = 2
"""Version of the lines. 1: the first. 2: with each side's settings, the frequency and what disturbed it, in words."""
SAMPLES_FILE = "duet.jsonl"

Write = Callable[[dict[str, Any]], None]


def refuse_unwritable(folder: Path) -> None:
    """Raise UsageError if a folder cannot be created, or no file can be created in it; what this creates is removed."""
    created: list[Path] = []
    try:
        for each in reversed((folder, *folder.parents)):
            if not each.exists():
                each.mkdir()
                created.append(each)
        # Permissions do not tell: root has them in /proc, too, where nobody can create a file.
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        for each in reversed(created):
            with suppress(OSError):  # Another process may have put something there meanwhile.
                each.rmdir()


@contextmanager
def writing(folder: Path | None, header: Mapping[str, Any]) -> Iterator[Write]:
    """Open the file in a folder and write the header as its first line; without a folder nothing is stored.

    Raises UsageError if it cannot be created, RunError if it cannot be continued.
    """
    if folder is None:
        yield lambda document: None
        return
    path = folder / SAMPLES_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise _unwritable(path, error) from error

    def write(document: Mapping[str, Any]) -> None:
        try:
            file.write(json.dumps(document) + "\n")
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise RunError(
                f"{path}: cannot be written ({error.strerror}); its samples so far are kept; free disk space "
                "and compare again"
            ) from error

    with file:
        write({"schema": SAMPLES_SCHEMA, "machine": fingerprint().model_dump(mode="json"), **header})
        yield write


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path}: cannot be written ({error.strerror}); give another folder with `out`")


def sample_lines(contest: Contest, number: int, conditions: Conditions, played: Played) -> Iterator[dict[str, Any]]:
    """Yield one document per side for a replicate of a contest; seconds are those of whole samples."""
    for side, taken, opened, machine in zip(SIDES, played.taken, played.opened, played.machines, strict=True):
        yield {
            "contest": contest.key,
            "replicate": number,
            "arm": side,
            "calls": conditions.calls,
            "order": letters(played.order),
            "steady": taken.steady,
            **{name: [getattr(each, name) for each in taken.samples] for name in taken.samples[0]._fields},
            "warmup_wall_s": [each.wall_s for each in taken.warmup],
            "blocked_s": taken.blocked_s,
            "blocked_cpu_s": taken.blocked_cpu_s,
            "outputs": opened.outputs,
            "settings": opened.settings,
            "machine": machine.model_dump(mode="json"),
            "seconds": played.disturbance.seconds,
            "load": played.disturbance.load,
            "steal_s": played.disturbance.steal_s,
            "throttled_s": played.disturbance.throttled_s,
            "frequency_hz": played.disturbance.frequency_hz,
            "disturbed": Samples(
                conditions.calls, taken.samples, taken.warmup, taken.steady, played.disturbance
            ).remark,
            "parent_cpu_s": played.parent_cpu_s,
        }
