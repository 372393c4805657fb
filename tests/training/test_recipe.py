"""The section `[train]`: its layers, bounds and contradictions."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from processes import completed
from pydantic import ValidationError

from cnnperf import models, registry
from cnnperf.errors import UsageError
from cnnperf.suite import load_suite, plan
from cnnperf.training.recipe import (
    Recipe,
    budget_of,
    images_per_step,
    label_smoothing_of,
    mean_and_deviation,
    target_of,
    timed,
)


@pytest.mark.parametrize(
    ("budget", "got"), [({}, "none"), ({"epochs": 1, "seconds": 5}, "epochs and seconds")], ids=["none", "two"]
)
def test_budget_is_exactly_one(budget: dict[str, float], got: str) -> None:
    """A recipe without a budget or with several is refused, and the error names them."""
    with pytest.raises(ValidationError, match=f"exactly one of epochs, steps, samples, seconds, got {got}"):
        Recipe(**budget)


def test_later_budget_replaces_an_earlier_one() -> None:
    """A later layer's budget replaces an earlier one's, and the default is one epoch."""
    assert Recipe.resolve({"epochs": 9}, {"seconds": 60}, {}).seconds == 60
    assert Recipe.resolve({"epochs": 9}, {"seconds": 60}, {"steps": 4}).steps == 4
    assert Recipe.resolve({}, {}, {}).epochs == 1


def test_later_layers_lie_on_top() -> None:
    """A later layer overrides each key: defaults, the model's recipe, the suite's section, the model's override."""
    recipe = Recipe.resolve({"lr": 1, "crop": 1, "cutout": 1}, {"lr": 2, "crop": 2}, {"lr": 3})
    assert (recipe.lr, recipe.crop, recipe.cutout, recipe.batch_size) == (3, 2, 1, 128)


def test_two_budgets_in_one_layer_are_refused() -> None:
    """Two budgets in one layer are refused."""
    with pytest.raises(ValidationError, match="exactly one"):
        Recipe.resolve({}, {"steps": 5, "seconds": 5}, {})


def test_rates_go_with_their_optimizer() -> None:
    """Another optimizer does not inherit the rates of the model's recipe."""
    tuned = {"optimizer": "nesterov", "lr": 0.5, "weight_decay": 0.01, "batch_size": 64}
    changed = Recipe.resolve(tuned, {"optimizer": "adamw"}, {})
    assert (changed.lr, changed.bias_lr, changed.weight_decay, changed.batch_size) == (0.001, 0.001, 0.0, 64)
    assert Recipe.resolve(tuned, {"optimizer": "nesterov"}, {}).lr == 0.5
    assert Recipe.resolve(tuned, {"optimizer": "adamw", "lr": 0.02}, {}).lr == 0.02


def test_naming_the_default_optimizer_drops_no_rates() -> None:
    """A layer that names the optimizer in use keeps its rates; one that changes it drops them."""
    assert Recipe.resolve({}, {"lr": 0.01}, {"optimizer": "adamw"}).lr == 0.01
    assert Recipe.resolve({"lr": 0.01}, {"optimizer": "adamw"}, {}).lr == 0.01
    assert Recipe.resolve({}, {"lr": 0.01}, {"optimizer": "sgd"}).lr == 0.05


