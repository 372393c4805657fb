"""The settings of inference: the expected time of a task, and the number of logits that an export writes."""

from __future__ import annotations

import pytest

from cnnperf.bench import Settings
from cnnperf.errors import UsageError
from cnnperf.inference.exporting import Export
from cnnperf.inference.settings import Infer, allowed_drop, engines_of
from cnnperf.training.recipe import Recipe

ENGINES = ("torch", "torch_compile", "onnxruntime")


def estimate_s(engine: str, **settings: object) -> float:
    """Return the estimate for an engine in seconds, under these settings."""
    return Infer.model_validate({"engines": list(ENGINES), **settings}).estimate_s({"engine": engine})


@pytest.mark.parametrize("engine", ENGINES)
def test_an_estimate_counts_the_measuring_time_of_each_batch_size(engine: str) -> None:
    """Without pairs, three batch sizes take three times as long as one, and a longer measurement takes longer."""
    one = estimate_s(engine, batch_sizes=[1], pairs=0, seconds=2.0)
    assert estimate_s(engine, batch_sizes=[1, 2, 4], pairs=0, seconds=2.0) == pytest.approx(3 * one)
    assert estimate_s(engine, batch_sizes="auto", pairs=0, seconds=2.0) == pytest.approx(8 * one)
    assert estimate_s(engine, batch_sizes=[1], pairs=0, seconds=5.0) == pytest.approx(one + 3.0)
    assert one > 2.0


def test_an_engine_that_compiles_takes_longer_by_its_compilations() -> None:
    """The estimate of an engine that compiles includes more seconds for each batch size, and for each pair again."""
    sizes = [1, 2]
    compiling, other = (estimate_s(each, batch_sizes=sizes, pairs=0) for each in ("torch_compile", "onnxruntime"))
    assert compiling > other + 10 * len(sizes)
    pairs = {
        engine: estimate_s(engine, batch_sizes=sizes, pairs=1) - estimate_s(engine, batch_sizes=sizes, pairs=0)
        for engine in ENGINES
    }
    assert pairs["torch"] == 0  # The engine with which the others are compared has no pairs.
    assert pairs["onnxruntime"] == pytest.approx(2 + 1.5 * len(sizes))
    assert pairs["torch_compile"] == pytest.approx(pairs["onnxruntime"] + (compiling - other) / 3)


@pytest.mark.parametrize(
    ("asked", "engine", "is_refused"), [(300, "onnxruntime", True), (200, "onnxruntime", False), (300, "torch", False)]
)
def test_more_test_images_than_logits_are_refused(asked: int, engine: str, is_refused: bool) -> None:
    """An engine that reads exported logits cannot test more images than the export wrote."""
    settings = Infer.model_validate({"engines": [engine], "test_images": asked})
    before: dict[str, Settings] = {
        "train": Recipe.resolve({}, {"steps": 1}, {}),
        "export": Export.resolve({}, {"test_images": 200}, {}),
    }
    if is_refused:
        with pytest.raises(UsageError, match=r"^test_images 300 is more than the 200 of \[export\]"):
            settings.agree(before)
    else:
        settings.agree(before)
    Infer.model_validate({"engines": [engine]}).agree(before)  # Its default is as many as there are.


def test_recorded_settings_of_a_stranger() -> None:
    """Engines and the permitted drop are read as far as they are what a suite may state."""
    recorded = {"engines": ["torch", 3, {"name": "onnxruntime", "threads": 2}, {}], "max_accuracy_drop": "none"}
    assert engines_of(recorded) == ("torch", "onnxruntime[threads=2]")
    assert engines_of({"engines": 3}) == engines_of({}) == ()
    assert allowed_drop(recorded) is None
    assert allowed_drop({"max_accuracy_drop": 0.02}) == 0.02
