"""Faults in the records of a run folder."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import resource
import shutil
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from faulty import assert_ended, assert_one_sentence, cnnperf, make_run
from matrix import Trials

from cnnperf import record
from cnnperf.errors import CnnperfError, CnnperfWarning
from cnnperf.reports import writer
from cnnperf.tables.report import report_of

SUITE = """
datasets = [{ name = "synthetic", shape = [1, 28, 28], train = 200, test = 100 }]
models = ["mlp", "lenet"]
devices = ["cpu", "cuda"]
threads = 1
train = { steps = 2, validation_images = 50, batch_size = 50 }
"""
COMMANDS = 20
"""One trial of this many goes through the real command."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small run of four records and its suite; tests copy it."""
    folder = tmp_path_factory.mktemp("records")
    make_run(folder, SUITE)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the small run."""
    shutil.copytree(made, tmp_path / "here")
    return tmp_path / "here" / "run"


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the content of all files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def figures(run: Path) -> str:
    """Return a run's report as JSON."""
    out = io.StringIO()
    writer("json")(report_of([run]), out)
    return out.getvalue()


def figures_of(records: Iterable[record.Record], run: Path) -> str:
    """Return the report that a run with these records would have, as JSON."""
    folder = run.parent / "other" / run.parent.name / run.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns(record.FILE))
    for each in records:
        record.append(folder, each)
    return figures(folder)


def assert_shown(run: Path, intact: tuple[record.Record, ...], least: int, *, by_command: bool) -> None:
    """Fail unless a report shows this many intact records at least and no other figures, and says if some lack."""
    shown, said = "", ""
    if by_command:
        done = cnnperf("report", run, "--format", "json")
        assert_ended(done, 0, 2)
        shown, said = done.stdout, done.stderr
        assert shown if done.returncode == 0 else said.startswith("cnnperf: ")
    else:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CnnperfWarning)
            try:
                shown = figures(run)
            except CnnperfError as error:
                said = str(error)
        said += "".join(str(each.message) for each in caught)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CnnperfWarning)
        try:
            left = record.read(run)
        except CnnperfError:
            left = ()
    assert set(map(record.line_of, left)) <= set(map(record.line_of, intact))
    assert len(left) >= least
    assert bool(left) == bool(shown)
    if shown:
        assert json.loads(shown) == json.loads(figures_of(left, run))
    assert len(left) == len(intact) or f"{record.FILE}: line " in said or "no record" in said, said


def faulty_content(
    trials: Trials, run: Path, change: Callable[[random.Random, bytes], bytes], lost: int | None
) -> None:
    """Try random changes of the records' bytes, which lose this many lines at most; None: those behind the end."""
    file, intact = run / record.FILE, record.read(run)
    whole, count = file.read_bytes(), iter(range(trials.count))

    def one(numbers: random.Random) -> None:
        content = change(numbers, whole)
        file.write_bytes(content)
        least = content.count(b"\n") if lost is None else len(intact) - lost
        assert_shown(run, intact, least, by_command=next(count) % COMMANDS == 0)
        assert file.read_bytes() == content

    trials.run(one)


def test_a_flipped_bit(run: Path, trials: Trials) -> None:
    """A bit flipped anywhere in the records changes no figure that is shown: the line is named and left out.

    Two lines are lost if their newline is hit.
    """

    def change(numbers: random.Random, whole: bytes) -> bytes:
        flipped = bytearray(whole)
        flipped[numbers.randrange(len(whole))] ^= 1 << numbers.randrange(8)
        return bytes(flipped)

    faulty_content(trials, run, change, lost=2)


def test_a_cut_at_any_byte(run: Path, trials: Trials) -> None:
    """Records that end at any byte are shown as far as they are whole, and the file stays as it is."""
    faulty_content(trials, run, lambda numbers, whole: whole[: numbers.randrange(1, len(whole))], lost=None)


