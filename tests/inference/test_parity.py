"""Parity: bounds on logits and layer values, equal classes, and a drop in accuracy with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benches import left_by
from numpy.typing import NDArray

from cnnperf.bench import Bench
from cnnperf.engines._values import Values
from cnnperf.errors import StageError
from cnnperf.inference import exporting
from cnnperf.inference.exporting import Export
from cnnperf.inference.inputs import GOLDEN_IMAGES, LAYER_IMAGES, Golden, Inputs, LayerValue, read_values, save_values
from cnnperf.inference.parity import CAP, Parity, spread
from cnnperf.inference.source import loaded, source_of
from cnnperf.record import Measurement, Record
from cnnperf.stages import export as export_stage
from cnnperf.stages.export import measure as export
from cnnperf.stages.infer import Infer
from cnnperf.stages.infer import measure as infer
from cnnperf.task import Choice

onnx = pytest.importorskip("onnx")

Make = Callable[..., Bench]
CLASSES = 10


class Told:
    """An engine that answers test images with the rows of a given table of logits."""

    facts: Mapping[str, Any] = {}
    file = None

    def __init__(self, inputs: Inputs, logits: NDArray[np.float64], *, is_exact: bool, before: Any = None) -> None:
        images = inputs.test(np.arange(len(logits)))
        self._rows = {image.tobytes(): row for image, row in zip(images, logits.astype(np.float32), strict=True)}
        self._before = before
        self.is_exact = is_exact

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits, N×classes."""
        return np.array([self._rows[image.tobytes()] for image in images])

    def values(self, images: NDArray[np.float32]) -> Values | None:
        """Return the given values before the logits."""
        return None if self._before is None else Values(self.run(images), self._before)


@pytest.fixture
def held(bench: Make) -> Callable[..., tuple[str | None, dict[str, Measurement]]]:
    """Return a function that compares an engine's logits with torch's, and returns the fault and the measurements."""
    inputs = Inputs.of(bench())

    def hold(
        logits: NDArray[np.float64],
        of_torch: NDArray[np.float64],
        exact: NDArray[np.float64] | None = None,
        *,
        is_exact: bool = True,
        layers: Mapping[str, LayerValue] | None = None,
        before: Any = None,
    ) -> tuple[str | None, dict[str, Measurement]]:
        count = len(logits)
        indices, labels = np.arange(count), np.asarray(inputs.dataset.test_labels[:count])
        in_float64 = (of_torch if exact is None else exact)[:GOLDEN_IMAGES]
        golden = Golden(indices, labels, of_torch.astype(np.float32), in_float64)
        engine: Any = Told(inputs, logits, is_exact=is_exact, before=before)
        parity = Parity(engine, inputs, golden, layers or {}, 0.02)
        measured = {m.metric: m for m in parity.measured((1, 2, 8))}
        return parity.fault, measured

    return hold


@pytest.fixture
def logits() -> NDArray[np.float64]:
    """Return logits of 200 images, rounded to float32."""
    return np.random.default_rng(0).normal(size=(200, CLASSES)).astype(np.float32).astype(np.float64)


def test_equal_logits_pass(held: Callable[..., Any], logits: NDArray[np.float64]) -> None:
    """Equal logits pass, without an image in another class and without a drop in accuracy."""
    fault, measured = held(logits, logits)
    assert fault is None
    assert (measured["infer.parity"].values, measured["infer.parity"].remarks) == ((1,), {})
    assert measured["infer.class_disagreements"].values == (0,)
    assert measured["infer.right_in_torch_only"].values == measured["infer.right_in_engine_only"].values == (0,)


@pytest.mark.parametrize("own", [0.5, 0.01])
def test_a_reference_that_is_wrong_judges_nothing(
    held: Callable[..., Any], logits: NDArray[np.float64], own: float
) -> None:
    """If torch's float32 logits differ too much from float64, parity fails because it cannot be judged."""
    dice = np.random.default_rng(1)
    of_torch, other = (logits + own * dice.normal(size=logits.shape) for _ in range(2))
    fault, measured = held(other, of_torch, logits)
    assert (measured["infer.parity"].values, measured["infer.parity"].remarks) == ((0,), {"fault": fault})
    assert "parity failed at batch size 1: it cannot be judged, since torch's own logits in float32 differ" in fault


def test_an_error_is_bounded_whatever_the_reference_s_is(held: Callable[..., Any], logits: NDArray[np.float64]) -> None:
    """An error above a fixed part of the spread fails, although it is only three times torch's own error."""
    cap = CAP * spread(logits[:GOLDEN_IMAGES])
    noise = np.sign(np.random.default_rng(1).normal(size=logits.shape))
    assert held(logits + 0.4 * cap * noise, logits + 0.3 * cap * noise, logits)[0] is None
    fault, _ = held(logits + 1.5 * cap * noise, logits + 0.5 * cap * noise, logits)
    assert f"never more than {CAP:g} of their spread between classes" in fault


