"""An ONNX file is checked before it is run, and each fault is reported in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnnperf.errors import UsageError
from cnnperf.onnx_file import Port, check_fit, look, signature, stored_bytes

onnx = pytest.importorskip("onnx")

SHAPE = (1, 28, 28)


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an ONNX file of one linear layer, by default with 10 logits."""

    def make(
        batch: Any = "n", size: int = 28, classes: int = 10, kind: int = onnx.TensorProto.FLOAT, opset: int = 20
    ) -> Path:
        from onnx import helper

        weight = helper.make_tensor("weight", kind, [size * size, classes], [0.5] * (size * size * classes))
        graph = helper.make_graph(
            [
                helper.make_node("Flatten", ["images"], ["flat"], axis=1),
                helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
            ],
            "mean",
            [helper.make_tensor_value_info("images", kind, [batch, 1, size, size])],
            [helper.make_tensor_value_info("logits", kind, [batch, classes])],
            [weight],
        )
        path = tmp_path / "some.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
        return path

    return make


def test_a_sound_file_says_what_it_is(file: Callable[..., Path]) -> None:
    """The check of a valid file returns its opset, IR version, number of nodes and size."""
    path = file()
    assert check_fit(path, SHAPE, 10) == look(path) == (20, 10, 2, path.stat().st_size)


@pytest.mark.parametrize("name", ["some.onnx.data", "weights.bin"])
def test_weights_beside_a_file_are_part_of_its_size(file: Callable[..., Path], name: str) -> None:
    """A file's size includes weights in a second file; without onnx, only the name that an export gives is found."""
    path = file()
    whole, model = path.stat().st_size, onnx.load(path)
    [weight] = model.graph.initializer
    # Raw bytes alone move.
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight), weight.name))
    onnx.save(model, path, save_as_external_data=True, location=name, size_threshold=0)
    weights = path.with_name(name).stat().st_size
    assert weights == 4 * 28 * 28 * 10
    assert path.stat().st_size < whole - weights + 1000
    assert look(path).size == path.stat().st_size + weights
    assert stored_bytes(path) == path.stat().st_size + (weights if name == "some.onnx.data" else 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 32}, r"takes images of 1×32×32, got 1×28×28; choose a matching dataset"),
        (
            {"classes": 7},
            r"must return logits of 10 classes, got 'logits' \(float \?×7\); choose a matching dataset or export it",
        ),
        ({"batch": 0}, "takes batches of 0; export it with a batch of 1 or more"),
        ({"opset": 999}, r"has opset 999, the newest readable opset is (\d+); export it with opset \1$"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(file: Callable[..., Path], changes: dict[str, Any], words: str) -> None:
    """A file of another image size, class count, type or opset is refused, with the fix in the message."""
    with pytest.raises(UsageError, match=words) as caught:
        check_fit(file(**changes), SHAPE, 10)
    assert "\n" not in str(caught.value)


def test_a_truncated_or_missing_file_is_refused(file: Callable[..., Path], tmp_path: Path) -> None:
    """A truncated file, a file in another format and a missing file are refused with a message."""
    path = file()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UsageError, match=r"some\.onnx: not a valid ONNX file \(\w+: .+\); export it again"):
        look(path)
    path.write_text("no protocol buffer")
    with pytest.raises(UsageError, match="not a valid ONNX file"):
        look(path)
    with pytest.raises(UsageError, match=r"other\.onnx: no such file"):
        look(tmp_path / "other.onnx")


def port(name: str, kind: int, *sizes: object) -> onnx.ValueInfoProto:
    """Return an input or output of a graph."""
    return onnx.helper.make_tensor_value_info(name, kind, sizes)


FLOAT, PIXELS, PLACES = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8, onnx.TensorProto.INT64
IMAGES, MAP = port("images", FLOAT, "n", 3, 8, 8), port("map", FLOAT, "n", 3, 8, 8)


@pytest.fixture
def casting(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an ONNX file whose outputs are copies of its first input."""

    def make(inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> Path:
        nodes = [
            onnx.helper.make_node("Cast", [inputs[0].name], [each.name], to=each.type.tensor_type.elem_type)
            for each in outputs
        ]
        graph = onnx.helper.make_graph(nodes, "casting", inputs, outputs)
        path = tmp_path / "casting.onnx"
        onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
        return path

    return make


def test_a_file_says_what_it_takes(file: Callable[..., Path]) -> None:
    """The signature of a file from images to logits has the batch, the images and the number of classes."""
    free, fixed = signature(file()), signature(file(batch=4))
    assert (free.batch, fixed.batch, fixed.classes, fixed.unchecked) == (None, 4, 10, None)
    assert fixed.images == Port("images", "float", (4, 1, 28, 28))
    assert not fixed.takes_pixels
    assert check_fit(file(batch=4), SHAPE, 10)


@pytest.mark.parametrize(
    ("inputs", "outputs", "unchecked"),
    [
        ([IMAGES, port("scale", FLOAT, 1)], [MAP], "it takes 2 inputs"),
        ([port("at", PLACES, "n", 7)], [port("logits", FLOAT, "n", 7)], "it takes no images, but 'at' (int64 ?×7)"),
        ([IMAGES], [MAP, port("other", FLOAT, "n", 3, 8, 8)], "it has 2 outputs"),
        ([IMAGES], [MAP], "it returns no logits, but 'map' (float ?×3×8×8)"),
    ],
)
def test_a_file_of_another_kind_is_taken_without_a_reference(
    casting: Callable[..., Path], inputs: list[Any], outputs: list[Any], unchecked: str
) -> None:
    """A file that is not from images to logits fits, with the reason why its output is not checked."""
    path = casting(inputs, outputs)
    assert signature(path).unchecked == unchecked
    assert check_fit(path, (3, 8, 8), 10)


def test_pixels_are_images(casting: Callable[..., Path]) -> None:
    """An input of uint8 with four dimensions takes pixels."""
    path = casting([port("pixels", PIXELS, 2, 8, 8, 3)], [port("map", FLOAT, 2, 8, 8, 3)])
    assert signature(path).takes_pixels
    with pytest.raises(UsageError, match=r"takes images of 8×8×3, got 3×8×8; choose a matching dataset"):
        check_fit(path, (3, 8, 8), 10)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (
            [IMAGES, port("length", PLACES, "n", "t")],
            r"takes 'length' \(int64 \?×\?\), with a free size besides the batch",
        ),
        ([IMAGES, port("word", onnx.TensorProto.STRING, 1)], r"takes 'word' \(string 1\), which cannot be generated"),
    ],
)
def test_inputs_that_cannot_be_generated_are_refused(
    casting: Callable[..., Path], inputs: list[Any], words: str
) -> None:
    """An input of text, or of a size that is not known, is refused with its name."""
    with pytest.raises(UsageError, match=words):
        signature(casting(inputs, [MAP]))
