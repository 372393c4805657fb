"""What is shipped: the wheel carries the suites and runs them on its own, and the README tells what was measured."""

from __future__ import annotations

import csv
import os
import re
import sys
import venv
import zipfile
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from processes import completed

from cnnperf._columns import COLUMNS
from cnnperf.reports._readable import cell

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the backend that pyproject.toml names."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    completed(*command, check=True)
    [file] = folder.glob("cnnperf-*.whl")
    return file


def test_the_wheel_carries_the_suites_and_no_tests(wheel: Path) -> None:
    """Every suite of the checkout is in it, and nothing that is not the package."""
    names = zipfile.ZipFile(wheel).namelist()
    for suite in (ROOT / "suites").glob("*.toml"):
        assert f"cnnperf/suites/{suite.name}" in names
    assert "cnnperf/py.typed" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"cnnperf"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_installed_wheel_runs_smoke_in_a_fresh_folder(wheel: Path, tmp_path: Path) -> None:
    """`pip install`, then `cnnperf run smoke` with no checkout at hand."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    site = next(environment.glob("lib/python*/site-packages"))
    # The dependencies, 6 GB of them, are those that the tests run with; cnnperf itself is only the wheel.
    [here] = {path for path in map(Path, sys.path) if (path / "torch").is_dir()}
    (site / "dependencies.pth").write_text(f"{here}\n")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel]
    completed(*install, env=os.environ | {"PIP_NO_INDEX": "1"}, check=True)
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    run = [environment / "bin" / "cnnperf", "run", "smoke"]
    done = completed(*run, limit_s=500, cwd=tmp_path, env=variables)
    assert done.returncode == 0, done.stderr
    assert "lenet" in done.stdout
    [leaderboard] = tmp_path.glob("results/smoke/*/leaderboard.csv")
    assert leaderboard.stat().st_size > 0
    where = completed(python, "-c", "import cnnperf; print(cnnperf.__file__)", cwd=tmp_path, env=variables)
    assert str(site) in where.stdout


def measured(run: str) -> dict[str, dict[str, str]]:
    """Return the rows of a reference run's leaderboard by model."""
    with open(ROOT / "results" / "reference" / run / "leaderboard.csv", encoding="utf-8") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def half_width(row: dict[str, str]) -> str:
    """Word half the interval of a test accuracy, in points."""
    return f"±{50 * (float(row['test_accuracy_high']) - float(row['test_accuracy_low'])):.1f}"


