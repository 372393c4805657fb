"""A record as a line of JSON: the checksum in its last field, and what is wrong with a line that holds no record."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from pydantic import ValidationError

from cnnperf.errors import StoreError, first_error, shorten
from cnnperf.record.schema import SCHEMA, Record
from cnnperf.record.schema_1 import upgraded

LONGEST_LINE = 64 * 2**20
"""Maximum bytes of a line: room for three million step times, and read in less than 1 GiB of memory."""
DEEPEST = 50
"""Maximum depth of nested settings; a suite reaches 4."""

_CHECKSUM = re.compile(rb',"checksum":"([0-9a-f]{8})"\}\Z')
_BLOCK = 2**20
"""Bytes to read at once of a line that is too long."""


class DamagedLineError(ValueError):
    """A line that holds no record, with the reason."""


@dataclass(frozen=True, slots=True)
class StoredLine:
    """A line of a file of records, and its place there."""

    number: int
    """Number of the line, from 1."""
    start: int
    end: int
    """Offsets of its first byte and of the byte after its newline."""
    content: bytes | None
    """Bytes without the newline; None if they are more than `LONGEST_LINE`."""
    is_ended: bool
    """Whether it has its newline."""

    @property
    def length(self) -> int:
        """Return the number of bytes, the newline included."""
        return self.end - self.start


def line_of(record: Record) -> bytes:
    """Return the line that stores a record."""
    return sealed(record.model_dump_json(by_alias=True).encode())


def sealed(content: bytes) -> bytes:
    """Return the line of a JSON object, with the CRC-32 of its content as the last field."""
    return content[:-1] + b',"checksum":"%08x"}\n' % zlib.crc32(content)


def stored_lines(file: BinaryIO) -> Iterator[StoredLine]:
    """Yield the lines of a file from its start, of which one is in memory at a time."""
    number = start = 0
    while content := file.readline(LONGEST_LINE + 1):
        number, end = number + 1, start + len(content)
        is_long = len(content) > LONGEST_LINE and not content.endswith(b"\n")
        while is_long and not content.endswith(b"\n") and (content := file.readline(_BLOCK)):
            end += len(content)
        is_ended = content.endswith(b"\n")
        yield StoredLine(number, start, end, None if is_long else content.removesuffix(b"\n"), is_ended)
        start = end


def parsed_record(content: bytes | None) -> Record:
    """Parse the content of a line.

    Raises DamagedLineError if it is no record, does not match its checksum or is too long, StoreError if its schema
    is newer.
    """
    if content is None:
        raise DamagedLineError(f"not a record: longer than {LONGEST_LINE // 2**20} MiB")
    content, recorded = _unsealed(content)
    found = f"{zlib.crc32(content):08x}"
    if recorded not in (None, found):
        raise DamagedLineError(f"damaged: checksum of the content is {found}, recorded {recorded}")
    try:
        document: Any = json.loads(content, parse_constant=_refused)
    except (ValueError, RecursionError) as error:  # A syntax error, or arrays or objects that are nested too deeply.
        raise DamagedLineError(f"not a record ({shorten(error)})") from error
    version = document.get("schema") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA:
        raise StoreError(
            f"schema {shorten(version, 20)} is newer than {SCHEMA}, the newest readable schema; update cnnperf"
        )
    if version != 1 and recorded is None:
        raise DamagedLineError("not a record: it has no checksum")
    if isinstance(document, dict) and _is_deeper(document.get("task"), DEEPEST):
        raise DamagedLineError(f"not a record: its task is nested more than {DEEPEST} deep")
    try:
        return Record.model_validate(upgraded(document) if version == 1 else document)
    except ValidationError as error:
        raise DamagedLineError(f"not a record: {shorten(first_error(error))}") from error


def _unsealed(line: bytes) -> tuple[bytes, str | None]:
    """Return the content of a line and its recorded checksum, if any."""
    seal = _CHECKSUM.search(line)
    return (line[: seal.start()] + b"}", seal[1].decode()) if seal else (line, None)


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [inner for each in level for inner in _inner(each)]
    return bool(level)


def _inner(value: Any) -> Iterator[Any]:
    yield from value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
