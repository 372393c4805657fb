"""The store of records: what goes in comes out, whatever happens to the file's end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnnperf import record
from cnnperf.errors import CnnperfWarning, StoreError
from cnnperf.record import Measurement, Record

Trained = Callable[..., Record]


def test_round_trip(tmp_path: Path, trained: Trained) -> None:
    """Records come back equal, in the order in which they were appended, one line each."""
    loss = Measurement(metric="train.loss", unit="1", better="lower", values=(0.1, 1e-300, 2.5), tags={"a": True})
    first = trained({"name": "resnet", "depth": 18, "train": {"lr": 0.1}}, measured=[loss])
    second = trained(status="failed", error="line\nanother \u2028 line")
    record.append(tmp_path, first)
    record.append(tmp_path, second)
    assert record.read(tmp_path) == (first, second)
    assert (tmp_path / record.FILE).read_bytes().count(b"\n") == 2


def test_a_record_of_before_the_machine_was_described_in_full_is_read(tmp_path: Path, trained: Trained) -> None:
    """A stored line has none of the later fields; they are absent, and its labels are the names it has."""
    stored = json.loads(trained().model_dump_json(by_alias=True))
    asked = {"processor", "platform", "gpus", "accelerator", "environment", "libraries"}
    stored["machine"] = {k: v for k, v in stored["machine"].items() if k not in asked} | {"gpu": "Tesla T4"}
    (tmp_path / record.FILE).write_text(json.dumps(stored) + "\n")
    [found] = record.read(tmp_path)
    machine = found.machine
    assert (machine.processor, machine.accelerator, machine.environment, machine.gpus) == (None, None, None, ())
    assert (machine.cpu_model, machine.instruction_sets) == (None, None)
    assert (machine.label("cpu"), machine.label("cuda")) == ("Some Processor @ 2 GHz", "Tesla T4")


def test_the_latest_record_of_a_task_counts(tmp_path: Path, trained: Trained) -> None:
    """A task that was run again keeps its place with its new outcome."""
    for each in (trained(status="failed", error="out of memory"), trained("resnet"), trained()):
        record.append(tmp_path, each)
    assert [(str(r.task.cell.model), r.status) for r in record.read(tmp_path)] == [("lenet", "ok"), ("resnet", "ok")]


@pytest.mark.filterwarnings("ignore::cnnperf.errors.CnnperfWarning")
def test_any_torn_last_line_loses_that_record_only(tmp_path: Path, trained: Trained) -> None:
    """Cut anywhere within the last line, the file gives the records before it and takes new ones."""
    first, second = trained(), trained("resnet")
    record.append(tmp_path, first)
    whole = (tmp_path / record.FILE).read_bytes()
    line = second.model_dump_json(by_alias=True).encode()
    for length in (1, len(line) // 2, len(line)):
        (tmp_path / record.FILE).write_bytes(whole + line[:length])
        assert record.read(tmp_path) == (first,)
        assert (tmp_path / record.FILE).read_bytes() == whole
        record.append(tmp_path, second)
        assert record.read(tmp_path) == (first, second)


def test_a_torn_line_is_told_once(tmp_path: Path, trained: Trained) -> None:
    """The reader is warned of the loss, and after the repair no more."""
    record.append(tmp_path, trained())
    with open(tmp_path / record.FILE, "ab") as file:
        file.write(b'{"schema"')
    with pytest.warns(CnnperfWarning, match=r"torn by a crash \(9 bytes\)"):
        record.read(tmp_path)
    record.read(tmp_path)


def test_a_line_that_is_being_written_is_left_alone(tmp_path: Path, trained: Trained) -> None:
    """While a run holds the lock, its unfinished line is neither removed nor called torn."""
    record.append(tmp_path, trained())
    with open(tmp_path / record.FILE, "ab") as file:
        file.write(b'{"schema"')
    with record.lock(tmp_path):
        assert record.read(tmp_path) == (trained(),)
    assert (tmp_path / record.FILE).read_bytes().endswith(b'\n{"schema"')


def test_append_takes_back_what_a_full_disk_cut_short(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that could not be made durable does not stay, and what stood before it does."""
    record.append(tmp_path, trained())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            record.append(tmp_path, trained("resnet"))
    assert record.read(tmp_path) == (trained(),)


def test_append_goes_on_after_a_short_write(tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes seven bytes at a time still gets the whole line."""

    class Narrow:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.file = open(*arguments, **options)  # noqa: SIM115 - closed in __exit__

        def __enter__(self) -> Narrow:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, data: bytes) -> int:
            return self.file.write(data[:7])

    monkeypatch.setattr(record, "open", Narrow, raising=False)
    record.append(tmp_path, trained())
    monkeypatch.undo()
    assert record.read(tmp_path) == (trained(),)


def test_a_newer_schema_is_refused(tmp_path: Path, trained: Trained) -> None:
    """A record of a cnnperf to come is not guessed at; the sentence says where it stands and the cure."""
    newer = json.loads(trained().model_dump_json(by_alias=True)) | {"schema": record.SCHEMA + 1, "unheard": "of"}
    record.append(tmp_path, trained())
    with open(tmp_path / record.FILE, "a") as file:
        file.write(json.dumps(newer) + "\n")
    with pytest.raises(
        StoreError, match=rf"{record.FILE}: line 2: schema {record.SCHEMA + 1} is newer.*update cnnperf"
    ):
        record.read(tmp_path)


@pytest.mark.parametrize("line", ["{]", "[]", "7", '{"schema": 1}', '{"schema": "1"}'])
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    """Damage in the middle of the file is an error with the number of its line."""
    (tmp_path / record.FILE).write_text(f"{line}\n")
    with pytest.raises(StoreError, match=r"records\.jsonl: line 1: not a record"):
        record.read(tmp_path)


def test_a_folder_without_records_is_named(tmp_path: Path) -> None:
    """What is no run folder is refused with the cure."""
    with pytest.raises(StoreError, match=r"cannot be read .*; give a run folder"):
        record.read(tmp_path)


def test_values_that_json_cannot_hold_are_refused() -> None:
    """Not a number is absent, never a value."""
    with pytest.raises(ValueError, match="finite"):
        Measurement(metric="train.loss", unit="1", better="lower", values=(float("nan"),))


def test_find_goes_by_metric_and_tags(trained: Trained) -> None:
    """Every tag that is asked for must agree; others may be there."""
    found = trained(n=1000).find("train.test_accuracy", n=1000)
    assert [m.values for m in found] == [(0.5,)]
    assert trained().find("train.test_accuracy", n=999) == ()
