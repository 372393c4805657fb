"""Subjects of a duet, by metric name: the training step and the forward pass of a cell."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from cnnperf import models, registry
from cnnperf.bench import Bench
from cnnperf.datasets import Dataset, open_arrays
from cnnperf.errors import StageError, UsageError, first_error
from cnnperf.ipc.messages import Opening
from cnnperf.record import Artifact
from cnnperf.task import Task
from cnnperf.timing.sampling import Call
from cnnperf.training.optimise import autocast, learning_rate
from cnnperf.training.recipe import Recipe
from cnnperf.training.setup import Data, Network
from cnnperf.units import shape_in_words

IMAGES = 4096
"""Number of images used, or eight batches if that is more: enough for training, and quick to load per replicate."""
STEPS = 3
"""Number of steps after which the losses of the sides are compared."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One prepared call to be timed."""

    call: Call
    synchronize: Callable[[], None]
    recipe: Recipe
    """Settings of the call."""
    outputs: dict[str, float]
    """Computed outputs, compared between the sides."""
    check: Callable[[], None]
    """Raises StageError if the results are no longer finite."""


def open_subject(opening: Opening) -> Subject:
    """Build the subject of a metric: the cell's network with the weights shared by both sides, on the same images.

    Raises CnnperfError if the network cannot be built or its outputs are not finite.
    """
    task = Task.model_validate(opening.task)
    recipe = recipe_of(task)
    device = registry.make("devices", task.cell.device.name, **task.cell.device.options)
    device.ready_torch()
    dataset = cut(open_arrays(opening.folder, task.data), max(IMAGES, 8 * recipe.batch_size))
    bench = Bench(task, device, dataset, Path(), lambda **_: None)
    torch.manual_seed(task.seed)
    data = Data.load(bench, recipe)
    network = Network.build(bench, recipe, data)
    share_weights(network, opening)
    subject = SUBJECTS[opening.metric](bench, recipe, data, network, opening)
    if not opening.slowdown:
        return subject
    return replace(subject, call=slowed(subject.call, device.synchronize, opening))


def recipe_of(task: Task) -> Recipe:
    """Merge the model's recipe of this version and the task's settings. Raises UsageError."""
    model, dataset, device = task.cell.model, task.cell.dataset.name, task.cell.device.name
    try:
        recommended = models.recipe(model, dataset, device)
        recipe = Recipe.resolve(recommended, task.settings, model.sections.get(task.stage, {}))
    except ValidationError as error:
        raise UsageError(first_error(error, task.stage)) from error
    return recipe.without_validation()


def cut(dataset: Dataset, count: int) -> Dataset:
    """Return a dataset with only its first images."""
    return replace(
        dataset,
        train_images=dataset.train_images[:count],
        train_labels=dataset.train_labels[:count],
        test_images=dataset.test_images[:count],
        test_labels=dataset.test_labels[:count],
    )


def share_weights(network: Network, opening: Opening) -> None:
    """Write the weights for both sides, or read them. Raises StageError if they do not fit."""
    path = opening.store / "weights.pt"
    if opening.leads:
        _save(network.model.state_dict(), path)
        return
    state = _load(path)
    try:
        network.model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).partition("\n")[2].strip().partition("\n")[0]
        raise StageError(
            f"the baseline's weights do not fit this network ({first}); compare networks of the same parameters"
        ) from error


def _save(value: Any, path: Path) -> None:
    """Write tensors for both sides, and their checksum."""
    torch.save(value, path)
    _checksum(path).write_text(Artifact.of(path.parent, path.name).model_dump_json(), encoding="utf-8")


def _load(path: Path) -> Any:
    """Read tensors that a side wrote; a side of an earlier version writes no checksum. Raises StageError if altered."""
    if (checksum := _checksum(path)).exists():
        Artifact.model_validate_json(checksum.read_bytes()).verified(path.parent)
    return torch.load(path, weights_only=True)


def _checksum(path: Path) -> Path:
    return path.with_suffix(".json")


def training_step(bench: Bench, recipe: Recipe, data: Data, network: Network, opening: Opening) -> Subject:
    """A step of training: the next batch, forward, backward and update.

    A few real steps come first, to compare the sides' losses; the timed steps have a learning rate of 0, so that they
    all do the same work on the same weights.
    """
    torch.manual_seed(bench.task.seed)
    step, batches = network.step(recipe, bench.device.torch_name), data.batches(recipe, bench.task.seed)
    rate = learning_rate(recipe, 0.0)
    losses = [float(step(*next(batches), rate)[0]) for _ in range(STEPS)]
    last: list[Tensor] = []

    def call() -> None:
        last[:] = (step(*next(batches), 0.0)[0],)

    def check() -> None:
        loss = float(last[0])
        if not math.isfinite(loss):
            raise StageError(f"the training loss became {loss}; lower lr")

    call()
    losses.append(float(last[0]))
    check()
    return Subject(call, bench.device.synchronize, recipe, {"loss": losses[-1]}, check)


def forward_pass(bench: Bench, recipe: Recipe, data: Data, network: Network, opening: Opening) -> Subject:
    """A forward pass on one batch of test images, in evaluation and inference mode."""
    model, device = network.model.eval(), bench.device.torch_name
    positions = data.test.positions(torch.arange(recipe.batch_size) % len(data.test)).to(device)
    images = data.normalize(data.test.take(positions).float())
    context = autocast(recipe, device)

    def call() -> Tensor:
        with torch.inference_mode(), context:
            return network.forward(images)

    path = opening.store / "logits.pt"
    if opening.leads:
        with torch.inference_mode():
            _save(models.logits(copy.deepcopy(model).double()(images.double())).cpu(), path)
    exact = _load(path)

    def check() -> None:
        if not call().isfinite().all():
            raise StageError("the logits are not finite (NaN or infinite); check the network and its precision")

    check()
    logits = call().cpu().double()
    if logits.shape != exact.shape:
        got, wanted = (shape_in_words(each.shape) for each in (logits, exact))
        raise StageError(
            f"the logits have shape {got}, those of the baseline {wanted}; compare networks with the same outputs"
        )
    error = float((logits - exact).abs().max() / exact.abs().max().clamp(min=1e-30))
    return Subject(call, bench.device.synchronize, recipe, {"error": error}, check)


SUBJECTS: dict[str, Callable[[Bench, Recipe, Data, Network, Opening], Subject]] = {
    "train.step": training_step,
    "infer.forward": forward_pass,
}
"""Subjects that can be measured in turns, by metric name."""


def slowed(call: Call, synchronize: Callable[[], None], opening: Opening) -> Call:
    """Return the call, complete when it returns and slowed by a share of its own duration."""

    def slow() -> None:
        start = perf_counter()
        call()
        synchronize()
        end = perf_counter()
        more = opening.slowdown * (end - start)
        if opening.slowdown_by == "sleep":
            sleep(more)
        while perf_counter() < end + more:
            pass

    return slow
