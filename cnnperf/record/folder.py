"""The file of a run folder that stores its records, a line of JSON each, and the folders of several runs."""

from __future__ import annotations

import json
import os
import re
import warnings
import zlib
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from io import FileIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from cnnperf.errors import CnnperfWarning, StageError, StoreError, first_error
from cnnperf.record.schema import SCHEMA, Measurement, Record
from cnnperf.record.schema_1 import upgraded
from cnnperf.task import Task

FILE = "records.jsonl"

_CURE = "restore the file from a copy or remove the line"
_CHECKSUM = re.compile(rb',"checksum":"([0-9a-f]{8})"\}\Z')
_NO_CHECKSUM = b',"checksum":"00000000"}'
"""The end of a line with any checksum has this length."""
_BLOCK = 4096
"""Bytes to read at once when searching backwards for the start of a line."""


def lock(run: Path) -> FileLock:
    """Return the lock of a run folder's writer; acquiring it never waits."""
    return FileLock(run / ".lock", timeout=0)


def line_of(record: Record) -> bytes:
    """Return the line that stores a record."""
    return sealed(record.model_dump_json(by_alias=True).encode())


def sealed(content: bytes) -> bytes:
    """Return the line of a JSON object, with the CRC-32 of its content as the last field."""
    return content[:-1] + b',"checksum":"%08x"}\n' % zlib.crc32(content)


def append(run: Path, record: Record) -> None:
    """Append one record as a line and fsync it, so that a crash loses at most one task.

    The caller holds the lock. A torn last line is removed first; a line that is only partly written (disk full) is
    removed again. Raises OSError.
    """
    line = line_of(record)
    with open(run / FILE, "a+b", buffering=0) as file:
        start = _end_of_last_line(file)
        file.truncate(start)
        try:
            written = 0
            while written < len(line):
                written += file.write(line[written:])
            os.fsync(file.fileno())
        except OSError:
            file.truncate(start)
            raise


def read(run: str | Path) -> tuple[Record, ...]:
    """Read a run folder's records, the latest of each task, in the order in which the tasks first ran.

    A torn last line, left by a crash, is dropped with a warning and removed from the file unless a run is writing it.
    Records of schema 1 are converted to the current schema. Raises StoreError if the folder has no records, a line is
    not a record or does not match its checksum, or a record is of a newer schema.
    """
    return _read(Path(run) / FILE, lock(Path(run)))


def read_locked(run: Path) -> tuple[Record, ...]:
    """Read a run folder's records as `read` does, for a caller that holds the lock."""
    return _read(run / FILE, nullcontext())


def _read(path: Path, locked: AbstractContextManager[object]) -> tuple[Record, ...]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be read ({error.strerror}); give a run folder that contains {FILE}"
        ) from error
    *lines, torn = content.split(b"\n")
    if torn:
        _repair(path, len(content) - len(torn), len(torn), locked)
    latest: dict[str, Record] = {}
    for number, line in enumerate(lines, start=1):
        record = _parse(line, f"{path}: line {number}")
        latest[record.key] = record
    return tuple(latest.values())


def kept_file(run: Path, task: Task) -> Path:
    """Return the file of measurements that a task saves in case its process is killed."""
    return run / "artifacts" / task.key / "kept.jsonl"


def keep(run: Path, task: Task, measurements: Iterable[Measurement]) -> None:
    """Append measurements to those that a task saves in case its process is killed."""
    path = kept_file(run, task)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        file.writelines(sealed(measurement.model_dump_json().encode()) for measurement in measurements)


def kept(run: Path, task: Task) -> tuple[Measurement, ...]:
    """Return the measurements that a killed process of the task saved; the line that it was writing is left out.

    Raises StageError if another line was altered.
    """
    path = kept_file(run, task)
    *lines, _ = path.read_bytes().split(b"\n") if path.exists() else (b"",)
    contents = [line[: -len(_NO_CHECKSUM)] + b"}" for line in lines]
    for number, (line, content) in enumerate(zip(lines, contents, strict=True), start=1):
        if sealed(content) != line + b"\n":
            raise StageError(f"{path}: line {number} was altered since it was saved; run the task again")
    return tuple(Measurement.model_validate_json(content) for content in contents)


def _repair(path: Path, length: int, lost: int, locked: AbstractContextManager[object]) -> None:
    try:
        with locked:
            os.truncate(path, length)
    except Timeout:
        return  # A run is writing this line.
    except OSError:
        pass  # The folder is read-only: the line is skipped at each read.
    warnings.warn(f"{path}: the last line was torn by a crash ({lost} bytes); dropped", CnnperfWarning, stacklevel=4)


def _end_of_last_line(file: FileIO) -> int:
    """Return the offset of the end of the last whole line: the end of the file unless the last line is torn."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _parse(line: bytes, where: str) -> Record:
    """Parse a record. Raises StoreError if the line is not a record, is damaged, or has a newer schema."""
    content, recorded = _unsealed(line)
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError) as error:  # A syntax error, or arrays or objects that are nested too deeply.
        raise StoreError(f"{where}: not a record ({error}); {_CURE}") from error
    found = f"{zlib.crc32(content):08x}"
    if recorded not in (None, found):
        raise StoreError(f"{where}: damaged: checksum of the content is {found}, recorded {recorded}; {_CURE}")
    version = document.get("schema") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA:
        raise StoreError(
            f"{where}: schema {version} is newer than {SCHEMA}, the newest readable schema; update cnnperf"
        )
    if version != 1 and recorded is None:
        raise StoreError(f"{where}: not a record: it has no checksum; {_CURE}")
    try:
        return Record.model_validate(upgraded(document) if version == 1 else document)
    except ValidationError as error:
        raise StoreError(f"{where}: not a record: {first_error(error)}; {_CURE}") from error


def _unsealed(line: bytes) -> tuple[bytes, str | None]:
    """Return the content of a line and its recorded checksum, if any."""
    seal = _CHECKSUM.search(line)
    return (line[: seal.start()] + b"}", seal[1].decode()) if seal else (line, None)


def read_runs(runs: str | Path | Iterable[str | Path]) -> dict[str, tuple[Record, ...]]:
    """Read the records of run folders, by folder name. Raises StoreError if a folder has no records."""
    runs = [runs] if isinstance(runs, str | Path) else runs
    return {name: read(folder) for name, folder in run_folders(runs).items()}


def run_folders(runs: Iterable[str | Path]) -> dict[str, Path]:
    """Name run folders `<suite>/<utc>-<host>`; use the whole path if two names are equal.

    A byte of a path that is not UTF-8 is written as an escape, because tables are files in UTF-8.
    """
    named: dict[str, Path] = {}
    for folder in dict.fromkeys(Path(run).resolve() for run in runs):
        name = _in_utf8("/".join(folder.parts[-2:]))
        named[_in_utf8(str(folder)) if name in named else name] = folder
    return named


def _in_utf8(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
