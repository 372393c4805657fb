"""`cnnperf record`: a record is made, refused and verified by the command, with real trainings of a few steps."""

from __future__ import annotations

import hashlib
import json
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from in_process import called

from cnnperf.accuracy_record.folder import AccuracyRecord, read_record, write_record
from cnnperf.cli.screen import Screen
from cnnperf.record import Record

SUITE = """
datasets = [{ name = "synthetic", shape = [1, 28, 28], train = 600, test = 1000 }, "mnist"]
models = ["lenet", "mlp"]
threads = 1
train = { steps = 2, validation_images = 100, batch_size = 50 }
"""
CELL = "synthetic*/lenet/cpu"
Made = Callable[..., tuple[int, str, str]]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Return the file of a suite of four cells."""
    file = tmp_path / "small.toml"
    file.write_text(SUITE)
    return file


@pytest.fixture
def command(suite: Path, tmp_path: Path) -> Made:
    """Return a function that calls `cnnperf record SUITE`, in a folder of its own."""

    def call(*words: object) -> tuple[int, str, str]:
        done = called("record", *(words or (suite,)), cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.fixture
def made(command: Made, suite: Path, tmp_path: Path) -> Path:
    """Return the folder of a record of two seeds."""
    code, _, err = command(suite, "--cell", CELL, "--seeds", "2", "--target", "0.001")
    assert code == 0, err
    [folder] = tmp_path.glob("results/records/*/*")
    return folder


def test_a_record_is_made_and_verified(command: Made, suite: Path, tmp_path: Path) -> None:
    """A record of two seeds has a folder that can be reported and verified, and a page; damage is refused."""
    words = ("--cell", CELL, "--seeds", "2", "--target", "0.001")
    code, out, err = command(suite, *words)
    assert code == 0, err
    assert "2 seeds" in out
    assert "above 0.1 %: holds (p = " in out
    [folder] = tmp_path.glob("results/records/synthetic-*-2steps-cpu/*-lenet")
    assert folder.relative_to(tmp_path).as_posix() in err
    assert "[lenet](" in (tmp_path / "results/records/README.md").read_text()
    [run] = tmp_path.glob("results/small/*")
    assert not (run / "leaderboard.csv").exists()
    stored = json.loads((folder / "record.json").read_text())
    assert stored["test_images"] == stored["task"]["settings"]["test_images"] == 1000
    assert "lenet" in called("report", folder).stdout

    # The same seeds give the same weights: the budget is in steps.
    code, out, err = command("verify", folder, "--seeds", "2", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["here"]["accuracies"] == stored["accuracies"]
    assert (found["here"]["difference"], found["here"]["changed_sources"]) == (0, [])
    assert found["test"]["outcome"] == "holds"

    code, _, err = command("verify", folder, "--seeds", "3")
    assert code == 2
    assert err.startswith("cnnperf: --seeds: got 3; the record in ")

    with (folder / "source/cnnperf/training/loop.py").open("a") as source:
        source.write("# changed")
    code, _, err = command("verify", folder)
    assert code == 2
    assert "loop.py: absent, or changed since the record was made" in err


def test_a_claim_that_does_not_hold_writes_nothing(command: Made, suite: Path, tmp_path: Path) -> None:
    """A target that is missed has exit status 1, and no folder of records; the run can be resumed with another."""
    code, out, err = command(suite, "--cell", CELL, "--seeds", "2", "--target", "0.999", "--json")
    assert code == 1, err
    assert json.loads(out)["test"]["outcome"] == "fails"
    assert json.loads(out)["folder"] is None
    assert not (tmp_path / "results/records").exists()
    [run] = tmp_path.glob("results/small/*")
    lines = (run / "records.jsonl").read_bytes()
    code, out, err = command(suite, "--cell", CELL, "--seeds", "2", "--target", "0.99", "--resume", run)
    assert code == 1, err
    assert "above 99 %: does not hold" in out
    assert (run / "records.jsonl").read_bytes() == lines


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--cell", "*/vgg/*"), "--cell: nothing matches '*/vgg/*'; give one of: synthetic[shape="),
        (("--cell", "lenet"), "--cell: 2 cells match 'lenet'; give one of: synthetic["),
        (("--cell", CELL, "--seeds", "1"), "--seeds: got 1; give 2 or more"),
        (("--cell", CELL, "--target", "85"), "--target: got 85; give a share of the test images above 0 and below 1"),
        (("--cell", CELL, "--target", "nan"), "--target: got nan; give a share"),
        (("--cell", CELL, "--target", "0.5", "--name", "../x"), "--name: got '../x'; give letters"),
        (("--cell", CELL, "--target", "0.5", "--threads", "0"), "--threads: got 0; give 1 or more"),
        (("--cell", CELL, "--target", "0.5", "--resume", "nothing"), "--resume: nothing contains no records.jsonl"),
        (("--cell", CELL, "--target", "0.5", "--into", "small.toml"), "--into: small.toml is not a folder; give"),
        (("--cell", CELL), "no record of synthetic-shape=1"),
    ],
)
def test_a_wrong_request_is_refused(
    words: tuple[str, ...], sentence: str, command: Made, suite: Path, tmp_path: Path
) -> None:
    """A wrong option has exit status 2 and one sentence that names it, and nothing is measured."""
    code, out, err = command(suite, *words)
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith(f"cnnperf: {sentence}")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("steps = 2", "epochs = 1, test_curve = true"), "test_curve tests during the training"),
        (("steps = 2", "steps = 2, test_images = 50"), "test_images is 50, and a record counts all 1,000 test images"),
        (("\ntrain =", '\nstages = ["profile"]\nprofile ='), "no stage of the suite trains"),
    ],
)
def test_a_suite_that_makes_no_record_is_refused(
    change: tuple[str, str], sentence: str, command: Made, suite: Path, tmp_path: Path
) -> None:
    """A suite that tests early, on fewer images, or trains nothing has exit status 2, and nothing is measured."""
    suite.write_text(SUITE.replace(*change))
    code, out, err = command(suite, "--cell", CELL, "--target", "0.5", "--seeds", "2")
    assert (code, out) == (2, "")
    assert sentence in err
    assert not (tmp_path / "results").exists()


def test_a_network_of_another_package_makes_no_record(command: Made, suite: Path) -> None:
    """A network of another package is refused, because its source could not be stored."""
    suite.write_text(SUITE.replace('"lenet"', '"torchvision.models:resnet18"'))
    code, _, err = command(suite, "--cell", "synthetic*/*resnet18/cpu", "--target", "0.5")
    assert code == 2
    assert "'torchvision.models:resnet18' is code of another package" in err


@pytest.mark.usefixtures("made")
def test_the_standing_record_is_to_be_beaten(command: Made, suite: Path, tmp_path: Path) -> None:
    """Without a target the mean must exceed that of the standing record, which the same seeds do not."""
    code, out, err = command("make", suite, "--cell", CELL, "--seeds", "2")
    assert code == 3, err
    assert "lenet (" in out
    assert "is undecided (p = 0.5, not below 0.01)" in out
    assert len(list(tmp_path.glob("results/records/*/*"))) == 1


def test_an_interrupted_attempt_is_resumed(
    command: Made, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after the first seed prints the command that trains only the others, and the record is written then."""
    with monkeypatch.context() as patch:
        patch.setattr(Screen, "finished", lambda *_: signal.raise_signal(signal.SIGINT))
        code, _, err = command(suite, "--cell", CELL, "--seeds", "2", "--target", "0.001")
    assert code == 130
    [line] = [line for line in err.splitlines() if line.startswith("interrupted; resume with: ")]
    [run] = tmp_path.glob("results/small/*")
    [first] = (run / "records.jsonl").read_bytes().splitlines()
    words = shlex.split(line.partition(": ")[2])
    assert words[-2:] == ["--resume", str(run.relative_to(tmp_path))]
    code, out, err = command(*words[2:])
    assert code == 0, err
    assert "2 seeds" in out
    assert (run / "records.jsonl").read_bytes().splitlines()[0] == first
    [summary] = tmp_path.glob("results/records/*/*/record.json")
    assert json.loads(summary.read_text())["seeds"] == [0, 1]


