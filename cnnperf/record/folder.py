"""The file of a run folder that stores its records, a line of JSON each, and the folders of several runs."""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import shutil
import stat
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from filelock import FileLock, Timeout

from cnnperf.errors import CnnperfWarning, StageError, StoreError
from cnnperf.record.line import LONGEST_LINE, DamagedLineError, StoredLine, line_of, parsed_record, sealed, stored_lines
from cnnperf.record.location import COMPRESSED_FILE, FILE, located, stored_file
from cnnperf.record.schema import Measurement, Record
from cnnperf.task import Task
from cnnperf.units import amount_of, printable

DAMAGED_FILE = "damaged.jsonl"
"""File of the lines that were taken out of the records because they hold none, unchanged."""

_LOCK = ".lock"
_NO_CHECKSUM = b',"checksum":"00000000"}'
"""The end of a line with any checksum has this length."""
_BLOCK = 4096
"""Bytes to read at once when searching backwards for the start of a line."""
_COPIED = 2**20
"""Bytes to copy at once."""
_NAMED = 5
"""Maximum further damaged lines that a message names."""


def lock(run: Path) -> FileLock:
    """Return the lock of a run folder's writer; acquiring it never waits."""
    return FileLock(run / _LOCK, timeout=0)


def append(run: Path, record: Record) -> None:
    """Append one record as a line and fsync it, so that a crash loses at most one task.

    The caller holds the lock. A last line without its newline gets it if it is a whole record, else it is moved to
    `damaged.jsonl` first; a line that is only partly written (disk full) is removed again. Raises OSError.
    """
    line = line_of(record)
    if len(line) > LONGEST_LINE:
        raise OSError(errno.EFBIG, f"a record of {len(line):,} bytes is longer than {LONGEST_LINE // 2**20} MiB")
    with open(run / FILE, "a+b", buffering=0, opener=_never_through_a_link) as file:
        start, end = _end_of_last_line(file), file.seek(0, os.SEEK_END)
        if start < end:
            file.seek(start)
            if end - start <= LONGEST_LINE and _holds_record(file.read(end - start)):
                line, start = b"\n" + line, end
            else:
                _set_aside(run, file, [(start, end)])
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

    Damaged lines are left out with a warning that names them, as is a last line that was torn by a crash; the folder
    is not changed. Records of schema 1 are converted to the current schema. Raises StoreError if the folder has no
    records, none of them is readable, or one is of a newer schema.

    run: also the file itself, compressed by gzip or not, or the name of a run that comes with cnnperf.
    """
    return _latest(read_attempts(run))


def read_attempts(run: str | Path) -> tuple[Record, ...]:
    """Read a run folder's records as `read` does, but all of them: every attempt at a task, in order."""
    run = located(run)
    records, damaged = _read(run)
    if damaged and not damaged[-1].line.is_ended and _is_being_written(run):
        damaged = damaged[:-1]
    if damaged and not records:
        file = stored_file(run)
        raise StoreError(f"{file}: {_in_words(damaged)}; no record is left; restore the file from a copy")
    _warn_of(run, damaged)
    return records


def read_locked(run: Path, *, warn: bool = True) -> tuple[Record, ...]:
    """Read a run folder's records as `read` does, for a caller that holds the lock and will append to them.

    A folder whose lines are all damaged has no records. Raises StoreError also if the file is a link.
    warn: whether to warn of damaged lines.
    """
    _refuse_link(run / FILE)
    records, damaged = _read(run)
    if warn:
        _warn_of(run, damaged)
    return _latest(records)


