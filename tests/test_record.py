"""The store of records: appended records are read back, even if the end of the file is damaged."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from schema_1 import of_schema_1

from cnnperf import record
from cnnperf.errors import CnnperfWarning, StageError, StoreError
from cnnperf.record import Artifact, Measurement, Record, folder, single
from cnnperf.record import line as line_module

Trained = Callable[..., Record]


def test_round_trip(tmp_path: Path, trained: Trained) -> None:
    """Records come back equal, in the order in which they were appended, one line each."""
    loss = Measurement(
        metric="train.loss", unit="1", better="lower", values=(0.1, 1e-300, 2.5), tags={"a": True}, remarks={"n": 3}
    )
    first = trained({"name": "resnet", "depth": 18, "train": {"lr": 0.1}}, measured=[loss])
    second = trained(status="failed", error="line\nanother \u2028 line")
    record.append(tmp_path, first)
    record.append(tmp_path, second)
    assert record.read(tmp_path) == (first, second)
    assert (tmp_path / record.FILE).read_bytes().count(b"\n") == 2


def test_a_record_of_before_the_machine_was_described_in_full_is_read(tmp_path: Path, trained: Trained) -> None:
    """A record without the later machine fields is read: these are absent, and labels use the names that are stored."""
    stored = of_schema_1(trained())
    asked = {"processor", "platform", "gpus", "accelerator", "environment", "libraries"}
    stored["machine"] = {k: v for k, v in stored["machine"].items() if k not in asked} | {"gpu": "Tesla T4"}
    (tmp_path / record.FILE).write_text(json.dumps(stored) + "\n")
    [found] = record.read(tmp_path)
    machine = found.machine
    assert (machine.processor, machine.accelerator, machine.environment, machine.gpus) == (None, None, None, ())
    assert (machine.cpu_model, machine.instruction_sets) == (None, None)
    assert (machine.label("cpu"), machine.label("cuda")) == ("Some Processor @ 2 GHz", "Tesla T4")


def read_back(folder: Path, *documents: dict[str, Any]) -> list[Record]:
    """Store lines without a checksum and read them back."""
    (folder / record.FILE).write_text("".join(f"{json.dumps(document)}\n" for document in documents))
    return list(record.read(folder))


def test_a_record_of_schema_1_is_read_as_of_today_s(tmp_path: Path, trained: Trained) -> None:
    """A schema 1 record is converted: descriptive tags become remarks, and a renamed metric gets its present name."""
    place: dict[str, Any] = {"step": 5, "samples": 640, "seconds": 0.5, "epoch": 0.1, "n": 2000}
    measured = [
        single("train.validation_accuracy", "fraction", 0.5, "higher", place),
        single("train.device_index", "count", 0, None, {"label": "Tesla T4", "tf32": True}),
        single(
            "infer.latency", "s", 0.1, "lower", {"calls": 2, "disturbed": "a neighbour"}, engine="torch", batch_size=8
        ),
        single("train.total_images_per_s", "images/s", 9.0, "higher"),
    ]
    wanted = trained(measured=measured).model_copy(
        update={"artifacts": {"weights": Artifact(path="artifacts/weights.pt")}}
    )
    stored = of_schema_1(wanted)
    tags = {"calls": 2, "disturbed": "a neighbour", "engine": "torch", "batch_size": 8}
    assert stored["measurements"][-2]["tags"] == tags
    stored["measurements"][-1]["metric"] = "train.images_per_s"
    assert read_back(tmp_path, stored) == [wanted]
    assert wanted.version == record.SCHEMA


@pytest.mark.parametrize(
    ("error", "names", "verdict"),
    [
        ("onnxruntime: parity failed at batch size 1: …", ("error_to_float64",), 0),
        (None, ("error_to_float64", "test_accuracy"), 1),
        ("a side of the pair hangs", ("error_to_float64", "test_accuracy"), 1),
        ("KeyError: 'surprise'", ("error_to_float64",), None),
    ],
)
def test_schema_1_has_the_verdict_on_parity_in_the_words_of_its_error(
    tmp_path: Path, trained: Trained, error: str | None, names: tuple[str, ...], verdict: int | None
) -> None:
    """A schema 1 error yields the parity verdict as a measurement; a task that failed earlier has no verdict."""
    base = trained()
    found = base.model_copy(
        update={
            "task": base.task.model_copy(update={"stage": "infer", "variant": {"engine": "onnxruntime"}}),
            "error": error,
            "measurements": tuple(single(f"infer.{name}", "1", 0.5, engine="onnxruntime") for name in names),
        }
    )
    [read] = read_back(tmp_path, of_schema_1(found))
    told = [(m.values, m.tags, m.remarks) for m in read.find(record.PARITY)]
    remarks = {"fault": error} if verdict == 0 else {}
    assert told == ([] if verdict is None else [((verdict,), {"engine": "onnxruntime"}, remarks)])
    training = trained(status="failed", error="parity failed")
    assert [r.find(record.PARITY) for r in read_back(tmp_path, of_schema_1(training))] == [()]


STORED = Path(__file__).parent / "golden" / "smoke"


def test_a_stored_run_of_schema_1_is_read() -> None:
    """A stored run of schema 1 is read with its curve points, parity verdicts and artifacts."""
    for run in sorted(STORED.iterdir()):
        lines = (run / record.FILE).read_text().splitlines()
        assert {json.loads(line)["schema"] for line in lines} == {1}
        found = record.read(run)
        assert {r.version for r in found} == {record.SCHEMA}
        measured = [m for r in found for m in r.measurements]
        assert {name for m in measured for name in m.tags} <= {
            *("artifact", "baseline", "batch_size", "columns", "engine", "layer", "mode", "num_classes", "operator"),
            *("pair", "probe", "reorder", "rows", "side", "target"),
        }
        assert all(m.is_point for m in measured if m.metric == "train.validation_accuracy")
        assert any(m.remarks.get("n") for m in measured if m.metric == "train.test_accuracy")
        inferred = [r for r in found if r.task.stage == "infer" and r.status == "ok"]
        assert inferred
        assert all([m.values for m in r.find(record.PARITY)] == [(1,)] for r in inferred)
    first = record.read(min(STORED.iterdir()))
    assert {(a.sha256, a.path.split("/")[0]) for r in first for a in r.artifacts.values()} == {(None, "artifacts")}


def test_a_record_that_was_read_as_schema_1_is_written_as_today_s(tmp_path: Path) -> None:
    """A schema 1 record that is read and appended again is read back equal."""
    found = record.read(min(STORED.iterdir()))
    for each in found:
        record.append(tmp_path, each)
    assert record.read(tmp_path) == found


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_changed_digit_in_a_line_is_noticed(tmp_path: Path, trained: Trained, share: float) -> None:
    """A changed digit does not match the line's checksum; the message has the file, the line number and the fix."""
    record.append(tmp_path, trained())
    record.append(tmp_path, trained("resnet"))
    file = tmp_path / record.FILE
    first, second = file.read_bytes().splitlines(keepends=True)
    at = next(i for i in range(int(share * len(second)), len(second)) if second[i : i + 1].isdigit())
    changed = second[:at] + (b"1" if second[at : at + 1] != b"1" else b"2") + second[at + 1 :]
    file.write_bytes(first + changed)
    named = r"records\.jsonl: line 2: damaged: .*; left out; restore the file from a copy, or let cnnperf report set"
    with pytest.warns(CnnperfWarning, match=named):
        assert record.read(tmp_path) == (trained(),)
    file.write_bytes(first + second)
    assert len(record.read(tmp_path)) == 2


