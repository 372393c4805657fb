"""The result of measuring one network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from in_process import workers_here

import cnnperf
from cnnperf.errors import SuiteError, UsageError
from cnnperf.measuring.cell import Named, dataset_of, network_of
from cnnperf.measuring.measured import Measured
from cnnperf.record import PARITY, Record, single
from cnnperf.tables.table import Report


@pytest.mark.parametrize(
    ("status", "lost", "code"),
    [("ok", 0, 0), ("skipped", 0, 0), ("ok", 30, 3), ("failed", 30, 1), ("timeout", 0, 1)],
)
def test_the_exit_status(trained: Callable[..., Record], status: str, lost: int, code: int) -> None:
    """A failed task gives 1, even beside an undecided drop in accuracy, which alone gives 3."""
    made = trained(max_accuracy_drop=0.02)
    counts = {"right_in_torch_only": lost, "right_in_engine_only": 12 if lost else 0}
    judged = (
        single(PARITY, "1", 1, engine="onnxruntime_int8"),
        *(single(f"infer.{name}", "count", count, None, {"n": 1000}) for name, count in counts.items()),
    )
    task = made.task.model_copy(update={"stage": "infer", "variant": {"engine": "onnxruntime_int8"}})
    engine = made.model_copy(update={"task": task, "measurements": judged})
    assert Measured(Path("run"), (trained(status=status), engine), Report((), ())).exit_code == code


@pytest.mark.parametrize(
    ("model", "dataset", "words"),
    [
        (
            {"name": "resnet", "depth": "x"},
            "synthetic",
            "`model`.depth: 'x' is not valid; give one of 20, 32, 44, 56, 110, 18, 34 or 50",
        ),
        (
            "torch.nn:ReflectionPad2d",
            "synthetic",
            "`model`: torch.nn:ReflectionPad2d needs padding; add `options` padding=…",
        ),
        ("lenet", {"name": "synthetic", "train": "x"}, "`dataset`.train: 'x' is not valid; give a valid integer"),
        (
            "lenet",
            {"name": "synthetic", "train": 0},
            "`dataset`.train: 0 is not valid; give at least 1",
        ),
    ],
)
def test_an_invalid_option_is_named_after_its_argument(model: Named, dataset: Named, words: str) -> None:
    """An invalid option is named after its argument and a dot, and the message says what to give."""
    with workers_here(), pytest.raises(SuiteError) as caught:
        cnnperf.profile(model, dataset=dataset)
    assert str(caught.value) == words


def test_generated_images_have_the_shape_and_classes_that_are_given() -> None:
    """The number of large images is limited by their bytes, and is at least two batches."""
    small = dataset_of(None, (3, 32, 32), None)
    assert small == {"name": "synthetic", "shape": [3, 32, 32], "train": 10_000, "test": 2_000}
    large = dataset_of("synthetic", (3, 224, 224), 1000, 300)
    assert large == {"name": "synthetic", "shape": [3, 224, 224], "num_classes": 1000, "train": 600, "test": 600}
    assert dataset_of(None, None, 100) == {"name": "synthetic", "num_classes": 100}
    assert (dataset_of(None, None, None), dataset_of("mnist", None, None)) == ("cifar10", "mnist")


@pytest.mark.parametrize("dataset", ["cifar10", {"name": "synthetic", "shape": [1, 8, 8]}])
def test_images_are_named_once(dataset: Named) -> None:
    """A dataset beside the shape of generated images, or a second shape, is refused."""
    with pytest.raises(UsageError, match=r"^`dataset`: `shape` and `classes` are those of generated images, got"):
        dataset_of(dataset, (3, 32, 32), None)


def test_a_network_has_each_option_once() -> None:
    """Options are added to a network's table; one that it already has is refused."""
    assert network_of({"name": "resnet", "shortcut": False}, {"depth": 32}) == {
        "name": "resnet",
        "shortcut": False,
        "depth": 32,
    }
    assert network_of("resnet", {}) == "resnet"
    with pytest.raises(UsageError, match=r"^`options`: depth of resnet is already given; give it once$"):
        network_of({"name": "resnet", "depth": 20}, {"depth": 32})
