"""`cnnperf infer`: engines of one network or ONNX file on stdout, files in the run folder, errors in one sentence."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_process import called

from cnnperf.inference.exporting import CachedExport
from cnnperf.record import FILE, read

onnx = pytest.importorskip("onnx")

QUICK = ("--dataset", "synthetic", "--samples", "11", "--pairs", "0", "--threads", "1", "--batch-size", "4")


def rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with open(file, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


LENET = ("lenet", *QUICK, "--engine", "torch", "--engine", "onnxruntime", "--out")


@pytest.fixture(scope="module")
def sound(once: Callable[[str, Callable[[Path], Any]], Any]) -> tuple[str, Path]:
    """Compare two engines of LeNet; return the output, and the folder that contains run and cache."""

    def make(folder: Path) -> tuple[str, Path]:
        done = called("infer", *LENET, folder / "run", CNNPERF_CACHE=str(folder / "cache"))
        assert done.returncode == 0, done.stderr
        return done.stdout, folder

    made: tuple[str, Path] = once("sound", make)
    return made


def test_a_network_and_then_its_file_are_compared(sound: tuple[str, Path], tmp_path: Path, reads: list[Path]) -> None:
    """Torch and ONNX Runtime are compared layer by layer; then ONNX Runtime runs the exported file alone.

    The tables are made from the records at hand, which are not read again.
    """
    printed, folder = sound
    for words in ("onnxruntime", "separate", "torch beside onnxruntime", "of kernel time belongs to a layer"):
        assert words in printed
    assert "Nothing was trained" not in printed
    assert [row["engine"] for row in rows(folder / "run" / "engines.csv")] == ["torch", "onnxruntime"]
    layers = rows(folder / "run" / "layers.csv")
    assert any(row["forward_s"] and row["engine_s"] and row["engine_speedup"] for row in layers)
    (file,) = (folder / "run").glob("artifacts/*/model.onnx")
    done = called("infer", file, *QUICK, "--engine", "onnxruntime", "--out", tmp_path / "foreign")
    assert done.returncode == 0, done.stderr
    (row,) = rows(tmp_path / "foreign" / "engines.csv")
    assert (row["model"], row["parity"], row["speedup"]) == (str(file), "ok", "1.0")
    assert "speed-up: onnxruntime's time over the engine's" in " ".join(done.stdout.split())
    assert "torch" not in done.stdout, "it never ran"
    assert reads == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("lenet", "--batch-size", "many"), "--batch-size: give whole numbers from 1, or only auto, got many"),
        (("lenet", "--batch-size", "0"), "--batch-size: give whole numbers from 1, or only auto, got 0"),
        (("lenet", "--batch-size", "4", "--batch-size", "-4"), "from 1, or only auto, got 4, -4"),
        (
            ("lenet", "--batch-size", "70000"),
            "--batch-size: give whole numbers from 1 to 65,536, or 'auto' alone, got [70000]",
        ),
        (("lenet", "--engine", "onnxruntim"), "did you mean 'onnxruntime'?"),
        (("there/is/none.onnx",), "there/is/none.onnx: no such file"),
        (("some.onnx", "--train", "5"), "an ONNX file cannot be trained"),
    ],
)
def test_what_cannot_be_carried_out_is_refused(words: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    """An invalid argument is refused in one sentence with exit status 2, and no run folder is made."""
    done = called("infer", *words, "--dataset", "synthetic", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_engines_as_one_document(sound: tuple[str, Path], tmp_path: Path) -> None:
    """With --json, stdout is the run's tables; with --quiet, nothing is on stderr."""
    cache = str(sound[1] / "cache")
    options = ("--engine", "onnxruntime", "--out", tmp_path / "run", "--json", "--quiet")
    done = called("infer", "lenet", *QUICK, *options, CNNPERF_CACHE=cache)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["engines"]["rows"][0]["engine"] == "onnxruntime"


