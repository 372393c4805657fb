"""One file adds a choice to a room: a copy of the package with made-up choices lists and runs them everywhere."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from forked import called_in
from processes import completed

import cnnperf
from cnnperf import registry
from cnnperf.record import Record, single
from cnnperf.regression.check import compare_records
from cnnperf.tables.curves import training_curves
from cnnperf.tables.leaderboard import leaderboard

PACKAGE = Path(cnnperf.__file__).parent

ENGINE = """
import torch

from cnnperf.engines import EngineSource
from cnnperf.engines.torch import Eager, network

PACKAGES = ("torch", "typer")


class Halved(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.model(half) for half in images.tensor_split(2) if len(half)])


def load(source: EngineSource, *, halves: int = 2) -> Eager:
    model = network(source)
    return Eager(model, Halved(model), source, runs_modules=False)
"""
FORMAT = """
from pathlib import Path

SUFFIX = ".names"
IN_RUN_FOLDER = True


def write(report, out):
    if isinstance(out, Path):
        for table in report.tables:
            (out / f"{table.name}{SUFFIX}").write_text(table.name)
    else:
        out.write(" ".join(table.name for table in report.tables))


def write_verdicts(comparison, out):
    out.write(f"so many: {len(comparison.verdicts)}")
"""
STAGE = """
from cnnperf.bench import Bench, Settings
from cnnperf.record import single


class Counting(Settings):
    images: int = 3


def measure(bench: Bench, settings: Counting):
    yield single("imagined.images", "count", settings.images)
"""
SUITE = """
datasets = [{ name = "synthetic", shape = [1, 28, 28], train = 200, test = 60 }]
models = ["lenet"]
threads = 1
stages = ["imagined", "infer"]
[imagined]
images = 5
[infer]
engines = ["torch", { name = "imagined", halves = 2 }]
batch_sizes = [4]
samples = 11
seconds = 0.0
pairs = 0
test_images = 50
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the package and add one file to each of three rooms; all other files stay unchanged."""
    folder = tmp_path_factory.mktemp("plugged")
    shutil.copytree(PACKAGE, folder / "cnnperf", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PACKAGE.parent / "suites", folder / "suites")
    for room, text in (("engines", ENGINE), ("reports", FORMAT), ("stages", STAGE)):
        (folder / "cnnperf" / room / "imagined.py").write_text(text)
    return folder


def called(package: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run the command line of the copy."""
    return called_in(package, *words, COLUMNS="200")


