"""The node's side: the tasks of a cell in a folder of their own, and the files that they leave."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from cnnperf.ipc.messages import CellRequest, FromNode, Recorded, decode, encode
from cnnperf.record import Record
from cnnperf.running.cell import run_cell


def serve_cell(line: bytes, files: Mapping[str, bytes]) -> Iterator[tuple[bytes, dict[str, bytes]]]:
    """Run a cell, and yield each message, as a line, with the files of a record.

    line: a CellRequest as a line. files: contents of the files that its tasks read, by their path in a run folder.
    """
    request = decode(line)
    assert isinstance(request, CellRequest)
    _remove_left()
    with tempfile.TemporaryDirectory(prefix=f"{_mark()}{os.getpid()}-") as place:
        folder = Path(place)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        for message in run_cell(request, folder):
            yield encode(message), files_of_record(message, folder)


def _mark() -> str:
    """Return the start of the names of cells' folders whose process ids have the same meaning as here."""
    return f"cnnperf-cell-{Path('/proc/self/ns/pid').stat().st_ino}-"


def _remove_left() -> None:
    """Remove the folders of cells whose processes were killed, which is how a run is interrupted on its nodes."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_mark()}*"):
        found = re.fullmatch(r"(\d+)-.*", folder.name.removeprefix(_mark()))
        if found and not psutil.pid_exists(int(found[1])):
            shutil.rmtree(folder, ignore_errors=True)


def files_of_record(message: FromNode, folder: Path) -> dict[str, bytes]:
    """Return the files of a record, artifacts and logs, by their path in the run folder; none of another message."""
    if not isinstance(message, Recorded):
        return {}
    return {path: (folder / path).read_bytes() for path in _paths(message.record, folder)}


def _paths(record: Record, folder: Path) -> Iterator[str]:
    for artifact in record.artifacts.values():
        yield artifact.path
    for log in folder.glob(f"logs/*-{record.key}.log"):
        yield str(log.relative_to(folder))
