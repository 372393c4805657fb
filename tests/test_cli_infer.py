"""`cnnperf infer`: engines of one network or ONNX file on stdout, files in the run folder, faults in a sentence."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

onnx = pytest.importorskip("onnx")

QUICK = ("--dataset", "synthetic", "--samples", "11", "--pairs", "0", "--threads", "1", "--batch-size", "4")


def infer(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run([sys.executable, "-m", "cnnperf", "infer", *words], capture_output=True, text=True)


def rows(file: Path) -> list[dict[str, str]]:
    """Read a CSV file."""
    with open(file, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_network_and_then_its_file_are_compared(tmp_path: Path) -> None:
    """Torch and ONNX Runtime, layer by layer; the exported file then, as one that is not ours, against itself."""
    done = infer("lenet", *QUICK, "--engine", "torch", "--engine", "onnxruntime", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    for words in ("onnxruntime", "unpaired", "torch beside onnxruntime", "of kernel time belongs to a layer"):
        assert words in done.stdout
    assert "Nothing was trained" not in done.stdout
    assert [row["engine"] for row in rows(tmp_path / "run" / "engines.csv")] == ["torch", "onnxruntime"]
    layers = rows(tmp_path / "run" / "layers.csv")
    assert any(row["forward_s"] and row["engine_s"] and row["engine_speedup"] for row in layers)
    (file,) = (tmp_path / "run").glob("artifacts/*/model.onnx")
    done = infer(str(file), *QUICK, "--engine", "onnxruntime", "--out", str(tmp_path / "foreign"))
    assert done.returncode == 0, done.stderr
    (row,) = rows(tmp_path / "foreign" / "engines.csv")
    assert (row["model"], row["parity"], row["speedup"]) == (str(file), "ok", "1.0")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("lenet", "--batch-size", "many"), "--batch-size: give whole numbers, or auto alone, got many"),
        (("lenet", "--engine", "onnxruntim"), "did you mean 'onnxruntime'?"),
        (("there/is/none.onnx",), "there/is/none.onnx: no such file"),
        (("some.onnx", "--train", "5"), "an ONNX file is not trained"),
    ],
)
def test_what_cannot_be_carried_out_is_refused(words: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    """In one sentence, before anything is measured."""
    done = infer(*words, "--dataset", "synthetic", "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    """With the cure."""
    path = tmp_path / "some.onnx"
    path.write_bytes(b"\x08\x0a\x3a\xff")
    done = infer(str(path), "--dataset", "synthetic")
    assert done.returncode == 2
    assert "not a valid ONNX file" in done.stderr
    assert "export it again" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_cannot_be_carried_out(tmp_path: Path) -> None:
    """One sentence, exit 2, no table of nothing."""
    done = infer("mlp", *QUICK, "--device", "cuda", "--out", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing was measured" in done.stderr.splitlines()[-1]