def test_complete_settings_come_back_unchanged() -> None:
    """The settings of a task give the recipe that they were written from."""
    recipe = Recipe.resolve({"optimizer": "muon"}, {"seconds": 3}, {})
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_readings_that_nobody_asked_for_leave_the_settings_as_they_were() -> None:
    """Settings of additional readings are stored only if they are requested."""
    readings: dict[str, Any] = {"normalize_eval": False, "train_accuracy": "after_step", "test_curve": True}
    assert "processes" not in Recipe(epochs=1, processes=1).model_dump(mode="json")
    assert not readings.keys() & Recipe(epochs=1).model_dump(mode="json").keys()
    asked = Recipe(epochs=1, **readings)
    assert Recipe.model_validate(asked.model_dump(mode="json")) == asked


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"target_accuracy": 0.9, "validation_images": 0}, "set validation_images above 0"),
        ({"stop_at_target": False}, "give target_accuracy, or leave both out"),
        ({"optimizer": "nesterov", "momentum": 0}, "needs momentum above 0"),
        ({"optimizer": "muon", "precision": "fp16"}, "use 'bf16'"),
        ({"test_curve": True}, "give the budget in epochs"),
        ({"normalize": "unit", "normalize_eval": False}, "normalize_eval = false has no effect"),
        ({"lr": float("nan")}, "finite number"),
        ({"lr": -1}, "greater than or equal to 0"),
        ({"batch_size": 0}, "greater than or equal to 1"),
        ({"batch_size": 2**20 + 1}, "less than or equal to 1048576"),
        ({"optimiser": "sgd"}, "Extra inputs are not permitted"),
        ({"optimizer": "adam"}, "'sgd', 'nesterov', 'adamw' or 'muon'"),
        ({"label_smoothing": 1}, "less than 1"),
        ({"processes": 0}, "greater than or equal to 1"),
        ({"sync_batch_norm": True}, "needs processes above 1"),
        ({"processes": 3}, "batch_size 128 is not divisible by processes 3"),
        ({"processes": 2, "compile": True}, "compile = true trains in one process"),
        ({"processes": 2, "train_accuracy": "after_step"}, "'after_step' evaluates whole batches"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], match: str) -> None:
    """Values out of bounds and contradictions are refused without a device."""
    with pytest.raises(ValidationError, match=match):
        Recipe(steps=1, **settings)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"precision": "fp16"}, "needs device cuda, got cpu"),
        ({"validation_images": 1000}, "1,000 leaves none of the 1,000 training images"),
        ({"validation_images": 900, "batch_size": 101}, "101 is more than the 100 training images"),
        ({"validation_images": 0, "test_images": 201}, "201 is more than the 200 available"),
    ],
)
def test_what_device_or_dataset_do_not_allow_is_refused(settings: dict[str, Any], match: str) -> None:
    """`check` refuses settings that the device or the number of images does not allow."""
    with pytest.raises(UsageError, match=match):
        Recipe(steps=1, **settings).check("cpu", 1000, 200)


def test_several_processes_need_a_known_device_and_on_cuda_a_gpu_each() -> None:
    """Several processes train on the CPU or on as many GPUs, and calls that are timed alone have one process."""
    recipe = Recipe(steps=1, processes=2, validation_images=0)
    for device, count in (("cpu", 1), ("cuda", 2)):
        recipe.check(device, 1000, 200)
        assert recipe.device_count(device) == count
    with pytest.raises(UsageError, match="processes 2 needs device cpu or cuda, got npu"):
        recipe.check("npu", 1000, 200)
    whole = Recipe(steps=1, processes=2, sync_batch_norm=True)
    assert recipe.without_validation() == whole.without_validation() == Recipe(steps=1, validation_images=0)


def test_what_device_and_dataset_allow_passes() -> None:
    """`check` accepts fp16 on CUDA and a single training image."""
    Recipe(steps=1, precision="fp16", validation_images=999, batch_size=1, test_images=200).check("cuda", 1000, 200)


@pytest.mark.parametrize(
    ("budget", "steps"), [({"epochs": 2}, 14), ({"steps": 9}, 9), ({"samples": 65}, 3), ({"seconds": 9}, None)]
)
def test_budget_comes_to_steps(budget: dict[str, float], steps: int | None) -> None:
    """An epoch has the full batches of the images that validation leaves."""
    recipe = Recipe(**budget, batch_size=32, validation_images=20)
    assert recipe.planned_steps(250) == steps
    assert recipe.planned_samples(250) == (steps and 32 * steps)


def test_quick_is_a_few_seconds() -> None:
    """`quick` replaces any budget by three seconds, and keeps a shorter one."""
    assert Recipe(epochs=50).quick().seconds == 3
    assert Recipe(epochs=50, test_curve=True).quick().epochs is None
    assert not Recipe(epochs=50, test_curve=True).quick().test_curve
    assert Recipe(seconds=1).quick().seconds == 1


def test_the_tutorial_is_trained_as_published() -> None:
    """The suite `tutorial` trains with plain SGD on all images, in batches of 100, as published."""
    tasks = {task.cell.model.name: task for task in plan(load_suite("tutorial"), "*/cpu")}
    recipes = {}
    for name, task in tasks.items():
        model = task.cell.model
        recommended = models.recipe(model, task.cell.dataset.name, "cpu")
        recipes[name] = Recipe.resolve(recommended, task.settings, model.sections["train"])
        recipes[name].check("cpu", 50_000, 10_000)
        assert not model.options
    shared = {"optimizer": "sgd", "momentum": 0, "weight_decay": 0, "schedule": "constant", "batch_size": 100}
    shared |= {"validation_images": 0, "label_smoothing": 0, "crop": 0, "cutout": 0, "precision": "fp32"}
    lenet = {"epochs": 16, "lr": 0.5, "normalize": "unit", "flip": "none", "normalize_eval": True}
    trashnet = {"epochs": 10, "lr": 0.9, "normalize": "half", "flip": "random", "grayscale": 0.1}
    trashnet |= {"normalize_eval": False, "train_accuracy": "after_step"}
    for name, own in (("lenet", lenet), ("trashnet", trashnet)):
        wanted = {**shared, **own, "bias_lr": own["lr"], "test_curve": True}
        assert {key: getattr(recipes[name], key) for key in wanted} == wanted


