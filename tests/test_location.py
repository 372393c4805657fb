"""Where records are: compressed files, folders without artifacts, and the runs that come with cnnperf."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import cnnperf
from cnnperf.errors import StoreError, UsageError
from cnnperf.record import COMPRESSED_FILE, FILE, Record, append, located, reference_runs, repair, run_folders
from cnnperf.running.runner import folder_to_run
from cnnperf.tables.report import report_of

GOLDEN = min((Path(__file__).parent / "golden" / "smoke").iterdir())
AsReference = Callable[[Path, str], str]


@pytest.fixture
def compressed(tmp_path: Path) -> Path:
    """Return the folder of a run that holds nothing but its compressed records."""
    folder = tmp_path / "smoke" / GOLDEN.name
    folder.mkdir(parents=True)
    (folder / COMPRESSED_FILE).write_bytes(gzip.compress((GOLDEN / FILE).read_bytes()))
    return folder


def test_compressed_records_are_those_of_the_plain_file(compressed: Path) -> None:
    """Compressed records are read as the plain ones, and all tables but those of artifacts are the same."""
    assert cnnperf.read(compressed) == cnnperf.read(GOLDEN)
    found, wanted = report_of([compressed]), report_of([GOLDEN])
    assert [table.name for table in found.tables] == [t.name for t in wanted.tables if t.name != "examples"]
    for table in found.tables:
        other = wanted.table(table.name)
        if other and table.name != "confusion":  # The names of classes are in an artifact.
            assert table.rows == other.rows, table.name


def test_a_plain_file_is_read_before_a_compressed_one(compressed: Path, trained: Callable[..., Record]) -> None:
    """A folder that has both files is read from the plain one, which may have grown."""
    append(compressed, trained())
    assert cnnperf.read(compressed) == (trained(),)


@pytest.mark.parametrize("name", [FILE, COMPRESSED_FILE])
def test_a_run_may_be_given_by_its_file(compressed: Path, name: str) -> None:
    """The path of a file of records means its folder."""
    if name == FILE:
        shutil.copy(GOLDEN / FILE, compressed)
    assert located(compressed / name) == compressed
    assert run_folders([compressed / name]) == run_folders([compressed])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-9], "ended before"),
        (lambda content: content[:200] + b"\0" * 40 + content[240:], ""),
        (lambda content: b"no gzip", "Not a gzipped file"),
        (lambda content: b"", "no record"),
    ],
    ids=["torn", "overwritten", "not compressed", "empty"],
)
def test_a_damaged_compressed_file_is_one_sentence(
    compressed: Path, damage: Callable[[bytes], bytes], words: str
) -> None:
    """A compressed file that cannot be unpacked is refused whole, with its path and the cure; an empty one has none."""
    file = compressed / COMPRESSED_FILE
    file.write_bytes(damage(file.read_bytes()))
    if words == "no record":
        assert cnnperf.read(compressed) == ()
        return
    cure = r"records.jsonl.gz: cannot be unpacked .*; restore the file from a copy"
    with pytest.raises(StoreError, match=cure) as caught:
        cnnperf.read(compressed)
    assert words in str(caught.value)


def test_compressed_records_are_never_written(compressed: Path) -> None:
    """A folder with compressed records is neither repaired, resumed nor written to by another run."""
    content = (compressed / COMPRESSED_FILE).read_bytes()
    with pytest.raises(StoreError, match=r"compressed records are never changed; unpack the file to records.jsonl"):
        repair(compressed)
    suite = cnnperf.load_suite("smoke")
    with pytest.raises(UsageError, match=r"`resume`: .* contains no records.jsonl"):
        folder_to_run(suite, None, compressed)
    with pytest.raises(UsageError, match=r"`out`: .* already contains a run"):
        folder_to_run(suite, compressed, None)
    assert [file.name for file in compressed.iterdir()] == [COMPRESSED_FILE]
    assert (compressed / COMPRESSED_FILE).read_bytes() == content


def test_a_run_that_comes_with_cnnperf_has_a_name(as_reference: AsReference, tmp_path: Path) -> None:
    """A reference run is found by its name, in a report too, and a folder of this path comes first."""
    name = as_reference(GOLDEN, "smoke")
    assert (name, list(reference_runs())) == ("reference/smoke", ["reference/smoke"])
    assert cnnperf.read(name) == cnnperf.read(GOLDEN)
    assert list(report_of([name]).folders) == [name]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        Path(name).mkdir(parents=True)
        assert located(name) == Path(name)


def test_an_unknown_reference_names_the_known_ones(as_reference: AsReference) -> None:
    """The error for an unknown name lists the known ones; any other path is left to the reader of the file."""
    with pytest.raises(StoreError, match=r"reference/cifr: neither .* \(known: none here; they are in results"):
        cnnperf.read("reference/cifr")
    as_reference(GOLDEN, "cifar")
    with pytest.raises(StoreError, match=r"reference/cifr: neither .* \(known: reference/cifar\)"):
        cnnperf.read("reference/cifr")
    for path in ("reference", "results/reference/cifr", "cifar"):
        assert located(path) == Path(path)
        with pytest.raises(StoreError, match="cannot be read"):
            cnnperf.read(path)


STORED = sorted((Path(__file__).parents[1] / "results" / "reference").glob(f"*/{COMPRESSED_FILE}"))


@pytest.mark.parametrize("file", STORED, ids=lambda file: file.parent.name)
def test_the_stored_tables_are_those_of_the_stored_records(file: Path, tmp_path: Path) -> None:
    """Each table beside reference records is made again from these, except for the name of the run."""
    import pandas as pd

    from cnnperf.reports.csv import write

    name = f"reference/{file.parent.name}"
    assert reference_runs()[name] == file.parent
    write(report_of([name]), tmp_path)
    tables = sorted(file.parent.glob("*.csv"))
    assert tables
    for table in tables:
        stored, made = (pd.read_csv(folder / table.name) for folder in (file.parent, tmp_path))
        columns = [column for column in stored.columns if column != "run"]
        pd.testing.assert_frame_equal(stored[columns], made[columns])