def test_a_dry_run_makes_nothing(tmp_path: Path) -> None:
    """A dry run prints the tasks and their estimates, and makes no run folder."""
    done = called("infer", *LENET, tmp_path / "run", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    first, *_, total = done.stdout.splitlines()
    assert first.startswith("synthetic/lenet/cpu export  about 0:")
    assert total.startswith("3 tasks, about ")
    assert not (tmp_path / "run").exists()


def test_columns_sets_the_width_of_layers(sound: tuple[str, Path], tmp_path: Path) -> None:
    """$COLUMNS sets the width of every table, that of the layers too."""
    options = ("--engine", "torch", "--engine", "onnxruntime", "--out", tmp_path / "run")
    done = called("infer", "lenet", *QUICK, *options, CNNPERF_CACHE=str(sound[1] / "cache"), COLUMNS="70")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 70


def test_a_folder_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    """A folder with a run is refused in one sentence with exit status 2, and the run is unchanged."""
    (tmp_path / FILE).write_text("")
    done = called("infer", "lenet", *QUICK, "--out", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"cnnperf: --out: {tmp_path} already contains a run; give another folder\n"
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("engine", ["torch", "torch_compile"])
def test_an_engine_that_loads_no_onnx_file_is_refused(tmp_path: Path, engine: str) -> None:
    """An engine that cannot load ONNX files is refused in one sentence, and no run folder is made."""
    file = tmp_path / "some.onnx"
    images, logits = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", *shape])
        for name, shape in (("images", [3, 32, 32]), ("logits", [10]))
    )
    weight = onnx.numpy_helper.from_array(np.ones((3072, 10), np.float32), "weight")
    nodes = [
        onnx.helper.make_node("Flatten", ["images"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
    ]
    graph = onnx.helper.make_graph(nodes, "some", [images], [logits], [weight])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), file)
    done = called("infer", file, *QUICK, "--engine", "onnxruntime", "--engine", engine, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr == (
        f"cnnperf: MODEL: {file}: the engine '{engine}' cannot load an ONNX file; remove it from the engines\n"
    )
    assert not (tmp_path / "run").exists()


def one_more(model: onnx.ModelProto) -> None:
    """Add 1 to one weight of the first layer."""
    weight, values = first_weight(model)
    values.flat[0] += 1.0
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))


def not_a_number(model: onnx.ModelProto) -> None:
    """Set the first layer's weights to NaN."""
    weight, values = first_weight(model)
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full_like(values, np.nan), weight.name))


def unheard(model: onnx.ModelProto) -> None:
    """Insert an operator that the ONNX checker accepts and no runtime has."""
    model.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    node = next(each for each in model.graph.node if each.op_type in ("Relu", "Sigmoid"))
    node.op_type, node.domain = "Unheard", "elsewhere"


