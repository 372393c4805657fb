"""The folder of an accuracy record: all that is needed to check it, and its reading."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from math import isclose
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from cnnperf import registry
from cnnperf.accuracy_record.claim import FEWEST_SEEDS, Accuracy, RecordClaim, StandingRecord
from cnnperf.errors import StoreError, UsageError, first_error
from cnnperf.record import COMPRESSED_FILE, Machine, Record, line_of, read, replacing
from cnnperf.task import Cell, Frozen, Task
from cnnperf.training.recipe import budget_of

SUMMARY_FILE = "record.json"
SUITE_COPY = "suite.toml"
SOURCE_FOLDER = "source"
"""Copies of the files of the package that decide the accuracy."""
PACKAGE = Path(__file__).parents[1]
FORM_OF_NAME = re.compile(r"[\w.=-]{1,60}")
"""Form of a record's name, which is part of a folder's."""
FROM_RESTORE = "restore the folder from a copy"


class AccuracyRecord(Frozen):
    """A record: its claim, the accuracy of each seed, and what produced them."""

    version: Literal[1] = Field(default=1, alias="schema")
    name: str
    """Name of its folder, `<date>-<name>`."""
    task: Task
    """The training of the first seed, with all settings; the others differ by repeat and seed."""
    budget: str
    claim: RecordClaim
    seeds: tuple[int, ...] = Field(min_length=FEWEST_SEEDS)
    accuracies: tuple[Accuracy, ...]
    """Share of the test images classified correctly, by seed."""
    accuracies_flip: tuple[Accuracy, ...] = ()
    """The same by the mean logits of each image and its mirror image; empty if not measured."""
    test_images: int
    mean: Accuracy
    deviation: float
    """Standard deviation over seeds."""
    p: float
    """One-sided p-value of the claim."""
    machine: Machine
    sources: Mapping[Annotated[str, Field(pattern=r"^cnnperf/\w+/\w+\.py$")], str]
    """SHA-256 of each copied file, by its place below the package's parent folder."""

    @classmethod
    def of(cls, records: Sequence[Record], claim: RecordClaim, name: str, sources: Mapping[str, str]) -> AccuracyRecord:
        """Summarise the records of all seeds. Raises UsageError if these are not a complete series of one training."""
        if fault := fault_in(records):
            raise UsageError(fault)
        first = records[0]
        accuracies = _values(records, "train.test_accuracy")
        assert first.task.data
        test_images = first.task.data.test_count
        return cls(
            name=name,
            task=first.task,
            budget=budget_of(first.task.settings) or "",
            claim=claim,
            seeds=tuple(record.task.seed for record in records),
            accuracies=accuracies,
            accuracies_flip=_values(records, "train.test_accuracy_flip"),
            test_images=test_images,
            mean=fmean(accuracies),
            deviation=stdev(accuracies),
            p=claim.tested(accuracies, test_images).p,
            machine=first.machine,
            sources=sources,
        )

    @property
    def kind(self) -> str:
        """Dataset, budget and device: records of one kind succeed each other."""
        return kind_of(self.task)

    @property
    def date(self) -> str:
        """Return the UTC date, `20261130`."""
        return self.name.partition("-")[0]

    def as_standing(self) -> StandingRecord:
        """Return the record as one that a new record must beat."""
        return StandingRecord(name=self.name, accuracies=self.accuracies)


def kind_of(task: Task) -> str:
    """Return dataset, budget and device of a training as the name of a folder: `cifar10-60s-cpu`."""
    budget = (budget_of(task.settings) or "").replace(" ", "", 1)
    return re.sub(r"[^\w.=]+", "-", f"{task.cell.dataset}-{budget}-{task.cell.device}").strip("-")


def fault_in(records: Sequence[Record]) -> str | None:
    """Return why records are not those of consecutive seeds of one training, all test images each; None if they are."""
    for record in records:
        seed = f"seed {record.task.seed}"
        if record.status != "ok":
            return f"{seed} ended as {record.status}: {record.error}; a record leaves out no seed"
        tested = record.find("train.test_accuracy")
        count = record.task.data.test_count if record.task.data else 0
        if len(tested) != 1 or tested[0].remarks.get("n") != count:
            return f"{seed} was not tested on all {count:,} test images; a record counts all of them"
    seeds = [record.task.seed for record in records]
    if len(seeds) < FEWEST_SEEDS or seeds != list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{len(seeds)} seeds are not a series ({', '.join(map(str, seeds))}); a record leaves out no seed"
    if len({record.task.model_copy(update={"repeat": 0, "seed": 0}).key for record in records}) > 1:
        return "the seeds were trained with different settings; a record has one training"
    device = records[0].task.cell.device.name
    if len({(record.machine.host, record.machine.label(device)) for record in records}) > 1:
        return "the seeds were trained on several machines; a record has one"
    if len({record.machine.commit for record in records}) > 1:
        return "the seeds were trained by several versions of cnnperf; a record has one"
    return None


