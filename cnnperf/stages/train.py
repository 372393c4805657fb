"""Train a network to a fixed budget: speed, accuracy and memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import partial
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn

from cnnperf import registry
from cnnperf.bench import Bench
from cnnperf.devices import Device
from cnnperf.record import Measurement, single
from cnnperf.task import Scalar
from cnnperf.training.distributed import processes_of
from cnnperf.training.evaluate import Evaluator, Predictions, affordable
from cnnperf.training.images import subset
from cnnperf.training.loop import Training
from cnnperf.training.peak import Memory
from cnnperf.training.processes import OneProcess
from cnnperf.training.recipe import EVALUATION_SHARE, Recipe
from cnnperf.training.setup import Data, Network, TrialSteps, frozen_heap, has_idle_parameters

IS_DEFAULT = True
LEAVES = ("weights", "examples")
UNTIMED = (
    "seconds",
    "steps",
    "samples",
    "epochs",
    "target_accuracy",
    "stop_at_target",
    "validation_images",
    "test_images",
    "test_flip",
    "test_curve",
    "normalize_eval",
    "train_accuracy",
    "schedule",
    "warmup",
    "processes",
    "sync_batch_norm",
)
"""Settings that affect neither a training step nor a forward pass, the two calls that `cnnperf ab` compares.

The compared steps have a learning rate of 0 and are taken in one process. What others of the settings affect is in
`training.recipe.timed`.
"""

EXAMPLES = 25
"""Number of test images stored of each kind: classified correctly and incorrectly."""


def measure(bench: Bench, recipe: Recipe) -> Iterator[Measurement]:
    """Train the task's network to the recipe's budget and test it.

    Yields measurements in SI units; curve points as they are measured, the others at the end. Writes the artifacts
    `weights` (a state dict, for `torch.load(weights_only=True)`) and `examples` (an npz of correctly and incorrectly
    classified test images, with label, prediction and probability, and the class names). Raises StageError if the loss
    is not finite or another process of the training fails, UsageError if device or dataset do not allow the recipe.
    """
    recipe.check(bench.device.name, len(bench.dataset.train_labels), len(bench.dataset.test_labels))
    bench.device.ready_torch()
    memory = Memory(bench.device)
    with processes_of(bench, recipe) as processes:
        trained = yield from _trained(bench, recipe, processes, memory)
    data, network, training, evaluator = trained

    bench.phase("test")
    count = recipe.test_images or affordable_tests(recipe, len(data.test), training, evaluator)
    indices = subset(torch.arange(len(data.test)), count)
    outcome = evaluator(data.test, indices)
    yield from training.totals()
    images = "all" if count == len(data.test) else "subset"
    yield from tested(outcome, bench.dataset.classes, images)
    yield from tested_otherwise(recipe, data, evaluator, indices, {"n": count, "images": images})
    yield from memory.peaks()
    yield single("train.evaluation_seconds", "s", evaluator.seconds, "lower")
    parameters = sum(parameter.numel() for parameter in network.model.parameters())
    yield single("train.parameters", "count", parameters, "lower")
    yield single("train.threads", "count", torch.get_num_threads())
    yield single("train.interop_threads", "count", torch.get_num_interop_threads())
    save_weights(bench, network.model)
    save_examples(bench, outcome)


def _trained(
    bench: Bench, recipe: Recipe, processes: OneProcess, memory: Memory
) -> Generator[Measurement, None, tuple[Data, Network, Training, Evaluator]]:
    """Train to the recipe's budget, and return what the test needs."""
    device = bench.device
    torch.manual_seed(bench.task.seed)
    registry.find("models", bench.task.cell.model.name)  # Imports the model's module, before its building is timed.
    bench.phase("images")
    watch = Stopwatch(device)
    with device.returning_memory() as returns:
        data = Data.load(bench, recipe, processes.part)
        yield watch.lap("train.load_seconds")
        bench.phase("network")
        network = Network.build(bench, recipe, data)
        yield watch.lap("train.build_seconds")
        bench.phase("warm-up")
        has_idle = partial(has_idle_parameters, bench, recipe, data, network)
        network = replace(network, trained=processes.averaging(network.forward, network.model, has_idle))
        trial = TrialSteps(bench, recipe, data, network, processes)
        if returns:
            yield from trial.memory(memory)
    step_s = trial.warm_up()
    yield watch.lap("train.warmup_seconds")

    bench.phase("training")
    training = Training(bench, recipe, data, network, trial.evaluator, step_s, processes)
    with frozen_heap():
        yield from training.run()
    yield from processes.end(training.clock.step_times)
    return data, network, training, trial.evaluator


class Stopwatch:
    """Measures the seconds outside training."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._start = perf_counter()

    def lap(self, metric: str) -> Measurement:
        """Return the seconds since the last lap."""
        self._device.synchronize()
        start, self._start = self._start, perf_counter()
        return single(metric, "s", self._start - start, "lower")


def affordable_tests(recipe: Recipe, test_images: int, training: Training, evaluator: Evaluator) -> int:
    """Return the number of test images for which the evaluation's share of the training's time suffices."""
    left_s = EVALUATION_SHARE * training.clock.seconds - evaluator.seconds
    passes = (3 if recipe.test_flip else 1) + (0 if recipe.normalize_eval else 1)
    return affordable(test_images, passes * evaluator.image_s, left_s)


def tested_otherwise(
    recipe: Recipe, data: Data, evaluator: Evaluator, indices: Tensor, on: dict[str, Scalar]
) -> Iterator[Measurement]:
    """Yield the further accuracies that the recipe asks for: with mirror images, and without normalisation."""
    if recipe.test_flip:
        accuracy = evaluator(data.test, indices, flip=True).accuracy
        yield single("train.test_accuracy_flip", "fraction", accuracy, "higher", on)
    if data.raw:
        accuracy = evaluator(data.test, indices, normalize=data.raw).accuracy
        yield single("train.test_accuracy_raw", "fraction", accuracy, "higher", on)


def tested(outcome: Predictions, classes: tuple[str, ...], images: str) -> Iterator[Measurement]:
    """Yield the test results; the remark `images` is `all` or `subset`."""
    on: dict[str, Scalar] = {"n": len(outcome), "images": images}
    yield single("train.test_accuracy", "fraction", outcome.accuracy, "higher", on)
    yield single("train.test_loss", "1", outcome.loss, "lower", on)
    number = len(classes)
    pairs = torch.bincount(outcome.labels * number + outcome.predictions, minlength=number * number)
    yield Measurement(
        metric="train.confusion",
        unit="count",
        better=None,
        values=tuple(pairs.tolist()),
        tags={"rows": "label", "columns": "prediction", "num_classes": number},
        remarks=on,
    )


def save_weights(bench: Bench, model: nn.Module) -> None:
    """Save the state dict on the CPU in N×C×H×W layout, whatever the training's device and layout."""
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    torch.save(state, bench.artifact("weights", "weights.pt"))


def save_examples(bench: Bench, outcome: Predictions) -> None:
    """Save the first test images of either kind, uint8 N×C×H×W, and the class names."""
    right = outcome.right
    chosen = torch.cat([kind.nonzero().squeeze(1)[:EXAMPLES] for kind in (right, ~right)])
    np.savez_compressed(
        bench.artifact("examples", "examples.npz"),
        image=bench.dataset.test_images[outcome.indices[chosen].numpy()],
        label=outcome.labels[chosen].numpy(),
        prediction=outcome.predictions[chosen].numpy(),
        probability=outcome.probabilities[chosen].numpy(),
        classes=np.array(bench.dataset.classes),
    )