@pytest.fixture(scope="module")
def run(package: Path) -> Path:
    """Run a suite with the made-up stage and engine, and return the run folder."""
    (package / "imagined.toml").write_text(SUITE)
    folder = package / "run"
    done = called(package, "run", "imagined.toml", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("command", ["run", "profile", "infer", "selftest"])
def test_the_help_lists_every_device(package: Path, command: str) -> None:
    """The help of each command lists a device whose file was added to the room."""
    device = package / "cnnperf" / "devices" / "imagined.py"
    device.touch()
    try:
        assert "imagined" in called(package, command, "--help").stdout
    finally:
        device.unlink()


@pytest.mark.parametrize("room", ["engines", "reports", "stages"])
def test_each_is_listed(package: Path, room: str) -> None:
    """Each made-up choice is listed by the stem of its file."""
    environment = os.environ | {"PYTHONPATH": str(package)}
    listed = completed(sys.executable, "-m", "cnnperf", "list", room, cwd=package, env=environment)
    assert "imagined" in listed.stdout.split()


def test_a_stage_and_an_engine_run_and_stand_in_the_tables(run: Path) -> None:
    """A made-up stage and engine run with the suite's settings; the engine's parity and speed-up are in the table."""
    tasks = pd.read_csv(run / "tasks.csv")
    assert list(tasks.stage) == ["imagined", "infer", "infer"]
    assert set(tasks.status) == {"ok"}
    [counted] = [m for record in cnnperf.read(run) for m in record.find("imagined.images")]
    assert counted.values == (5,)
    engines = pd.read_csv(run / "engines.csv").set_index("engine")
    assert list(engines.index) == ["torch", "imagined[halves=2]"]
    assert engines.parity["imagined[halves=2]"] == "ok"
    assert engines.speedup["imagined[halves=2]"] > 0, "compared with the baseline"
    records = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    assert "typer" in records[0]["machine"]["packages"], "what the engine imports"


def test_a_format_is_a_choice_of_every_command(package: Path, run: Path) -> None:
    """`report` and `check` offer a made-up format, and a run writes its files, since the format asks for it."""
    assert (run / "engines.names").read_text() == "engines"
    assert "engines" in called(package, "report", run, "--format", "imagined").stdout.split()
    assert called(package, "report", run, "--format", "imagined", "--out", package / "folder").returncode == 0
    assert (package / "folder" / "tasks.names").is_file()
    shown = called(package, "check", "--baseline", run, "--candidate", run, "--format", "imagined").stdout
    assert shown.startswith("so many: ")
    assert "html, imagined, json" in called(package, "report", "--help").stdout
    assert "github, imagined, json" in called(package, "check", "--help").stdout


def test_a_wrong_setting_of_each_is_told(package: Path) -> None:
    """A misspelt setting of a made-up stage or engine is refused, and the message names the nearest setting."""
    for right, wrong, words in (
        ("images = 5", "imges = 5", "unknown setting 'imges'; did you mean 'images'"),
        ("halves = 2", "halve = 2", "imagined: unknown option 'halve'; did you mean 'halves'"),
    ):
        (package / "wrong.toml").write_text(SUITE.replace(right, wrong))
        done = called(package, "run", "wrong.toml", "--dry-run")
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr


NETWORK = """
datasets = [{ name = "synthetic", shape = [1, 28, 28], train = 200, test = 60 }]
models = [{ name = "mynet", width = 8 }]
threads = 1
[train]
steps = 2
batch_size = 50
validation_images = 50
"""


def test_the_model_of_the_readme_trains_as_it_is_printed(package: Path) -> None:
    """The model in README.md, saved under its given path, is listed, checks its options and trains by its recipe."""
    readme = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    [(place, text)] = re.findall(r"```python\n# (cnnperf/models/\S+)\n(.*?)```", readme, re.DOTALL)
    (package / place).write_text(text)
    assert Path(place).stem in called(package, "list", "models").stdout.split()
    (package / "network.toml").write_text(NETWORK)
    done = called(package, "run", "network.toml", "--out", package / "network")
    assert done.returncode == 0, done.stderr
    [record] = cnnperf.read(package / "network")
    assert (record.task.settings["optimizer"], record.task.settings["lr"]) == ("nesterov", 0.1)
    [size] = record.find("train.parameters")
    assert size.values == (8 * (9 + 1) + 10 * (8 + 1),)
    (package / "network.toml").write_text(NETWORK.replace("width", "widht"))
    done = called(package, "run", "network.toml", "--dry-run")
    assert (done.returncode, "mynet: unknown option 'widht'; did you mean 'width'" in done.stderr) == (2, True)


def test_a_stage_that_writes_weights_is_a_training(
    trained: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that writes weights is a training whatever its name: curves, rows, verdicts, notes are like `train`."""
    names, declared = registry.names, registry.declared
    monkeypatch.setattr(registry, "names", lambda room: (*names(room), *(["tuning"] if room == "stages" else [])))
    leaving = {"LEAVES": ("weights",)}
    monkeypatch.setattr(registry, "declared", lambda room, name: leaving if name == "tuning" else declared(room, name))

    def records(stage: str, accuracy: float, n: int = 1000) -> list[Record]:
        place = {"step": 1, "samples": 128, "seconds": 0.5, "epoch": 0.01, "n": 100}
        point = single("train.validation_accuracy", "fraction", 0.5, "higher", place)
        steps = single("train.steps", "count", 10)
        made = [trained(accuracy=accuracy + i / 500, repeat=i, n=n, measured=[point, steps]) for i in range(4)]
        return [r.model_copy(update={"task": r.task.model_copy(update={"stage": stage})}) for r in made]

    assert len(training_curves({"run": records("tuning", 0.5)}).rows) == 4
    train, tuning = (compare_records(records(stage, 0.9), records(stage, 0.2)) for stage in ("train", "tuning"))
    assert [v.outcome for v in tuning.verdicts if v.metric == "train.test_accuracy"] == ["worse"]
    assert tuning.verdicts == train.verdicts
    (row,) = leaderboard({"run": records("tuning", 0.5)}).rows
    assert (row["rank"], row["test_accuracy"], row["test_images"]) == (1, pytest.approx(0.503), 1000)
    notes = compare_records(records("tuning", 0.9), records("tuning", 0.9, n=2000)).notes
    assert any("tuning (1,000 to 2,000)" in note for note in notes)


OWN_ROOM = {"engines": ("onnxruntime_int8", "torch_compile"), "reports": ("console", "csv", "html", "markdown")}
"""Names that mean nothing else; `torch` and `onnxruntime` are packages too, `json` a mode of pydantic's."""


@pytest.mark.parametrize("room", OWN_ROOM)
def test_no_choice_is_named_outside_its_room(room: str) -> None:
    """No file outside a room contains the name of one of its choices, so that a new choice needs no other file."""
    for file in PACKAGE.rglob("*.py"):
        if file.parent != PACKAGE / room:
            words = {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
            assert not words & set(OWN_ROOM[room]), file


@pytest.mark.parametrize("room", registry.VERBS)
def test_no_choice_is_imported_from_outside_its_room(room: str) -> None:
    """No file outside a room imports one of its choices, also late or for types: the registry finds them by name."""
    choices = {f"cnnperf.{room}.{name}" for name in registry.names(room)}
    found = {}
    for file in PACKAGE.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        imported = {each.name for node in nodes if isinstance(node, ast.Import) for each in node.names}
        origins = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        imported |= {f"{node.module}" for node in origins}
        imported |= {f"{node.module}.{each.name}" for node in origins for each in node.names}
        if file.parent != PACKAGE / room and imported & choices:
            found[str(file.relative_to(PACKAGE))] = imported & choices
    assert found == {}