def sources_of(cell: Cell, stage: str) -> dict[str, Path]:
    """Return the files that decide the accuracy of a training, by their places below the package's parent folder.

    These are the files of the network, the dataset and the stage, those that networks share, and the training package.
    Raises UsageError for a network, a dataset or a stage of another package.
    """
    chosen = {"models": cell.model.name, "datasets": cell.dataset.name, "stages": stage}
    for room, name in chosen.items():
        if name not in registry.names(room):
            raise UsageError(
                f"{name!r} is code of another package, whose source a record cannot hold; add its file to {room}/"
            )
    files = [PACKAGE / room / f"{name}.py" for room, name in chosen.items()]
    files += [*sorted((PACKAGE / "models").glob("_*.py")), *sorted((PACKAGE / "training").glob("*.py"))]
    return {file.relative_to(PACKAGE.parent).as_posix(): file for file in files}


def _values(records: Iterable[Record], metric: str) -> tuple[float, ...]:
    """Return the value of a metric in each record; empty unless all have it."""
    found = [record.find(metric) for record in records]
    return tuple(each[0].values[0] for each in found) if all(found) else ()


def checksums(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of files, by their names."""
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


def changed_sources(record: AccuracyRecord) -> tuple[str, ...]:
    """Return the files of this package that are absent, or not those with which a record was made."""
    here = {name: PACKAGE.parent / name for name in record.sources}
    now = checksums({name: file for name, file in here.items() if file.is_file()})
    return tuple(name for name, sha256 in record.sources.items() if now.get(name) != sha256)


def write_record(folder: Path, record: AccuracyRecord, suite: Path, records: Iterable[Record]) -> None:
    """Fill an empty folder with a record, the summary last. suite: its file. Raises OSError."""
    for name in record.sources:
        copy = folder / SOURCE_FOLDER / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PACKAGE.parent / name, copy)
    shutil.copyfile(suite, folder / SUITE_COPY)
    (folder / COMPRESSED_FILE).write_bytes(gzip.compress(b"".join(map(line_of, records)), mtime=0))
    with replacing(folder / SUMMARY_FILE) as file:
        file.write(record.model_dump_json(indent=2, by_alias=True) + "\n")


def read_summary(folder: Path) -> AccuracyRecord:
    """Read only the summary of a record's folder. Raises StoreError."""
    path = folder / SUMMARY_FILE
    try:
        return AccuracyRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); give the folder of a record") from error
    except ValidationError as error:
        raise StoreError(f"{path}: not the summary of a record ({first_error(error)}); {FROM_RESTORE}") from error
    except ValueError as error:
        raise StoreError(f"{path}: not UTF-8; {FROM_RESTORE}") from error


def read_record(folder: Path) -> tuple[AccuracyRecord, tuple[Record, ...]]:
    """Read a record's folder, and check that its summary follows from its records and that its sources are unchanged.

    Raises StoreError.
    """
    stored = read_summary(folder)
    records = read(folder)
    try:
        again = AccuracyRecord.of(records, stored.claim, stored.name, stored.sources)
    except UsageError as error:
        raise StoreError(f"{folder / COMPRESSED_FILE}: {error}; {FROM_RESTORE}") from error
    for field in AccuracyRecord.model_fields:
        one, other = getattr(stored, field), getattr(again, field)
        is_close = isinstance(one, float) and isclose(one, other, rel_tol=1e-6)
        if one != other and not is_close:
            raise StoreError(f"{folder / SUMMARY_FILE}: {field} does not follow from {COMPRESSED_FILE}; {FROM_RESTORE}")
    copies = {name: folder / SOURCE_FOLDER / name for name in stored.sources}
    found = checksums({name: file for name, file in copies.items() if file.is_file()})
    for name, sha256 in stored.sources.items():
        if found.get(name) != sha256:
            raise StoreError(f"{copies[name]}: absent, or changed since the record was made; {FROM_RESTORE}")
    return stored, records


def records_below(root: Path) -> dict[Path, AccuracyRecord]:
    """Read the summaries of all records below a folder, by their own folders, in the order of dates and names.

    Raises StoreError if one of them is damaged.
    """
    found = {file.parent: read_summary(file.parent) for file in root.glob(f"*/*/{SUMMARY_FILE}")}
    return dict(sorted(found.items(), key=lambda each: (each[1].kind, each[1].name)))


def standing_of(records: Iterable[AccuracyRecord], kind: str) -> AccuracyRecord | None:
    """Return the record of a kind with the highest mean; None if there is none."""
    return max((record for record in records if record.kind == kind), key=lambda record: record.mean, default=None)