def test_logits_with_a_common_offset_are_held_to_their_spread(
    held: Callable[..., Any], logits: NDArray[np.float64]
) -> None:
    """The error is compared with the spread between classes, and not with the size of the logits."""
    offset = 1000.0
    noise = 2 * CAP * spread(logits) * np.sign(np.random.default_rng(1).normal(size=logits.shape))
    fault, measured = held(logits + offset + noise, logits + offset)
    assert measured["infer.error_to_float64"].values[0] < 1e-5
    assert "never more than" in fault


def test_an_exact_engine_puts_every_image_into_torch_s_class(
    held: Callable[..., Any], logits: NDArray[np.float64]
) -> None:
    """One image in another class than in torch is a fault of an exact engine.

    The image is none of those in float64. Its two largest logits differ by a thousandth, a thousand times what float32
    would exchange.
    """
    of_torch = logits.copy()
    second, first = np.argsort(of_torch[150])[-2:]
    of_torch[150, second] = of_torch[150, first] - 1e-3
    other = of_torch.copy()
    other[150, [first, second]] = other[150, [second, first]]
    fault, measured = held(other, of_torch)
    assert fault.startswith("parity failed: 1 of 200 test images have another class than in torch")
    assert measured["infer.class_disagreements"].values == (1,)


def test_a_tie_may_be_broken_otherwise(held: Callable[..., Any], logits: NDArray[np.float64]) -> None:
    """An image may change its class if its two largest logits differ by less than float32's error."""
    of_torch = logits.copy()
    second, first = np.argsort(of_torch[150])[-2:]
    of_torch[150, second] = of_torch[150, first] - 1e-6
    other = of_torch.copy()
    other[150, second] += 2e-6
    fault, measured = held(other, of_torch)
    assert fault is None
    assert measured["infer.top1_agreement"].values[0] < 1


@pytest.mark.parametrize(
    ("wrong", "words"), [(0, None), (2, None), (40, "parity failed: .* a drop of .* to .*95 % int")]
)
def test_an_engine_of_another_precision_fails_where_its_drop_is_shown(
    held: Callable[..., Any], bench: Make, wrong: int, words: str | None
) -> None:
    """On 200 images, an engine of lower precision passes with 2 wrong ones, and fails with 40."""
    labels = np.asarray(bench().dataset.test_labels)
    of_torch = np.eye(CLASSES)[labels]
    other = of_torch.copy()
    other[:wrong] = np.roll(other[:wrong], 1, axis=1)
    fault, measured = held(other, of_torch, is_exact=False)
    assert (fault is None) == (words is None)
    if words:
        with pytest.raises(AssertionError, match=words):
            raise AssertionError(fault)
    assert measured["infer.right_in_torch_only"].values == (wrong,)
    assert "infer.class_disagreements" not in measured


@pytest.mark.parametrize(("error", "own", "is_fault"), [(1e-6, 0.0, False), (1e-5, 0.0, True), (1e-5, 3e-6, False)])
def test_a_layer_is_held_to_its_own_float32(
    held: Callable[..., Any], logits: NDArray[np.float64], error: float, own: float, is_fault: bool
) -> None:
    """A layer's error may be five times that of the unoptimised graph, as a share of the layer's largest value."""
    exact = np.random.default_rng(2).normal(size=(LAYER_IMAGES, 3, 4, 4)).astype(np.float32)
    found = exact.copy()
    found.flat[17] += error * np.abs(exact).max()
    fault, measured = held(logits, logits, layers={"conv": LayerValue(exact, own)}, before={"conv": found})
    assert measured["infer.layer_error_to_float64"].values[0] == pytest.approx(error, rel=0.2)
    assert (
        measured["infer.layer_error_to_float64"].remarks["at"],
        measured["infer.layer_error_to_float64"].remarks["n"],
    ) == (
        "conv",
        1,
    )
    assert (fault is not None) == is_fault
    if fault:
        assert fault.startswith("parity failed in the layer value 'conv': it differs")


def test_a_layer_that_float32_loses_is_not_judged(held: Callable[..., Any], logits: NDArray[np.float64]) -> None:
    """A layer that float32 computes with a large error is not judged."""
    exact = np.ones((LAYER_IMAGES, 3), np.float32)
    fault, measured = held(logits, logits, layers={"lost": LayerValue(exact, 0.5)}, before={"lost": 2 * exact})
    assert fault is None
    assert "infer.layer_error_to_float64" not in measured


