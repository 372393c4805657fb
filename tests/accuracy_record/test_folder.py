"""The folder of an accuracy record: complete, checked when read, and refused if it was changed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnnperf.accuracy_record import folder as files
from cnnperf.accuracy_record.folder import (
    changed_sources,
    fault_in,
    kind_of,
    read_record,
    records_below,
    sources_of,
    standing_of,
)
from cnnperf.errors import StoreError, UsageError
from cnnperf.record import COMPRESSED_FILE, Record, read
from cnnperf.task import Cell

Series = Callable[..., list[Record]]
Written = Callable[..., Path]


def test_a_folder_is_read_as_it_was_written(written: Written, series: Series) -> None:
    """The folder has suite, source and records, from which every figure of the summary follows."""
    folder = written("20250102-lenet", 0.6, 0.62, 0.61)
    record, records = read_record(folder)
    assert record.accuracies == (0.6, 0.62, 0.61)
    assert record.seeds == (7, 8, 9)
    assert (record.kind, record.budget, record.test_images) == ("cifar10-60s-cpu", "60 s", 10_000)
    assert (round(record.mean, 6), round(record.deviation, 6)) == (0.61, 0.01)
    assert record.p < 0.01
    assert list(records) == series(0.6, 0.62, 0.61)
    assert read(folder) == records
    assert (folder / "suite.toml").read_text() == "# as it was"
    assert (folder / "source/cnnperf/models/lenet.py").read_bytes() == (files.PACKAGE / "models/lenet.py").read_bytes()
    assert json.loads((folder / "record.json").read_text())["schema"] == 1
    assert changed_sources(record) == ()


def test_compressed_records_have_no_date(written: Written) -> None:
    """The compressed records contain no time of their compression, so that equal records have equal files."""
    content = (written("20250102-lenet", 0.6, 0.62) / COMPRESSED_FILE).read_bytes()
    assert content[4:8] == bytes(4)


def change(file: str, key: str, value: Any) -> Callable[[Path], None]:
    """Return a function that changes a key of a JSON file in a folder."""

    def changed(folder: Path) -> None:
        document = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**document, key: value}))

    return changed


def append(file: str) -> Callable[[Path], None]:
    """Return a function that appends a line to a file in a folder."""

    def appended(folder: Path) -> None:
        with (folder / file).open("a") as out:
            out.write("\n")

    return appended


def shortened(folder: Path) -> None:
    """Take the last seed out of the records."""
    lines = gzip.decompress((folder / COMPRESSED_FILE).read_bytes()).splitlines(keepends=True)
    (folder / COMPRESSED_FILE).write_bytes(gzip.compress(b"".join(lines[:-1])))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change("record.json", "accuracies", [0.6, 0.62, 0.65]), "accuracies does not follow from records.jsonl.gz"),
        (change("record.json", "p", 1e-9), "p does not follow"),
        (change("record.json", "mean", 0.7), "mean does not follow"),
        (change("record.json", "seeds", [0, 1, 2]), "seeds does not follow"),
        (change("record.json", "sources", {"cnnperf/../x.py": ""}), "not the summary of a record"),
        (lambda folder: (folder / "record.json").write_text("{"), "not the summary of a record"),
        (lambda folder: (folder / "record.json").write_bytes(b"\xff"), "not UTF-8"),
        (lambda folder: (folder / "record.json").unlink(), "cannot be read"),
        (lambda folder: (folder / COMPRESSED_FILE).unlink(), "cannot be read"),
        (append("source/cnnperf/models/lenet.py"), "changed since the record was made"),
        (lambda folder: (folder / "source/cnnperf/training/loop.py").unlink(), "absent, or changed"),
        (shortened, "seeds does not follow"),
    ],
)
def test_a_changed_folder_is_refused(damage: Callable[[Path], None], words: str, written: Written) -> None:
    """A figure that does not follow from the records, a changed source and a missing file are named, with a cure."""
    folder = written("20250102-lenet", 0.6, 0.62, 0.61)
    damage(folder)
    with pytest.raises(StoreError, match=words) as caught:
        read_record(folder)
    assert "; " in str(caught.value)


def test_a_series_is_complete(series: Series, on: Callable[..., Record]) -> None:
    """A failed seed, a gap, other settings, another machine or version, and a part of the test images are faults."""
    good = series(0.6, 0.62, 0.61)
    assert fault_in(good) is None
    assert "seed 7 ended as failed" in str(fault_in(series(0.6, 0.61, status="failed", error="no")))
    assert "not a series" in str(fault_in([good[0], good[2]]))
    assert "not a series" in str(fault_in(good[:1]))
    assert "different settings" in str(fault_in([good[0], series(0.6, 0.61, batch_size=7)[1]]))
    assert "several machines" in str(fault_in([good[0], on(good[1], host="other")]))
    assert "several versions" in str(fault_in([good[0], on(good[1], commit="abc")]))


def test_a_subset_of_the_test_images_is_a_fault(trained: Callable[..., Record]) -> None:
    """A seed that was tested on fewer than all test images makes no record."""
    records = [trained(n=2000, repeat=repeat) for repeat in range(2)]
    assert fault_in(records) == "seed 7 was not tested on all 10,000 test images; a record counts all of them"


def test_the_source_is_that_of_network_dataset_and_training() -> None:
    """The files of the network, what networks share, the dataset, the stage and the training package are kept."""
    found = sources_of(Cell.model_validate({"dataset": "cifar10", "model": "speedrun", "device": "cpu"}), "train")
    assert {
        "cnnperf/models/speedrun.py",
        "cnnperf/models/_recipes.py",
        "cnnperf/datasets/cifar10.py",
        "cnnperf/stages/train.py",
        "cnnperf/training/muon.py",
    } <= found.keys()
    assert "cnnperf/models/resnet.py" not in found
    assert all(file.is_file() for file in found.values())


def test_code_of_others_has_no_source_here() -> None:
    """A network of another package is refused."""
    cell = Cell.model_validate({"dataset": "cifar10", "model": "torchvision.models:resnet18", "device": "cpu"})
    with pytest.raises(UsageError, match=r"'torchvision.models:resnet18' is code of another package"):
        sources_of(cell, "train")


def test_a_changed_source_is_found(written: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Source files that this version lacks, or has otherwise, are named."""
    record, _ = read_record(written("20250102-lenet", 0.6, 0.62))
    monkeypatch.setattr(files, "PACKAGE", tmp_path / "cnnperf")
    (tmp_path / "cnnperf/models").mkdir(parents=True)
    (tmp_path / "cnnperf/models/lenet.py").write_text("other")
    assert set(changed_sources(record)) == set(record.sources)


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({}, "cifar10-60s-cpu"),
        ({"seconds": None, "epochs": 1}, "cifar10-1epoch-cpu"),
        ({"seconds": None, "steps": 500, "target_accuracy": 0.9}, "cifar10-500steps-or-until-90-cpu"),
        ({"dataset": {"name": "synthetic", "train": 9}}, "synthetic-train=9-60s-cpu"),
    ],
)
def test_a_kind_is_a_folder_s_name(facts: dict[str, Any], kind: str, series: Series) -> None:
    """Dataset, budget and device, with their options, are one word that a path may contain."""
    assert kind_of(series(0.5, **facts)[0].task) == kind


def test_the_standing_record_has_the_highest_mean(written: Written, tmp_path: Path) -> None:
    """The record of a kind with the highest mean stands, whatever the order."""
    for name, accuracy in (("20250102-a", 0.6), ("20250103-b", 0.7), ("20250104-c", 0.65)):
        written(name, accuracy, accuracy + 0.01)
    written("20250105-d", 0.9, 0.91, dataset="mnist")
    found = records_below(tmp_path / "records")
    assert [folder.name for folder in found] == ["20250102-a", "20250103-b", "20250104-c", "20250105-d"]
    standing = standing_of(found.values(), "cifar10-60s-cpu")
    assert standing
    assert standing.name == "20250103-b"
    assert standing_of(found.values(), "cifar10-9s-cpu") is None
    assert records_below(tmp_path / "nothing") == {}