def test_a_change_of_compressed_records(run: Path, trials: Trials) -> None:
    """Compressed records with a flipped bit or without their end are refused whole, or are the same records."""
    file, intact = run / record.FILE, record.read(run)
    packed = gzip.compress(file.read_bytes())
    file.unlink()

    def one(numbers: random.Random) -> None:
        changed, place = bytearray(packed), numbers.randrange(1, len(packed))
        if numbers.random() < 0.5:
            del changed[place:]
        else:
            changed[place] ^= 1 << numbers.randrange(8)
        (run / record.COMPRESSED_FILE).write_bytes(changed)
        try:
            found = record.read(run)
        except CnnperfError:
            return
        assert found == intact

    trials.run(one)


def test_bytes_in_place_of_a_line(run: Path, trials: Trials) -> None:
    """A line of random bytes, at any place, is named and left out."""

    def change(numbers: random.Random, whole: bytes) -> bytes:
        lines = whole.splitlines(keepends=True)
        lines[numbers.randrange(len(lines))] = numbers.randbytes(numbers.randrange(1, 5000)) + b"\n"
        return b"".join(lines)

    faulty_content(trials, run, change, lost=1)


def test_a_last_record_without_its_newline(run: Path) -> None:
    """A whole last record that lacks only its newline is shown without a warning, and no reader changes the folder."""
    file = run / record.FILE
    before = cnnperf("report", run, "--format", "json").stdout
    file.write_bytes(file.read_bytes().rstrip())
    content = snapshot(run)
    done = cnnperf("report", run, "--format", "json")
    assert_ended(done, 0)
    assert (done.stdout, done.stderr) == (before, "")
    assert snapshot(run) == content


def test_readers_of_a_torn_line(run: Path) -> None:
    """No command that reads a run with a torn last line changes its folder, through a link neither."""
    file = run / record.FILE
    file.write_bytes(file.read_bytes()[:-100])
    link = run.parent / "link"
    link.symlink_to(run)
    content = snapshot(run)
    for words in (("report", run), ("report", link), ("check", "--baseline", run, "--candidate", link)):
        done = cnnperf(*words)
        assert_ended(done, 0, 1, 3)
        assert "line 4: torn by a crash" in done.stderr
    assert snapshot(run) == content


def test_a_repair(run: Path) -> None:
    """A repair moves the damaged lines into a file of their own, unchanged, and reports the others."""
    file = run / record.FILE
    lines = file.read_bytes().splitlines(keepends=True)
    bad = lines[0].replace(b"lenet", b"lemet").replace(b"mlp", b"mlq"), b"\x1b[31m\xff\n"
    file.write_bytes(b"".join((bad[0], *lines[1:], bad[1])))
    done = cnnperf("report", run, "--repair")
    assert_ended(done, 0)
    assert "moved 2 damaged lines" in done.stderr
    assert file.read_bytes() == b"".join(lines[1:])
    assert (run / "damaged.jsonl").read_bytes() == b"".join(bad)
    again = cnnperf("report", run, "--repair")
    assert again.stdout == done.stdout
    assert "no line is damaged" in again.stderr


def test_a_resume_of_damaged_records(run: Path) -> None:
    """A resumed run repeats the task of a damaged record, keeps the damaged line, and mends a torn end."""
    file = run / record.FILE
    lines = file.read_bytes().splitlines(keepends=True)
    bad, torn = lines[0].replace(b"synthetic", b"synthesis"), lines[3][:200]
    file.write_bytes(b"".join((bad, *lines[1:3], torn)))
    done = cnnperf("run", run.parent / "small.toml", "--resume", run)
    assert_ended(done, 0)
    assert file.read_bytes().startswith(b"".join((bad, *lines[1:3])))
    assert (run / "damaged.jsonl").read_bytes() == torn + b"\n"
    with pytest.warns(CnnperfWarning, match="line 1: damaged"):
        assert len(record.read(run)) == 4


