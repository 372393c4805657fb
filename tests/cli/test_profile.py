"""`cnnperf profile`: a table of layers on stdout, files in the run folder, errors in one sentence."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import called
from processes import completed

from cnnperf.record import FILE

pytestmark = pytest.mark.usefixtures("quick_probes")


def real(*words: object) -> subprocess.CompletedProcess[str]:
    """Run cnnperf in separate processes."""
    return completed(sys.executable, "-m", "cnnperf", *words)


def profile(*words: str, run: Callable[..., subprocess.CompletedProcess[str]] = called) -> Any:
    """Run `cnnperf profile` with two samples of the synthetic dataset."""
    return run("profile", *words, "--dataset", "synthetic", "--samples", "2")


@pytest.mark.parametrize(
    ("run", "model", "first"),
    [
        pytest.param(real, "lenet", "conv1", marks=pytest.mark.slow),  # With probes of real sizes.
        (called, "lenet", "conv1"),
        (called, "tiny_networks:convolutional", "0"),
    ],
)
def test_a_network_is_profiled_without_a_suite(
    run: Any, model: str, first: str, tmp_path: Path, reads: list[Path]
) -> None:
    """The output has the layers, a total and three sentences; the run folder has layers.csv and a trace.

    The tables are made from the records at hand, which are not read again.
    """
    done = profile(model, "--batch-size", "8", "--out", str(tmp_path / "run"), run=run)
    assert done.returncode == 0, done.stderr
    for words in (first, "total", "Half of the time goes to", "The memory peak", "Furthest from the roofline"):
        assert words in done.stdout
    with open(tmp_path / "run" / "layers.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["layer"] == first
    assert rows[0]["weights"] == "fresh"
    assert list((tmp_path / "run").glob("artifacts/*/batch-8.pt.trace.json.gz"))
    assert reads == []


def test_an_unknown_column_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    """An unknown column is refused with the nearest name, and no run folder is made."""
    done = profile("lenet", "--by", "foward_s", "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "did you mean 'forward_s'?" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_profile_as_one_document(tmp_path: Path) -> None:
    """With --json, stdout is the run's tables; with --quiet, nothing is on stderr; options of the table are refused."""
    done = profile("mlp", "--out", str(tmp_path / "run"), "--json", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["layers"]["rows"][0]["model"] == "mlp"
    assert profile("mlp", "--json", "--depth", "1").stderr == (
        "cnnperf: --by and --depth change the printed table; leave them out with --json\n"
    )


@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_makes_nothing(tmp_path: Path, *, as_json: bool) -> None:
    """A dry run prints its task and the estimates, and makes no run folder."""
    done = profile("lenet", "--dry-run", "--out", str(tmp_path / "run"), *["--json"] * as_json)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "run").exists()
    if as_json:
        assert [task["task"] for task in json.loads(done.stdout)["tasks"]] == ["synthetic/lenet/cpu profile"]
    else:
        assert re.match(r"synthetic/lenet/cpu profile  about \d+:\d\d\n1 task, about ", done.stdout)


def test_a_folder_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    """A folder with a run is refused in one sentence with exit status 2, and the run is unchanged."""
    (tmp_path / FILE).write_text("")
    done = profile("mlp", "--out", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == f"cnnperf: --out: {tmp_path} already contains a run; give another folder\n"
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_cannot_be_carried_out(tmp_path: Path) -> None:
    """An absent device ends in exit status 2, and the message says to use another device."""
    done = profile("mlp", "--device", "cuda", "--out", str(tmp_path / "out"))
    assert done.returncode == 2, done.stderr
    assert "profile it on another device" in done.stderr.splitlines()[-1]


def test_a_network_is_profiled_at_a_shape_and_with_options(tmp_path: Path) -> None:
    """`--input`, `--classes` and `--option` decide the shapes of the layers and the network."""
    words = ("--input", "3x24x20", "--classes", "100", "--option", "batch_norm=false", "--batch-size", "4")
    done = called("profile", "trashnet", *words, "--samples", "1", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "run" / "layers.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["inputs"] == "4×3×24×20"
    assert {row["outputs"] for row in rows if row["type"] == "Linear"} == {"4×100"}
    assert "BatchNorm2d" not in {row["type"] for row in rows}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--input", "224"), "--input: give channels, height and width such as 3x224x224, got 224"),
        (("--input", "3x0x0"), "--input: 0 is not valid; give at least 1"),
        (("--classes", "1"), "--classes: 1 is not valid; give at least 2"),
        (("--option", "depth"), "--option: give a name and a value such as depth=32, each name once, got depth"),
        (("--option", "depht=3"), "MODEL: lenet: unknown option 'depht'"),
        (("--dataset", "mnist", "--classes", "10"), "--dataset: --input and --classes are those of generated images"),
    ],
)
def test_images_and_options_that_cannot_be_carried_out(words: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    """An invalid shape, number of classes or option is refused in one sentence that names the option."""
    done = called("profile", "lenet", *words, "--out", tmp_path / "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"cnnperf: {sentence}")
    assert len(done.stderr.splitlines()) == 1