def test_layer_values_are_read_as_they_were_saved(tmp_path: Path) -> None:
    """Layer values are read back as they were saved, even under names that contain slashes."""
    values = {f"/block.{i}/Relu_output_0": LayerValue(np.full((4, i), 0.5, np.float32), i * 1e-7) for i in (1, 2)}
    save_values(values, tmp_path / "layers.npz")
    found = read_values(tmp_path / "layers.npz")
    assert list(found) == list(values)
    for name, value in values.items():
        np.testing.assert_array_equal(found[name].exact, value.exact)
        assert found[name].own_error == value.own_error


@pytest.fixture
def exported(bench: Make, trained: Callable[..., Record]) -> Callable[..., Bench]:
    """Return a function that exports a network or an ONNX file, and returns a bench of the infer stage."""

    def make(model: str = "convolutional", file: Path | None = None) -> Bench:
        first = bench(model)
        if file:
            cell = first.task.cell.model_copy(update={"model": Choice(name=str(file))})
            first = replace(first, task=first.task.model_copy(update={"cell": cell, "stage": "export"}))
        list(export(first, Export()))
        record = trained().model_copy(update={"task": first.task, "artifacts": left_by(first)})
        task = first.task.model_copy(update={"stage": "infer", "variant": {"engine": "onnxruntime"}})
        return replace(first, task=task, artifacts={}, needs={"export": record})

    return make


def test_a_file_whose_output_is_random_fails(exported: Callable[..., Bench], tmp_path: Path) -> None:
    """A foreign file with random output fails parity, which cannot be judged by such a reference."""
    made = exported()
    path = made.found("onnx")
    assert path
    model = onnx.load(path)
    last = next(each for each in model.graph.node if "logits" in each.output)
    last.output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("RandomNormalLike", ["before"], ["logits"]))
    onnx.save(model, tmp_path / "random.onnx")
    with pytest.raises(StageError, match="parity failed at batch size 1: it cannot be judged"):
        list(infer(exported(file=tmp_path / "random.onnx"), QUICK))


QUICK = Infer(batch_sizes=(1, 8), samples=11, seconds=0.0, pairs=0)


def larger(path: Path, share: float) -> None:
    """Increase the largest weight of a file's first layer by a share of itself."""
    model = onnx.load(path)
    weight = next(each for each in model.graph.initializer if each.name.endswith("weight"))
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[np.abs(values).argmax()] *= 1 + share
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)


@pytest.mark.parametrize("optimization", ["disabled", "basic", "extended", "all"])
def test_values_are_those_of_the_engine_as_it_runs(exported: Callable[..., Bench], optimization: str) -> None:
    """With the layer values the logits are the same, to the bit, and the values are those of the exported graph."""
    made = exported()
    engine = loaded(source_of(made), Choice.model_validate({"name": "onnxruntime", "optimization": optimization}))
    inputs, path = Inputs.of(made), made.found("layers")
    assert path
    layers = read_values(path)
    golden_path = made.found("golden")
    assert golden_path
    images = inputs.test(Golden.read(golden_path).indices[:LAYER_IMAGES])
    found = engine.values(images)
    np.testing.assert_array_equal(found.logits, engine.run(images))
    common = found.before.keys() & layers.keys()
    assert len(common) >= 4
    assert max(layers[name].error(found.before[name]) for name in common) < 1e-5
    assert found.before.keys() <= layers.keys()


def test_a_change_that_moves_no_logit_is_seen_in_its_layer(exported: Callable[..., Bench]) -> None:
    """A weight that is larger by three parts in 100,000 fails parity, and the error names the layer."""
    made = exported()
    path = made.found("onnx")
    assert path
    larger(path, 3e-5)
    with pytest.raises(StageError, match="parity failed in the layer value '"):
        list(infer(made, QUICK))


@pytest.mark.parametrize(("model", "share"), [("dense", 1e-2), ("convolutional", 1e-2)])
def test_an_export_that_is_not_the_network_is_no_export(
    bench: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: str, share: float
) -> None:
    """An export whose float64 logits differ from torch's by more than rounding fails the stage."""
    whole = exporting.export

    def spoiled(*parts: Any) -> int:
        nodes = whole(*parts)
        larger(parts[2], share)
        return nodes

    monkeypatch.setenv("CNNPERF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(export_stage, "export", spoiled)
    found: list[Measurement] = []
    with pytest.raises(
        StageError, match="the exported network differs from torch's: in float64 their logits differ"
    ) as caught:
        found.extend(export(bench(model), Export()))
    assert (found[-1].metric, found[-1].values) == ("export.parity", (0,))
    assert found[-1].remarks == {"fault": str(caught.value)}


def test_an_export_tells_how_near_it_is(bench: Make) -> None:
    """The export's error to float64 is below 1e-12 for a dense layer, and below 1e-6 with batch norm."""
    for model, close in (("dense", 1e-12), ("convolutional", 1e-6)):
        found = {m.metric: m.values[0] for m in export(bench(model), Export())}
        assert found["export.error_to_float64"] < close
        assert found["export.parity"] == 1