def repair(run: str | Path) -> tuple[int, ...]:
    """Move the damaged lines of a run folder's records to `damaged.jsonl` beside them, and return their numbers.

    The lines are moved unchanged; the file of records is replaced in one step. Raises StoreError if the folder has no
    records, these are compressed, a run is writing it, it cannot be written, or a record is of a newer schema.
    """
    run = located(run)
    if (file := stored_file(run)).name == COMPRESSED_FILE:
        raise StoreError(f"{file}: compressed records are never changed; unpack the file to {FILE} first")
    _refuse_link(run / FILE)
    _read(run)  # A folder that is refused gets no lock.
    try:
        with lock(run):
            damaged = tuple(each.line for each in _read(run)[1])
            if damaged:
                _move_out(run, damaged)
    except Timeout as error:
        raise StoreError(f"{run}: another run is writing this folder; wait for it") from error
    except OSError as error:
        raise StoreError(f"{run}: cannot be repaired ({error.strerror}); copy it to a folder that you own") from error
    return tuple(line.number for line in damaged)


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
    *saved, _ = path.read_bytes().split(b"\n") if path.exists() else (b"",)
    contents = [line[: -len(_NO_CHECKSUM)] + b"}" for line in saved]
    for number, (line, content) in enumerate(zip(saved, contents, strict=True), start=1):
        if sealed(content) != line + b"\n":
            raise StageError(f"{path}: line {number} was altered since it was saved; run the task again")
    return tuple(Measurement.model_validate_json(content) for content in contents)


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Open a file of text, which replaces another, or a link, in one step when the block ends well. Raises OSError."""
    part = path.with_name(f".{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        with open(part, "x", encoding="utf-8", newline="") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_runs(runs: str | Path | Iterable[str | Path]) -> dict[str, tuple[Record, ...]]:
    """Read the records of runs, as `read` does, by folder name. Raises StoreError if a folder has no records."""
    runs = [runs] if isinstance(runs, str | Path) else runs
    return {name: read(folder) for name, folder in run_folders(runs).items()}


def run_folders(runs: Iterable[str | Path]) -> dict[str, Path]:
    """Name run folders `<suite>/<utc>-<host>`; use the whole path if two names are equal.

    A byte of a path that is not UTF-8 is written as an escape, because tables are files in UTF-8. Raises StoreError
    for a name that no reference run has.
    """
    named: dict[str, Path] = {}
    for folder in dict.fromkeys(located(run).resolve() for run in runs):
        name = printable("/".join(folder.parts[-2:]))
        named[printable(str(folder)) if name in named else name] = folder
    return named


@dataclass(frozen=True, slots=True)
class _Damage:
    """A line that holds no record, and the reason."""

    line: StoredLine
    reason: str


def _read(run: Path) -> tuple[tuple[Record, ...], tuple[_Damage, ...]]:
    """Return the records in the order of their lines, and the lines that hold none."""
    path = stored_file(run)
    records: list[Record] = []
    damaged: list[_Damage] = []
    with _opened(path) as file:
        for line in stored_lines(file):
            try:
                record = parsed_record(line.content)
            except DamagedLineError as error:
                torn = f"torn by a crash ({line.length} bytes)"
                damaged.append(_Damage(line, str(error) if line.is_ended else torn))
            except StoreError as error:
                raise StoreError(f"{path}: line {line.number}: {error}") from error
            else:
                records.append(record)
    return tuple(records), tuple(damaged)


def _latest(records: Iterable[Record]) -> tuple[Record, ...]:
    """Return the latest record of each task, in the order in which the tasks first ran."""
    return tuple({record.key: record for record in records}.values())


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file of records to read; a pipe or a device is refused at once, without waiting for its other end."""
    cure = f"give a run folder that contains {FILE}"
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise StoreError(f"{path}: not a regular file; {cure}")
            if path.name == COMPRESSED_FILE:
                with gzip.GzipFile(fileobj=file) as content:
                    yield cast("BinaryIO", content)
            else:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise StoreError(f"{path}: cannot be unpacked ({error}); restore the file from a copy") from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); {cure}") from error


def _warn_of(run: Path, damaged: Sequence[_Damage]) -> None:
    if damaged:
        file, cure = stored_file(run), "restore the file from a copy"
        if file.name == FILE:
            cure += ", or let cnnperf report set damaged lines aside"
        warnings.warn(f"{file}: {_in_words(damaged)}; left out; {cure}", CnnperfWarning, stacklevel=3)


def _in_words(damaged: Sequence[_Damage]) -> str:
    """Name the first damaged line with its reason, and the numbers of some others."""
    first, others = damaged[0], damaged[1:]
    numbers = ", ".join(str(each.line.number) for each in others[:_NAMED])
    more = f" (and {amount_of(len(others), 'more line')}: {numbers}{', …' * (len(others) > _NAMED)})" if others else ""
    return f"line {first.line.number}: {first.reason}{more}"


def _is_being_written(run: Path) -> bool:
    """Return whether a run holds the lock, without making its file."""
    try:
        descriptor = os.open(run / _LOCK, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # The file system has no locks.
        return False
    finally:
        os.close(descriptor)
    return False


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise StoreError(f"{path}: a link; records are not written through links; put a copy of its file in its place")


def _move_out(run: Path, damaged: Sequence[StoredLine]) -> None:
    """Replace the file of records by one without these lines, once they are on the disk in another file."""
    path, fresh = run / FILE, run / f"{FILE}.part"
    with open(path, "rb", buffering=0) as file:
        _set_aside(run, file, [(line.start, line.end) for line in damaged])
        starts = (0, *(line.end for line in damaged))
        ends = (*(line.start for line in damaged), file.seek(0, os.SEEK_END))
        fresh.unlink(missing_ok=True)
        with open(fresh, "xb") as out:
            for start, end in zip(starts, ends, strict=True):
                _copy(file, start, end, out)
            out.flush()
            os.fsync(out.fileno())
    shutil.copymode(path, fresh)
    fresh.replace(path)


def _set_aside(run: Path, file: FileIO, spans: Iterable[tuple[int, int]]) -> None:
    """Append parts of a file to the damaged lines of its folder, each as a line, and fsync them. Raises OSError."""
    with open(run / DAMAGED_FILE, "ab", opener=_never_through_a_link) as out:
        for start, end in spans:
            if _copy(file, start, end, out) != b"\n":
                out.write(b"\n")
        out.flush()
        os.fsync(out.fileno())


def _copy(file: FileIO, start: int, end: int, out: BinaryIO) -> bytes:
    """Copy a part of a file and return its last byte."""
    file.seek(start)
    content = b""
    while start < end and (content := file.read(min(_COPIED, end - start))):
        start += out.write(content)
    return content[-1:]


def _never_through_a_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _holds_record(content: bytes) -> bool:
    try:
        parsed_record(content)
    except (DamagedLineError, StoreError):
        return False
    return True


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