def first_weight(model: onnx.ModelProto) -> tuple[onnx.TensorProto, np.ndarray]:
    """Return the first layer's weights, as the tensor in the file and as an array."""
    weight = next(each for each in model.graph.initializer if each.name.endswith("weight"))
    return weight, onnx.numpy_helper.to_array(weight).copy()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (one_more, "the exported network differs from torch's: in float64 their logits differ"),
        (not_a_number, "the exported network differs from torch's: its output is not finite"),
        (unheard, "cannot be computed in this form"),
    ],
)
def test_a_broken_export_fails_the_run_and_leaves_the_other_engine(
    sound: tuple[str, Path], tmp_path: Path, spoil: Any, words: str
) -> None:
    """The exit status is 1, the engine of the broken export is skipped, and torch has its row with a latency."""
    shutil.copytree(sound[1] / "cache", tmp_path / "cache")
    (exported,) = tmp_path.glob("cache/onnx/*.onnx")
    model = onnx.load(exported)
    spoil(model)
    stored = CachedExport(exported)
    _, nodes = stored.read()
    stored.write(model.SerializeToString(), nodes)
    done = called("infer", *LENET, tmp_path / "run", CNNPERF_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 1, done.stderr
    of_torch, broken = rows(tmp_path / "run" / "engines.csv")
    assert (of_torch["engine"], of_torch["status"], of_torch["parity"]) == ("torch", "ok", "ok")
    assert float(of_torch["latency_s"]) > 0
    assert (broken["engine"], broken["status"], broken["parity"]) == ("onnxruntime", "skipped", "")
    assert (broken["latency_s"], broken["best"], broken["pareto"]) == ("", "", "")
    failure = next(record.error for record in read(tmp_path / "run") if record.task.stage == "export")
    assert failure
    assert words in failure
    assert spoil is unheard or failure.endswith(f"; remove {exported}")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    """A truncated ONNX file is refused with exit status 2, and the message says to export it again."""
    path = tmp_path / "some.onnx"
    path.write_bytes(b"\x08\x0a\x3a\xff")
    done = called("infer", path, "--dataset", "synthetic")
    assert done.returncode == 2
    assert "not a valid ONNX file" in done.stderr
    assert "export it again" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_cannot_be_carried_out(tmp_path: Path) -> None:
    """An absent device ends in exit status 2, and nothing is printed on stdout."""
    done = called("infer", "mlp", *QUICK, "--device", "cuda", "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing was measured" in done.stderr.splitlines()[-1]


FEW = """
datasets = [{ name = "synthetic", train = 300, test = 1500 }]
models = ["mlp"]
stages = ["export", "infer"]
threads = 1

[infer]
engines = ["onnxruntime", "onnxruntime_int8"]
batch_sizes = [4]
samples = 11
seconds = 0.0
pairs = 0
test_images = 40
"""


def test_an_accuracy_that_too_few_images_tell_ends_in_three(tmp_path: Path) -> None:
    """With too few images the 8-bit engine is undecided and not ranked, and the output says how many would decide.

    With that many images the resumed run ends in 0: the undecided row stays in its tables, but is no task of the suite.
    """
    (tmp_path / "few.toml").write_text(FEW)
    done = called("run", "few.toml", "--out", "run", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    exact, other = rows(tmp_path / "run" / "engines.csv")
    assert (exact["parity"], other["parity"], other["status"], other["pareto"]) == ("ok", "undecided", "ok", "")
    assert int(other["images_to_decide"]) > 40
    assert "would decide (test_images)" in " ".join(done.stdout.split())
    (tmp_path / "few.toml").write_text(FEW.replace("test_images = 40", "test_images = 1500"))
    cured = called("run", "few.toml", "--resume", "run", cwd=tmp_path)
    assert cured.returncode == 0, cured.stderr
    assert [row["parity"] for row in rows(tmp_path / "run" / "engines.csv")] == ["ok", "undecided", "ok", "ok"]


def written(path: Path, inputs: list[Any], nodes: list[Any], outputs: list[Any], weights: list[Any]) -> Path:
    """Write an ONNX file; inputs and outputs are given by name, type and shape."""
    ports = ([onnx.helper.make_tensor_value_info(*each) for each in side] for side in (inputs, outputs))
    graph = onnx.helper.make_graph(nodes, "foreign", *ports, weights)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    return path


FLOAT, PIXELS = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
ALONE = ("--samples", "11", "--threads", "1")


def test_a_file_is_measured_at_its_own_shape_batch_and_type(tmp_path: Path) -> None:
    """Without a dataset, a file of pixels and of a fixed batch gets generated pixels of its own shape at that batch."""
    node = onnx.helper.make_node
    nodes = [node("Cast", ["pixels"], ["wide"], to=FLOAT), node("Flatten", ["wide"], ["flat"])]
    nodes.append(node("MatMul", ["flat", "weight"], ["logits"]))
    weight = np.random.default_rng(0).standard_normal((8 * 9 * 3, 5)).astype(np.float32)
    file = written(
        tmp_path / "fixed.onnx",
        [("pixels", PIXELS, [3, 8, 9, 3])],
        nodes,
        [("logits", FLOAT, [3, 5])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    done = called("infer", file, *ALONE, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    exact, quantised = rows(tmp_path / "run" / "engines.csv")
    assert (exact["batch_size"], exact["parity"], exact["status"], exact["data"]) == ("3", "ok", "ok", "synthetic")
    assert quantised["status"] == "skipped"
    assert quantised["reason"].endswith("and not this one: it takes uint8 pixels")
    [record] = [each for each in read(tmp_path / "run") if each.task.stage == "export"]
    assert record.task.data
    assert (record.task.data.shape, record.task.data.num_classes) == ((8, 9, 3), 5)
    refused = called("infer", file, *ALONE, "--batch-size", "4")
    assert refused.returncode == 2
    assert refused.stderr.startswith("cnnperf: --batch-size: the file takes batches of 3 only; give 3 alone, or none")


def test_a_file_of_several_inputs_has_a_latency_without_parity(tmp_path: Path) -> None:
    """A file of two inputs and two outputs is timed; a warning and its row say why there is no parity."""
    file = written(
        tmp_path / "two.onnx",
        [("images", FLOAT, ["n", 3, 8, 8]), ("scale", FLOAT, ["n", 1, 1, 1])],
        [
            onnx.helper.make_node("Mul", ["images", "scale"], ["scaled"]),
            onnx.helper.make_node("Neg", ["scaled"], ["less"]),
        ],
        [("scaled", FLOAT, ["n", 3, 8, 8]), ("less", FLOAT, ["n", 3, 8, 8])],
        [],
    )
    done = called("infer", file, *ALONE, "--engine", "onnxruntime", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert f"warning: {file}: latency without parity and accuracy: it takes 2 inputs" in done.stderr
    found = rows(tmp_path / "run" / "engines.csv")
    assert [(row["batch_size"], row["parity"], row["status"]) for row in found] == [("1", "", "ok"), ("32", "", "ok")]
    assert all(float(row["latency_s"]) > 0 and row["test_accuracy"] == row["best"] == "" for row in found)
    assert {row["reason"] for row in found} == {"latency without parity: it takes 2 inputs"}