def reference(name: str) -> list[dict[str, str]]:
    """Return the rows of a table of a reference run."""
    with open(ROOT / "results" / "reference" / name, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_readme_tells_of_the_ideas_what_was_measured() -> None:
    """Each row of its table has the accuracy, time and images/s that the reference run has for that network."""
    options = {"batch norm": "batch_norm=true", "no batch norm": "batch_norm=false", "no shortcut": "shortcut=false"}

    def model(words: str) -> str:
        name, depth, idea = re.fullmatch(r"(\w+)(?: (\d+))?(?:, (.+))?", words).groups()  # type: ignore[union-attr]
        chosen = [*([f"depth={depth}"] if depth else []), *([options[idea]] if idea else [])]
        return f"{name}[{','.join(chosen)}]" if chosen else name

    def told(row: dict[str, str]) -> list[str]:
        time, per_s = row["time_to_target_s"], float(row["images_per_s"])
        return [
            f"{100 * float(row['test_accuracy']):.1f} % {half_width(row)}",
            f"≤ {float(time):.{1 if float(time) < 10 else 0}f} s" if time else "–",
            f"{per_s / 1000:.3g} k" if per_s >= 1000 else f"{per_s:.0f}",
        ]

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| ([^|]+) \| ([^|]+ % ±[^|]+) \| ([^|]+) \| ([^|]+) \|", readme, flags=re.MULTILINE)
    shown = {model(network): values for network, *values in table}
    assert shown == {name: told(row) for name, row in measured("ideas").items()}


@pytest.mark.parametrize("run", ["cifar", "mnist"])
def test_readme_prints_the_leaderboards_that_were_measured(run: str) -> None:
    """Each row of the two printed tables, in order, is that of the reference run as the console writes it."""
    columns = {column.name: column for column in COLUMNS}
    names = {
        "cifar": ("params", "test_accuracy", "test_accuracy_flip", "images_per_s"),
        "mnist": ("params", "test_accuracy", "test_set", "images_per_s"),
    }[run]
    units = {
        "params": "count",
        "test_accuracy_flip": "fraction",
        "test_accuracy": "fraction",
        "images_per_s": "images/s",
    }

    def value(text: str) -> str | int | float | None:
        try:
            return int(text)
        except ValueError:
            return float(text) if re.fullmatch(r"\d+(\.\d+)?(e-?\d+)?", text) else text or None

    def told(row: dict[str, str]) -> list[str]:
        values = {name: value(text) for name, text in row.items()}
        cells = [cell(replace(columns[name], unit=units.get(name)), values) for name in names]
        return [row["rank"], row["dataset"], row["model"], row["status"], *cells]

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    dataset = {"cifar": "cifar10"}.get(run, run)
    printed = re.findall(rf"^\d+ +{dataset} .*$", readme, flags=re.MULTILINE)
    shown = [re.split(r" {2,}", line.replace(" *", "").strip()) for line in printed]
    assert shown == [told(row) for row in measured(run).values()]


def test_readme_tells_how_much_faster_each_engine_was() -> None:
    """Each row of its table, in order, is that of the reference run; all passed parity, with all kernels mapped."""
    rows = reference("engines/engines.csv")
    assert {row["parity"] for row in rows} == {row["status"] for row in rows} == {"ok"}
    assert {float(row["mapped_share"]) for row in rows if row["engine"] != "torch"} == {1.0}
    assert max(float(row["accuracy_drop"]) for row in rows) == pytest.approx(0.009)

    def told(row: dict[str, str]) -> str:
        speedup, low, high = (
            f"{float(row[name]):.{2 if float(row[name]) < 10 else 1}f}" if row[name] else ""
            for name in ("speedup", "speedup_low", "speedup_high")
        )
        doubt = " †" if row.get("speedup_flags") else ""
        return f"{speedup} [{low}–{high}]{doubt}" if low else f"{speedup} separate"

    of_model: dict[str, list[str]] = {}
    for row in rows:
        cells = of_model.setdefault(row["model"], [])
        if row["engine"] != "torch":
            cells.append(told(row))
        elif row["batch_size"] == "1":
            cells.append(latency(float(row["latency_s"])))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| (\w+) \| ([\d.]+ [µm]s) \| (.+) \|$", readme, flags=re.MULTILINE)
    assert [(model, [first, *rest.split(" | ")]) for model, first, rest in shown] == list(of_model.items())


def latency(seconds: float) -> str:
    """Write a time as the table does."""
    return f"{1e6 * seconds:.0f} µs" if seconds < 1e-3 else f"{1e3 * seconds:.{2 if seconds < 1e-2 else 1}f} ms"


def test_the_workflow_leaves_time_for_an_environment() -> None:
    """The limits of the step and of the job stand above the minutes that are measured, with what comes before them."""
    workflow = (ROOT / ".github" / "workflows" / "regression.yml").read_text(encoding="utf-8")
    job, step = map(int, re.findall(r"timeout-minutes: (\d+)", workflow))
    [minutes] = map(int, re.findall(r"--minutes ([1-9]\d*)", workflow))
    assert minutes + 5 < step < job
    assert minutes <= 10


@pytest.fixture(scope="module")
def tutorial() -> str:
    """Return what the README says of the tutorial."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return readme.partition("## What the tutorial got wrong\n")[2].partition("\n## A gate in your project\n")[0]


def percent(fraction: float | str) -> str:
    """Word a share as the README does."""
    return f"{100 * float(fraction):.1f} %"


def test_readme_tells_how_the_tutorial_read_its_network(tutorial: str) -> None:
    """The four readings of every epoch and their means, and what each mistake makes of the gap between them."""
    names = ("train_accuracy_after_step", "train_accuracy", "test_accuracy", "test_accuracy_raw", "train_loss")
    epochs = [row for row in reference("tutorial/curves.csv") if row["model"].startswith("trashnet")]
    readings = [[float(row[name]) for name in names] for row in epochs]
    assert [float(row["epoch"]) for row in epochs] == list(range(1, 11))
    means = [fmean(column) for column in zip(*readings, strict=True)]
    rows = {str(number): reading for number, reading in enumerate(readings, 1)} | {"mean": means}
    for label, (*accuracies, loss) in rows.items():
        assert f"| {label} | {' | '.join(map(percent, accuracies))} | {loss:.3f} |\n" in tutorial
    for better, worse in ((2, 3), (0, 1), (1, 2)):
        last, mean = (100 * (row[better] - row[worse]) for row in (readings[-1], means))
        assert f"| {last:.1f} | {mean:.1f} | " in tutorial
    gaps = [f"{100 * (row[0] - row[3]):.1f}" for row in (readings[-1], means)]
    assert f"Of the {gaps[0]} points between them after epoch 10 (on average over the epochs {gaps[1]})" in tutorial
    assert f"{percent(readings[-1][2])} after ten epochs" in tutorial


def test_readme_tells_lenet_s_curves_beside_the_published_one(tutorial: str) -> None:
    """Sixteen epochs of three seeds; each ends where the README says, and so does its loss."""
    points = [row for row in reference("tutorial/curves.csv") if row["model"].startswith("lenet")]
    losses = []
    for seed in ("0", "1", "2"):
        curve = [row for row in points if row["seed"] == seed]
        assert len(curve) == 16
        shown = " ".join(f"{float(row['test_accuracy']):.4f}"[1:] for row in curve)
        assert f"seed {seed}     {shown}\n" in tutorial
        losses.append(f"{float(curve[-1]['train_loss']):.4f}")
    assert f"over the last epoch, {', '.join(losses)}." in tutorial


def test_the_tutorial_s_pictures_show_what_was_measured(tutorial: str) -> None:
    """Every point's value, as its label tells the ear, is one of the CSV, and none is left out."""
    rows = reference("tutorial/curves.csv")
    losses = {f"{float(row['train_loss']):.6g}" for row in rows if row["model"].startswith("lenet")}
    names = ("train_accuracy", "train_accuracy_after_step", "test_accuracy", "test_accuracy_raw")
    trashnet = [row for row in rows if row["model"].startswith("trashnet")]
    accuracies = {f"{name} {percent(row[name])}" for name in names for row in trashnet}
    pictures = {name: (ROOT / f"results/reference/tutorial/{name}.svg").read_text() for name in ("lenet", "trashnet")}
    assert all(f"](results/reference/tutorial/{name}.svg)" in tutorial for name in pictures)
    drawn = re.findall(r'"samples: \d+; train loss: ([\d.e-]+);', pictures["lenet"])
    assert {f"{float(loss):.6g}" for loss in drawn} == losses
    points = re.findall(r'"epoch: \d+; accuracy: ([\d.]+)%; reading: (\w+);', pictures["trashnet"])
    assert {f"{name} {float(value):.1f} %" for value, name in points} == accuracies


def test_readme_holds_the_tutorial_s_sentences_against_the_ideas(tutorial: str) -> None:
    """Each row of a network says its accuracy and its time to the target as they were measured."""
    measured = {row["model"]: row for row in reference("ideas/leaderboard.csv")}
    shown = re.findall(r"\| `(.+?)` \| ([\d.]+ %) \| ([\d.]+ s|–) \|", tutorial)
    assert len(shown) == 11
    for model, accuracy, time in shown:
        seconds = measured[model]["time_to_target_s"]
        assert (accuracy, time) == (
            percent(measured[model]["test_accuracy"]),
            f"{float(seconds):.2g} s" if seconds else "–",
        )


def test_readme_says_on_which_machine_the_tutorial_was_trained(tutorial: str) -> None:
    """Processor, threads and torch of every row of the reference run."""
    for row in reference("tutorial/leaderboard.csv"):
        assert f"{row['cpu']}, {row['threads']} threads, torch {row['torch']}." in tutorial