def test_every_setting_is_described() -> None:
    """The JSON schema describes each setting."""
    assert all("description" in key for key in Recipe.model_json_schema()["properties"].values())


def test_what_is_not_timed_is_a_setting() -> None:
    """The untimed settings of the training stage are keys of the recipe."""
    assert set(registry.declared("stages", "train")["UNTIMED"]) < set(Recipe.model_fields)


SAME_WORK: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rate": ({}, {"lr": 0.3}),
    "rates apart": ({"lr": 0.1, "bias_lr": 0.2}, {"lr": 0.1, "bias_lr": 0.3}),
    "factor": ({"label_smoothing": 0.1}, {"label_smoothing": 0.2}),
    "momentum of adamw": ({}, {"momentum": 0.0}),
    "muon without muon": ({}, {"muon_steps": 5, "muon_renormalise": False}),
    "padding without crop": ({}, {"crop_padding": "reflect"}),
}
OTHER_WORK: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a group of biases": ({}, {"bias_lr": 0.2}),
    "smoothing": ({}, {"label_smoothing": 0.1}),
    "momentum": ({"optimizer": "sgd"}, {"optimizer": "sgd", "momentum": 0.0}),
    "optimizer": ({}, {"optimizer": "sgd"}),
    "muon": ({"optimizer": "muon"}, {"optimizer": "muon", "muon_steps": 5}),
    "padding": ({"crop": 2}, {"crop": 2, "crop_padding": "reflect"}),
    "layout": ({}, {"memory_format": "channels_last"}),
}


@pytest.mark.parametrize(
    ("sides", "is_same"),
    [*((sides, True) for sides in SAME_WORK.values()), *((sides, False) for sides in OTHER_WORK.values())],
    ids=[*SAME_WORK, *OTHER_WORK],
)
def test_settings_are_reduced_to_the_timed_work(sides: tuple[dict[str, Any], dict[str, Any]], is_same: bool) -> None:
    """`timed` removes settings that change neither the work of a step nor of a forward pass, and keeps others."""
    one, other = (timed(Recipe.resolve({}, side, {}).model_dump(mode="json"), channels=3) for side in sides)
    assert (one == other) == is_same


@pytest.mark.parametrize(("channels", "is_same"), [(1, True), (3, False), (4, True)])
def test_grey_is_timed_work_of_colour_images_only(channels: int, is_same: bool) -> None:
    """`timed` removes `grayscale` unless the images have three channels."""
    none, half = (Recipe(steps=1, grayscale=share).model_dump(mode="json") for share in (0.0, 0.5))
    assert (timed(none, channels) == timed(half, channels)) == is_same


def test_a_recorded_budget_is_put_into_words() -> None:
    """`budget_of` gives the budget and the target that may end it early, or None."""
    assert budget_of({"samples": None, "batch_size": 6}) is None
    assert budget_of({"steps": 500, "target_accuracy": 0.9}) == "500 steps or until 90 %"


@pytest.mark.parametrize("odd", ["a", "", None, True, [], {}, 10**400, float("nan")])
def test_recorded_settings_that_are_no_numbers_are_not_stated(odd: Any) -> None:
    """Text and other values in place of a number are read as absent."""
    settings = {"epochs": odd, "steps": 2, "batch_size": odd, "target_accuracy": odd, "label_smoothing": odd}
    assert budget_of(settings) == "2 steps"
    assert (images_per_step(settings), label_smoothing_of(settings), target_of(settings)) == (None, None, None)


@pytest.mark.parametrize(
    ("kind", "scaled"),
    [("dataset", ([0.4, 0.6], [0.2, 0.3])), ("half", ([0.5, 0.5], [0.5, 0.5])), ("unit", ([0.0, 0.0], [1.0, 1.0]))],
)
def test_each_normalisation_has_its_mean_and_deviation(kind: str, scaled: tuple[list[float], list[float]]) -> None:
    """`half` scales pixels of 0 … 1 to -1 … 1, and `unit` leaves them, whatever the dataset's mean and deviation."""
    assert mean_and_deviation(kind, (0.4, 0.6), (0.2, 0.3)) == scaled


def test_torch_is_not_needed() -> None:
    """The recipe's module does not import torch."""
    script = "import sys; import cnnperf.training.recipe; sys.exit('torch' in sys.modules)"
    assert completed(sys.executable, "-c", script).returncode == 0
