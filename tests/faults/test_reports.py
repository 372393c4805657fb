"""Faults in what a stranger's run folder makes a report do."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty import assert_ended, cnnperf, make_run

from cnnperf import record

HOSTILE = "=\x1b[31m\r\x9b2J\u202eevil＝"
"""A formula, colours, the start of the line, C1 codes and a mark of direction."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small run; tests copy it."""
    folder = tmp_path_factory.mktemp("reports")
    make_run(folder)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the small run."""
    shutil.copytree(made, tmp_path / "here")
    return tmp_path / "here" / "run"


def rewrite(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the only record of a run, under a right checksum."""
    file = run / record.FILE
    document = json.loads(file.read_bytes())
    del document["checksum"]
    change(document)
    file.write_bytes(record.sealed(json.dumps(document, separators=(",", ":")).encode()))


def outside(run: Path) -> dict[str, bytes]:
    """Return all files beside a run."""
    files = (path for path in run.parent.rglob("*") if path.is_file() and not path.is_relative_to(run))
    return {str(path): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", ["../../../victim", "/{parent}/victim", "..", "a/../../../victim"])
def test_a_dataset_that_is_a_path(run: Path, name: str) -> None:
    """TensorBoard's files stay in their folder, whatever the name of a dataset, and no other file is deleted."""
    victim = run.parent / "victim" / "mlp" / "cpu" / "train-0"
    victim.mkdir(parents=True)
    (victim / "events.out.tfevents.1").write_text("precious")
    path = name.format(parent=run.parent)

    def change(document: dict[str, Any]) -> None:
        document["task"]["cell"]["dataset"] = path

    rewrite(run, change)
    before = outside(run)
    assert_ended(cnnperf("tensorboard", run), 0)
    assert outside(run) == before
    assert list((run / "tensorboard").rglob("events.*"))


@pytest.mark.parametrize("path", ["../secret.txt", "{parent}/secret.txt", "link"])
@pytest.mark.parametrize("kind", ["trace_1", "examples"])
def test_an_artifact_outside_its_run(run: Path, path: str, kind: str) -> None:
    """An artifact whose path leads out of the run folder is left out with a warning, and not copied."""
    (run.parent / "secret.txt").write_text("secret")
    (run / "link").symlink_to(run.parent / "secret.txt")

    def change(document: dict[str, Any]) -> None:
        document["artifacts"] = {kind: {"path": path.format(parent=run.parent), "sha256": None}}

    rewrite(run, change)
    done = cnnperf("tensorboard", run)
    assert_ended(done, 0)
    assert "outside the run folder" in done.stderr
    assert not list((run / "tensorboard").rglob("*secret*"))
    if kind == "examples":
        page = cnnperf("report", run, "--format", "html", "--out", run.parent / "page.html")
        assert_ended(page, 0)
        assert "outside the run folder" in page.stderr


def test_a_folder_of_tensorboard_that_is_a_link(run: Path) -> None:
    """A link in place of the folder for TensorBoard is not written through."""
    (run.parent / "victim").mkdir()
    (run / "tensorboard").symlink_to(run.parent / "victim")
    done = cnnperf("tensorboard", run)
    assert_ended(done, 2)
    assert not list((run.parent / "victim").rglob("events.*"))


def test_images_that_are_no_images(run: Path) -> None:
    """Damaged, poisoned and misshapen test images are left out with a warning; nothing in them is run."""
    [file] = run.glob("artifacts/*/examples.npz")
    flag = run.parent / "run by a pickle"

    class Poison:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (flag,))

    def unseal(document: dict[str, Any]) -> None:
        document["artifacts"]["examples"]["sha256"] = None

    rewrite(run, unseal)
    whole, flat = file.read_bytes(), np.zeros(3, np.int64)
    contents: list[Callable[[], object]] = [
        lambda: file.write_bytes(whole[:-30]),
        lambda: file.write_bytes(b""),
        lambda: file.write_bytes(pickle.dumps(Poison())),
        lambda: np.savez(file, label=np.array([Poison()] * 3, object), prediction=flat, probability=flat),
        lambda: np.savez(file, label=flat, prediction=flat[:1], probability=flat / 2, image=np.zeros((3, 2), np.uint8)),
        lambda: np.savez(file, image=np.zeros((3, 1, 2, 2), np.uint8)),
    ]
    for write in contents:
        write()
        for words in (("tensorboard", run), ("report", run, "--format", "html", "--out", run.parent / "page.html")):
            done = cnnperf(*words)
            assert_ended(done, 0)
            assert "test images are left out" in done.stderr
    assert not flag.exists()


def test_links_where_tables_are_written(run: Path) -> None:
    """A link in place of a table or a page of a run is replaced, and its target stays as it was."""
    precious = run.parent / "precious"
    precious.write_text("precious")
    for name in ("leaderboard.csv", "page.html"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(precious)
    assert_ended(cnnperf("run", run.parent / "small.toml", "--resume", run), 0)
    assert_ended(cnnperf("report", run, "--format", "html", "--out", run / "page.html"), 0)
    assert_ended(cnnperf("report", run, "--format", "csv", "--out", run), 0)
    assert precious.read_text() == "precious"
    assert not (run / "leaderboard.csv").is_symlink()
    assert "</html>" in (run / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["console", "markdown", "csv", "html", "json"])
def test_control_characters_in_names_and_errors(run: Path, form: str) -> None:
    """Control characters of names, errors and hosts reach no output, and no cell begins a formula."""

    def change(document: dict[str, Any]) -> None:
        document["task"]["cell"]["model"] = HOSTILE
        document["machine"]["host"] = HOSTILE
        document |= {"status": "failed", "error": HOSTILE, "log_tail": [HOSTILE]}

    rewrite(run, change)
    done = cnnperf("report", run, "--format", form)
    assert_ended(done, 0)
    for character in "\x1b\r\x9b\u202e":
        assert character not in done.stdout + done.stderr
    assert "evil" in done.stdout
    if form == "csv":
        assert f",{HOSTILE[0]}" not in done.stdout


def test_a_path_that_is_no_utf_8(run: Path) -> None:
    """A run whose path is not UTF-8 is reported as a page, and resumed."""
    moved = run.rename(os.fsdecode(os.fsencode(run.parent) + b"/\xff\xfe"))
    page = run.parent / "page.html"
    assert_ended(cnnperf("report", moved, "--format", "html", "--out", page), 0)
    assert "</html>" in page.read_text(encoding="utf-8")
    assert_ended(cnnperf("run", run.parent / "small.toml", "--resume", moved), 0)