def test_a_record_that_cannot_be_written_is_written_later(command: Made, suite: Path, tmp_path: Path) -> None:
    """Where the folder cannot be made, the seeds are kept, and the resumed run writes the record without training."""
    words = ("--cell", CELL, "--seeds", "2", "--target", "0.001")
    obstacle = tmp_path / "results/records/synthetic-shape=1-28-28-train=600-test=1000-2steps-cpu"
    obstacle.parent.mkdir(parents=True)
    obstacle.touch()
    code, out, err = command(suite, *words)
    assert (code, out) == (1, "")
    [run] = tmp_path.glob("results/small/*")
    *_, last = err.splitlines()
    assert last.startswith("cnnperf: results/records: cannot be written (Not a directory); correct that, then resume")
    assert last.endswith(f"--resume ({run.relative_to(tmp_path)})")
    obstacle.unlink()
    lines = (run / "records.jsonl").read_bytes()
    code, _, err = command(suite, *words, "--resume", run)
    assert code == 0, err
    assert (run / "records.jsonl").read_bytes() == lines
    assert len(list(obstacle.glob("*-lenet"))) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("verify", "nothing"), "nothing/record.json: cannot be read (No such file or directory); give the folder"),
        (("verify", "."), "record.json: cannot be read"),
    ],
)
def test_a_folder_without_a_record_is_refused(words: tuple[str, ...], sentence: str, command: Made) -> None:
    """A folder that is absent or no record has exit status 2 and one sentence."""
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert sentence in line


def test_help_lists_both_commands() -> None:
    """The help of the group names `make` and `verify`, and without arguments it is printed too."""
    done = called("record", "--help")
    assert done.returncode == 0
    assert {"make", "verify"} <= set(done.stdout.replace("│", " ").split())


def test_other_source_is_a_warning(command: Made, made: Path) -> None:
    """A record of other source than that of this version is verified with a warning that names the file."""
    source, summary = made / "source/cnnperf/training/loop.py", made / "record.json"
    source.write_text("# another version")
    document = json.loads(summary.read_text())
    document["sources"]["cnnperf/training/loop.py"] = hashlib.sha256(source.read_bytes()).hexdigest()
    summary.write_text(json.dumps(document))
    code, out, err = command("verify", made, "--json")
    assert code == 0, err
    assert json.loads(out)["here"]["changed_sources"] == ["cnnperf/training/loop.py"]
    assert "cnnperf: warning: the source differs from the record's (cnnperf/training/loop.py)" in err


def test_other_images_are_refused(command: Made, made: Path, suite: Path, tmp_path: Path) -> None:
    """A record of images that this machine has otherwise is not verified."""
    record, records = read_record(made)

    def of_others(each: Record) -> Record:
        data = each.task.data
        assert data
        task = each.task.model_copy(update={"data": data.model_copy(update={"sha256": "0" * 64})})
        return each.model_copy(update={"task": task, "key": task.key})

    others = [of_others(each) for each in records]
    again = AccuracyRecord.of(others, record.claim, record.name, record.sources)
    folder = tmp_path / "others"
    folder.mkdir()
    write_record(folder, again, suite, others)
    code, out, err = command("verify", folder)
    assert (code, out) == (2, "")
    assert "synthetic has other images than the record's" in err
    assert "give the folder of those with --data" in err