def test_a_line_without_its_checksum_is_no_record(tmp_path: Path, trained: Trained) -> None:
    """From schema 2 on, a line without a checksum is refused."""
    with pytest.raises(
        StoreError, match=r"records\.jsonl: line 1: not a record: it has no checksum; no record is left; restore"
    ):
        read_back(tmp_path, json.loads(trained().model_dump_json(by_alias=True)))


class Counted:
    """A file that counts the bytes that are read from it."""

    count = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.file = open(*arguments, **options)  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def read(self, size: int) -> bytes:
        """Read at most this many bytes, and count them."""
        found: bytes = self.file.read(size)
        Counted.count += len(found)
        return found


def test_append_does_not_read_the_file_again(tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appending reads at most 4,096 bytes of a large file; a longer torn line is still removed."""
    losses = Measurement(metric="train.loss", unit="1", better="lower", values=(0.1234567,) * 20_000)
    first, second = trained(measured=[losses]), trained("resnet", measured=[losses])
    record.append(tmp_path, first)
    file = tmp_path / record.FILE
    whole = file.read_bytes()
    assert len(whole) > 100_000
    with monkeypatch.context() as patch:
        patch.setattr(folder, "open", Counted, raising=False)
        patch.setattr(Path, "read_bytes", None)
        patch.setattr(Counted, "count", 0)
        record.append(tmp_path, second)
        assert Counted.count <= 4096
    file.write_bytes(whole + record.line_of(second)[:50_000])
    record.append(tmp_path, second)
    assert record.read(tmp_path) == (first, second)


def test_an_artifact_is_what_its_task_wrote(tmp_path: Path) -> None:
    """A changed or missing artifact is refused with the fix in the message; schema 1 artifacts have no checksum."""
    (tmp_path / "weights.pt").write_bytes(b"weights")
    artifact = Artifact.of(tmp_path, "weights.pt")
    assert artifact.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert artifact.verified(tmp_path) == tmp_path / "weights.pt"
    (tmp_path / "weights.pt").write_bytes(b"Weights")
    with pytest.raises(StageError, match=r"weights\.pt: its content has changed .*, or run the task .* again"):
        artifact.verified(tmp_path)
    assert Artifact(path="weights.pt").verified(tmp_path) == tmp_path / "weights.pt"
    (tmp_path / "weights.pt").unlink()
    with pytest.raises(StageError, match=r"weights\.pt: cannot be read \(No such file.*; run the task that wrote it"):
        artifact.verified(tmp_path)


def test_an_artifact_lies_inside_its_run(tmp_path: Path) -> None:
    """A path that leads out of the run folder, a pipe and a circle of links are refused, and none is read."""
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (run / "link").symlink_to(tmp_path / "secret.txt")
    (run / "circle").symlink_to(run / "circle")
    os.mkfifo(run / "pipe")
    for path in ("../secret.txt", str(tmp_path / "secret.txt"), "link", "a/../../secret.txt"):
        with pytest.raises(StageError, match="outside the run folder"):
            Artifact(path=path, sha256="0" * 64).verified(run)
    for path, reason in (("pipe", "not a regular file"), ("circle", "cannot be read"), ("a\0b", "cannot be read")):
        with pytest.raises(StageError, match=reason):
            Artifact(path=path).verified(run)


def test_the_latest_record_of_a_task_counts(tmp_path: Path, trained: Trained) -> None:
    """A task that was run again keeps its place and has the status of its latest record."""
    for each in (trained(status="failed", error="out of memory"), trained("resnet"), trained()):
        record.append(tmp_path, each)
    assert [(str(r.task.cell.model), r.status) for r in record.read(tmp_path)] == [("lenet", "ok"), ("resnet", "ok")]


@pytest.mark.filterwarnings("ignore::cnnperf.errors.CnnperfWarning")
def test_any_torn_last_line_loses_that_record_only(tmp_path: Path, trained: Trained) -> None:
    """If the last line is cut anywhere, only its record is left out; what is left of it is kept beside the next one."""
    first, second = trained(), trained("resnet")
    record.append(tmp_path, first)
    file, aside = tmp_path / record.FILE, tmp_path / record.DAMAGED_FILE
    whole, line = file.read_bytes(), record.line_of(second).rstrip()
    for length in (1, len(line) // 2, len(line) - 1):
        file.write_bytes(whole + line[:length])
        assert record.read(tmp_path) == record.read_locked(tmp_path) == (first,)
        assert file.read_bytes() == whole + line[:length]
        record.append(tmp_path, second)
        assert record.read(tmp_path) == (first, second)
        assert aside.read_bytes().endswith(line[:length] + b"\n")
    assert aside.read_bytes().count(b"\n") == 3


def test_a_last_record_without_its_newline_counts(tmp_path: Path, trained: Trained) -> None:
    """A whole last record that lacks only its newline is read, and the next record begins a new line."""
    first, second = trained(), trained("resnet")
    record.append(tmp_path, first)
    file = tmp_path / record.FILE
    file.write_bytes(file.read_bytes().rstrip())
    assert record.read(tmp_path) == (first,)
    assert not file.read_bytes().endswith(b"\n")
    record.append(tmp_path, second)
    assert record.read(tmp_path) == (first, second)
    assert not (tmp_path / record.DAMAGED_FILE).exists()


def test_a_torn_line_is_told_and_left_alone(tmp_path: Path, trained: Trained) -> None:
    """Each reader of a torn line is warned, and none changes the folder."""
    record.append(tmp_path, trained())
    with open(tmp_path / record.FILE, "ab") as file:
        file.write(b'{"schema"')
    before = (tmp_path / record.FILE).read_bytes()
    for reading in (record.read, record.read_locked):
        with pytest.warns(CnnperfWarning, match=r"line 2: torn by a crash \(9 bytes\); left out"):
            reading(tmp_path)
    assert (tmp_path / record.FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [record.FILE]


def test_damaged_lines_are_moved_out_unchanged(tmp_path: Path, trained: Trained) -> None:
    """A repair moves damaged lines, and a torn last one, to a file beside the records, and changes no other line."""
    lines = [record.line_of(trained(model)) for model in ("lenet", "mlp", "resnet")]
    file, aside = tmp_path / record.FILE, tmp_path / record.DAMAGED_FILE
    file.write_bytes(b"".join((lines[0], b"\xff\x00\n", lines[1], lines[2][:50])))
    with pytest.warns(CnnperfWarning, match=r"line 2: not a record .* \(and 1 more line: 4\); left out"):
        assert len(record.read(tmp_path)) == 2
    assert record.repair(tmp_path) == (2, 4)
    assert file.read_bytes() == lines[0] + lines[1]
    assert aside.read_bytes() == b"\xff\x00\n" + lines[2][:50] + b"\n"
    assert record.repair(tmp_path) == ()
    assert record.read(tmp_path) == (trained("lenet"), trained("mlp"))
    file.write_bytes(b"{]\n")
    assert record.repair(tmp_path) == (1,)
    assert (file.read_bytes(), aside.read_bytes().count(b"\n")) == (b"", 3)


def test_a_folder_in_use_is_not_repaired(tmp_path: Path, trained: Trained) -> None:
    """A repair is refused while a run writes the folder."""
    record.append(tmp_path, trained())
    with record.lock(tmp_path), pytest.raises(StoreError, match="another run is writing this folder"):
        record.repair(tmp_path)


def test_links_are_not_written_through(tmp_path: Path, trained: Trained) -> None:
    """Records that are a link are read, but neither appended to nor repaired."""
    (tmp_path / "run").mkdir()
    record.append(tmp_path, trained())
    (tmp_path / "run" / record.FILE).symlink_to(tmp_path / record.FILE)
    before = (tmp_path / record.FILE).read_bytes()
    assert record.read(tmp_path / "run") == (trained(),)
    for refused in (record.read_locked, record.repair):
        with pytest.raises(StoreError, match="not written through links"):
            refused(tmp_path / "run")
    with pytest.raises(OSError, match="symbolic links"):
        record.append(tmp_path / "run", trained("mlp"))
    assert (tmp_path / record.FILE).read_bytes() == before


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A pipe without a writer, a device and a folder are refused at once."""
    for make in (os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")):
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        run.mkdir()
        make(run / record.FILE)
        with pytest.raises(StoreError, match=r"(not a regular file|Is a directory).*; give a run folder"):
            record.read(run)


def test_a_line_that_is_too_long_is_left_out(tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line over the limit is named and skipped, and a record over it is not written."""
    lines = [record.line_of(trained(model)) for model in ("lenet", "mlp")]
    monkeypatch.setattr(line_module, "LONGEST_LINE", 3000)
    monkeypatch.setattr(folder, "LONGEST_LINE", 3000)
    (tmp_path / record.FILE).write_bytes(b"".join((lines[0], b"x" * 10_000, b"\n", lines[1])))
    with pytest.warns(CnnperfWarning, match=r"line 2: not a record: longer than"):
        assert record.read(tmp_path) == (trained("lenet"), trained("mlp"))
    with pytest.raises(OSError, match="longer than"):
        record.append(tmp_path, trained("mlp", error="x" * 3000))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"duration_s": -1.0}, "duration_s: must be at least 0"),
        ({"started": "yesterday"}, "started: Invalid isoformat"),
        ({"started": "9999-12-31T00:00:00"}, "started: 9999-12-31T00:00:00 is not a date from 1970 to 8999"),
        ({"duration_s": 1e300}, "duration_s: must be at most 1000000000"),
        ({"key": "../../../x"}, "key: String should match"),
        ({"measurements": ({"metric": "x", "unit": "s", "better": "lower", "values": ()},)}, "at least 1 item"),
        (
            {"measurements": ({"metric": "x", "unit": "s", "better": "lower", "values": (-1,)},)},
            "-1.0 is negative, in s",
        ),
        ({"measurements": ({"metric": "x", "unit": "count", "better": None, "values": (-1,)},)}, "negative, in count"),
        (
            {"measurements": ({"metric": "x", "unit": "fraction", "better": None, "values": (1.5,)},)},
            "1.5 is not a frac",
        ),
        (
            {"measurements": ({"metric": "x", "unit": "1", "better": None, "values": (1,), "remarks": {"n": 0}},)},
            "0 is no number of images",
        ),
        (
            {"measurements": ({"metric": "x", "unit": "1", "better": None, "values": (1,), "remarks": {"step": "a"}},)},
            "step is 'a', not a number",
        ),
        (
            {
                "measurements": (
                    {"metric": "x", "unit": "1", "better": None, "values": (1, 2), "tags": {"num_classes": 2}},
                )
            },
            "2 values are no matrix of 2 classes",
        ),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(
    tmp_path: Path, trained: Trained, changes: dict[str, Any], reason: str
) -> None:
    """A record whose figures cannot be is a damaged line, although its checksum is right."""
    document = json.loads(trained().model_dump_json(by_alias=True)) | changes
    (tmp_path / record.FILE).write_bytes(record.sealed(json.dumps(document).encode()))
    with pytest.raises(StoreError, match=rf"line 1: not a record: .*{reason}"):
        record.read(tmp_path)


def measured(metric: str, unit: str, *values: float, remarks: dict[str, Any] | None = None, **tags: Any) -> Any:
    """Return a measurement as a document."""
    return {
        "metric": metric,
        "unit": unit,
        "better": None,
        "values": values or (1.0,),
        "tags": tags,
        "remarks": remarks or {},
    }


SIDE = {"engine": "x", "batch_size": 8, "pair": 0}


@pytest.mark.parametrize(
    ("measurements", "reason"),
    [
        ([measured("x.time", "s", 1e13)], r"is above 1e\+12, in s"),
        ([measured("x.time", "s", 1.0, 1e-20)], "1e-20 is below 1e-15, in s"),
        ([measured("x.size", "bytes", 1e19)], "is above .*, in bytes"),
        ([measured("x.loss", "1", 1e200)], "is above 1e.100, in 1"),
        ([measured("infer.latency", "s", 0.0, batch_size=8)], "0.0 is not above 0"),
        ([measured("infer.speedup", "1", -1.0, batch_size=8)], "-1.0 is not above 0"),
        ([measured("train.test_accuracy", "1", 3.0)], "3.0 is no share of images"),
        ([measured("infer.latency", "s", batch_size=True)], "batch_size is True, no whole number"),
        ([measured("infer.latency", "s", batch_size="8")], "batch_size is '8', no whole number"),
        ([measured("infer.latency", "s")], "infer.latency: lacks batch_size"),
        ([measured("profile.step_seconds", "s", batch_size=8, mode=1)], "mode is 1, not a text"),
        ([measured("profile.peak_above_start_bytes", "bytes")], "lacks at"),
        ([measured("train.validation_accuracy", "fraction", remarks={"step": 1})], "lacks samples, seconds, epoch"),
        ([measured("infer.pair_seconds", "s", side="baseline", **SIDE)], "pair 0 at batch 8 has the samples"),
        (
            [
                measured("infer.pair_seconds", "s", 1.0, 2.0, side="baseline", **SIDE),
                measured("infer.pair_seconds", "s", 1.0, side="candidate", **SIDE),
            ],
            "pair 0 at batch 8 has the samples",
        ),
        (
            [
                measured("infer.right_in_torch_only", "count", 6.0, remarks={"n": 10}),
                measured("infer.right_in_engine_only", "count", 5.0, remarks={"n": 10}),
            ],
            "of 10 images",
        ),
    ],
)
def test_a_record_that_no_table_can_show_is_refused(
    tmp_path: Path, trained: Trained, measurements: list[Any], reason: str
) -> None:
    """A record with a figure that tables cannot compute with, or without its place in one, is a damaged line."""
    document = json.loads(trained().model_dump_json(by_alias=True)) | {"measurements": measurements}
    (tmp_path / record.FILE).write_bytes(record.sealed(json.dumps(document).encode()))
    with pytest.raises(StoreError, match=rf"line 1: not a record: .*{reason}"):
        record.read(tmp_path)


def test_numbers_of_a_task_have_a_bound(tmp_path: Path, trained: Trained) -> None:
    """A record whose task has a number of hundreds of digits is a damaged line."""
    document = json.loads(trained().model_dump_json(by_alias=True))
    document["task"]["seed"] = 10**300
    (tmp_path / record.FILE).write_bytes(record.sealed(json.dumps(document).encode()))
    with pytest.raises(StoreError, match="seed is beyond"):
        record.read(tmp_path)


def test_a_line_that_is_being_written_is_left_alone(tmp_path: Path, trained: Trained) -> None:
    """While a run holds the lock, its unfinished line is neither removed nor reported as torn."""
    record.append(tmp_path, trained())
    with open(tmp_path / record.FILE, "ab") as file:
        file.write(b'{"schema"')
    with record.lock(tmp_path):
        assert record.read(tmp_path) == (trained(),)
    assert (tmp_path / record.FILE).read_bytes().endswith(b'\n{"schema"')


def test_append_takes_back_what_a_full_disk_cut_short(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that could not be written durably is removed, and the lines before it stay."""
    record.append(tmp_path, trained())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            record.append(tmp_path, trained("resnet"))
    assert record.read(tmp_path) == (trained(),)


def test_append_goes_on_after_a_short_write(tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole line is written even if the system accepts only seven bytes at a time."""

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

    monkeypatch.setattr(folder, "open", Narrow, raising=False)
    record.append(tmp_path, trained())
    monkeypatch.undo()
    assert record.read(tmp_path) == (trained(),)


def test_a_newer_schema_is_refused(tmp_path: Path, trained: Trained) -> None:
    """A record of a newer schema is refused, and the message names the line and says to update cnnperf."""
    newer = json.loads(trained().model_dump_json(by_alias=True)) | {"schema": record.SCHEMA + 1, "unheard": "of"}
    record.append(tmp_path, trained())
    with open(tmp_path / record.FILE, "a") as file:
        file.write(json.dumps(newer) + "\n")
    with pytest.raises(
        StoreError, match=rf"{record.FILE}: line 2: schema {record.SCHEMA + 1} is newer.*update cnnperf"
    ):
        record.read(tmp_path)
    (tmp_path / record.FILE).write_text(json.dumps(newer | {"schema": 10**400}) + "\n", encoding="utf-8")
    with pytest.raises(StoreError, match=r"schema 10+… is newer") as caught:
        record.read(tmp_path)
    assert len(str(caught.value)) <= 500


@pytest.mark.parametrize("line", ["{]", "[]", "7", '{"schema": 1}', '{"schema": "1"}', "[" * 100_000])
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    """A line that is not a record is an error that names the line's number and the cure."""
    (tmp_path / record.FILE).write_text(f"{line}\n")
    with pytest.raises(StoreError, match=r"records\.jsonl: line 1: not a record.*; restore the file from a copy$"):
        record.read(tmp_path)


def test_a_folder_without_records_is_named(tmp_path: Path) -> None:
    """A path without records is refused, and the message says to give a run folder."""
    with pytest.raises(StoreError, match=r"cannot be read .*; give a run folder"):
        record.read(tmp_path)


def test_values_that_json_cannot_hold_are_refused() -> None:
    """A measurement with the value NaN is refused."""
    with pytest.raises(ValueError, match="finite"):
        Measurement(metric="train.loss", unit="1", better="lower", values=(float("nan"),))


def test_find_goes_by_metric_and_tags(trained: Trained) -> None:
    """`find` returns the measurements whose metric and tags agree; other tags are ignored, and remarks do not count."""
    measured = [single("x.size", "count", size, None, {"n": size}, layer="a", size=size) for size in (1, 2)]
    found = trained(measured=measured)
    assert [m.values for m in found.find("x.size", layer="a", size=2)] == [(2,)]
    assert found.find("x.size", layer="b") == found.find("x.size", n=2) == ()