def test_records_that_are_all_damaged(run: Path) -> None:
    """Records of which none is left are one sentence."""
    (run / record.FILE).write_bytes(b"\x00" * 3000 + b"\n{]\n")
    assert_one_sentence(cnnperf("report", run), 2, "line 1", "no record is left")


def test_records_that_are_no_file(run: Path) -> None:
    """A pipe, a device or a folder in place of the records is refused at once, by readers and by a resumed run."""
    file = run / record.FILE
    file.unlink()
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), os.mkdir):
        make(file)
        assert_one_sentence(cnnperf("report", run, limit_s=60.0), 2, record.FILE)
        assert_one_sentence(cnnperf("run", run.parent / "small.toml", "--resume", run, limit_s=60.0), 2)
        file.rmdir() if file.is_dir() else file.unlink()


def test_records_that_are_a_link(run: Path) -> None:
    """A resumed run does not write through a link: it is refused before anything is measured."""
    file = run / record.FILE
    target = file.rename(run.parent / "elsewhere.jsonl")
    target.write_bytes(target.read_bytes().splitlines(keepends=True)[0])
    file.symlink_to(target)
    content = target.read_bytes()
    assert_one_sentence(cnnperf("run", run.parent / "small.toml", "--resume", run), 2, "link")
    assert_ended(cnnperf("report", run), 0)
    assert target.read_bytes() == content


def test_a_line_of_a_gigabyte(run: Path) -> None:
    """A line of 1 GB is named and left out, in less than 1 GiB of memory."""
    file = run / record.FILE
    lines = file.read_bytes()
    with open(file, "r+b") as out:
        out.seek(0, os.SEEK_END)
        out.truncate(out.tell() + 10**9)
        out.seek(0, os.SEEK_END)
        out.write(b"\n" + lines.splitlines(keepends=True)[0])
    done = cnnperf("report", run)
    assert_ended(done, 0)
    assert "line 5: not a record: longer than 64 MiB" in done.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2**20


def test_deep_nesting(run: Path) -> None:
    """A record nested deeper than Python's recursion, or than any suite, is named and left out."""
    file = run / record.FILE
    [first, *_] = file.read_bytes().splitlines()
    for depth in (60, 900, 100_000):
        deep = b'{"a":' * depth + b"1" + b"}" * depth
        content = first.replace(b'"settings":{', b'"settings":{"deep":' + deep + b",", 1)
        line = record.sealed(content[: content.rindex(b',"checksum"')] + b"}")
        file.write_bytes(first + b"\n" + line)
        done = cnnperf("report", run, "--format", "json")
        assert_ended(done, 0)
        assert "line 2: not a record" in done.stderr


def test_figures_that_contradict_themselves(run: Path, trials: Trials) -> None:
    """A record with a figure that cannot be, under a right checksum, is left out, not computed with."""
    file, intact = run / record.FILE, record.read(run)
    [line] = [line for line in file.read_bytes().splitlines() if b'"status":"ok"' in line and b'"lenet"' in line]
    rest = [each for each in intact if record.line_of(each).strip() != line]
    content = line[: line.rindex(b',"checksum"')] + b"}"

    def one(numbers: random.Random) -> None:
        document = json.loads(content)
        measured = numbers.choice([m for m in document["measurements"] if m["unit"] != "1" and m["better"]])
        fault = numbers.choice(["empty", "negative", "duration", "n"])
        if fault == "empty":
            measured["values"] = []
        elif fault == "negative":
            measured["values"][numbers.randrange(len(measured["values"]))] = -numbers.random()
        elif fault == "duration":
            document["duration_s"] = -1.0
        else:
            measured["remarks"]["n"] = numbers.choice([0, -5, 0.5, "many"])
        file.write_bytes(b"".join(map(record.line_of, rest)) + record.sealed(json.dumps(document).encode()))
        with pytest.warns(CnnperfWarning, match="line 4: not a record"):
            assert figures(run) == figures_of(rest, run)

    trials.run(one)
