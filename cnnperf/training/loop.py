"""The training loop: steps until the budget is used, checked at intervals and evaluated outside the clock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cnnperf.errors import StageError
from cnnperf.machine.disturbance import Disturbance, read_counters
from cnnperf.record import Measurement, single
from cnnperf.timing.clock import Clock
from cnnperf.timing.sampling import Samples
from cnnperf.training.evaluate import TARGET_POINTS, VALIDATION_SHARE, Evaluator, pace
from cnnperf.training.images import subset
from cnnperf.training.optimise import learning_rate
from cnnperf.training.processes import OneProcess
from cnnperf.training.recipe import EVALUATION_SHARE, MOST_POINTS, SUBSETS

if TYPE_CHECKING:
    from cnnperf.bench import Bench
    from cnnperf.task import Scalar
    from cnnperf.training.recipe import Recipe
    from cnnperf.training.setup import Data, Network

LAP_S = 0.5
"""Length of a lap on a device that computes asynchronously."""
BRIEF_LAP_S = 0.05
"""Length of a lap on other devices; losses are checked per lap, because that costs less than per step."""
AFTER_STEP_EVERY = 5
"""Interval in steps at which a batch is evaluated again after its step (train_accuracy = after_step)."""
REPORT_S = 1.0
"""Interval at which numbers are sent to the screen."""


class Training:
    """One training: its used budget and its measurements.

    Steps are grouped in laps. After a lap the device is synchronised, losses and logits are checked and the clock is
    read: on the CPU after some milliseconds, elsewhere a few times per second, because each wait empties the queue.
    Several processes all take the steps of a lap that rank 0 has announced.
    """

    def __init__(
        self,
        bench: Bench,
        recipe: Recipe,
        data: Data,
        network: Network,
        evaluator: Evaluator,
        step_s: float,
        processes: OneProcess | None = None,
    ) -> None:
        """step_s: estimated seconds of a step, used until the clock has measured it. processes: None for one."""
        self.clock = Clock(bench.device)
        self.losses: list[float] = []
        self._bench = bench
        self._recipe = recipe
        self._data = data
        self._processes = processes or OneProcess()
        self._processes.begin()
        self._step = network.step(recipe, bench.device.torch_name)
        self._batches = data.batches(recipe, bench.task.seed)
        self._evaluator = evaluator
        self._step_s = step_s
        self._waits = bench.device.is_asynchronous
        self._total = recipe.planned_steps(len(data.train))
        # Numbers instead of tensors: small tensors kept from every step fragmented the heap and made the memory of a
        # long training grow to several times its need.
        self._right: list[int] = []
        self._right_after: list[int] = []
        self._looks_again = recipe.train_accuracy == "after_step"
        self._test_indices = subset(torch.arange(len(data.test)), recipe.test_images or len(data.test))
        self._target = recipe.target_accuracy
        self._stopped = False
        self._validated = False
        self._counters = read_counters()
        self._reported = perf_counter()
        self._last_point_s = 0.0
        self._plan_points()

    def run(self) -> Iterator[Measurement]:
        """Train until the budget is used or the target is reached; yield the evaluations as they are measured."""
        self.clock.start()
        while not self._stopped and self.progress < 1:
            self._lap()
            if self._is_due():
                self._bench.phase("validation")
                yield from self._evaluate()
                self._bench.phase("training")
                self.clock.start()
            elif perf_counter() - self._reported >= REPORT_S:
                self._report()
                self.clock.start()

    def totals(self) -> Iterator[Measurement]:
        """Yield the final measurements; disturbances cover the time from construction to this call."""
        steps, samples, seconds = len(self.losses), self._samples, self.clock.seconds
        stretches, disturbance = tuple(self.clock.stretches), Disturbance.since(self._counters)
        taken = Samples(1, stretches, (), True, disturbance, noun="stretches", better=None)
        times = tuple(self.clock.step_times)
        yield Measurement(metric="train.step_time", unit="s", better="lower", values=times, remarks=taken.remarks)
        if taken.values:
            yield from taken.measurements("train.stretch")
        yield Measurement(metric="train.loss", unit="1", better="lower", values=tuple(self.losses))
        yield single("train.total_images_per_s", "images/s", samples / seconds, "higher")
        yield single("train.seconds", "s", seconds)
        yield single("train.steps", "count", steps)
        yield single("train.samples", "count", samples)

    @property
    def progress(self) -> float:
        """The used share of the budget; 1 or slightly more at the end."""
        return self._progress(len(self.losses), self.clock.seconds)

    def _progress(self, steps: int, seconds: float) -> float:
        if self._total is not None:
            return steps / self._total
        assert self._recipe.seconds is not None
        return seconds / self._recipe.seconds

    @property
    def _has_others(self) -> bool:
        return self._processes.part.size > 1

    @property
    def _samples(self) -> int:
        return len(self.losses) * self._recipe.batch_size

    def _lap(self) -> None:
        first, start = len(self.losses), self.clock.seconds
        losses, answers, rates = [], [], []
        planned = (
            # Between two readings of the clock, the used seconds are extrapolated from the last lap.
            learning_rate(self._recipe, self._progress(first + ahead, start + ahead * self._step_s))
            for ahead in range(self._lap_steps())
        )
        for rate in self._processes.told(planned):
            images, labels = next(self._batches)
            rates.append(rate)
            loss, logits = self._step(images, labels, rate)
            losses.append(loss)
            answers.append((logits, labels))
            self.clock.tick()
            if self._is_used_up(start):
                break
        self.clock.read()
        self._step_s = (self.clock.seconds - start) / len(losses)
        of_batches, right = self._processes.summed(numbers(losses), right_of_each(answers))
        self._note(of_batches, rates)
        self._right += right
        if self._looks_again and len(self.losses) % AFTER_STEP_EVERY == 0:
            self._right_after.append(self._evaluator.again(images, labels))
            self.clock.start()

    def _lap_steps(self) -> int:
        is_unmeasured = self._has_others and not self.losses  # No clock ends a lap of several processes early.
        if self._looks_again or is_unmeasured:
            return 1
        each = self._progress(1, self._step_s)
        until_next = math.ceil((min(self._next_point, 1.0) - self.progress) / each - 1e-6)
        return max(1, min(int((LAP_S if self._waits else BRIEF_LAP_S) / self._step_s), until_next))

    def _is_used_up(self, start: float) -> bool:
        """Return whether a lap that began at `start` seconds has reached the next point of a budget in seconds."""
        if self._waits or self._has_others or self._recipe.seconds is None:
            return False
        return start + self.clock.unread_s >= self._recipe.seconds * min(self._next_point, 1.0)

    def _note(self, losses: list[float], rates: list[float]) -> None:
        for loss, rate in zip(losses, rates, strict=True):
            if not math.isfinite(loss):
                step, lr = len(self.losses) + 1, rate * self._recipe.lr
                raise StageError(f"the loss became {loss} at step {step} (learning rate {lr:.3g}); lower lr")
            self.losses.append(loss)

    def _plan_points(self) -> None:
        """Choose the number of validation images and of evaluations."""
        recipe, indices = self._recipe, self._data.validation_indices
        self._points = TARGET_POINTS if recipe.target_accuracy is not None else MOST_POINTS
        if len(indices):
            seconds = recipe.seconds if self._total is None else self._total * self._step_s
            assert seconds is not None
            count, self._points = pace(len(indices), self._evaluator.image_s, seconds, self._points)
            indices = subset(indices, count)
        self._validation_indices = indices
        if recipe.test_curve:
            assert recipe.epochs
            self._points = recipe.epochs
        self._next_point = 1 / self._points

    def _is_due(self) -> bool:
        """Return whether to evaluate now; a point is skipped if there is no time, except the last."""
        progress = self.progress
        if progress < self._next_point:
            return False
        # The small term prevents a second evaluation of a point that rounding placed just before its mark.
        self._next_point = (math.floor(progress * self._points + 1e-9) + 1) / self._points
        cost = len(self._validation_indices) * self._evaluator.image_s
        asked = progress >= 1 or self._recipe.test_curve
        return asked or self._evaluator.seconds + cost <= VALIDATION_SHARE * self.clock.seconds

    def _evaluate(self) -> Iterator[Measurement]:
        where: dict[str, Scalar] = {
            "step": len(self.losses),
            "samples": self._samples,
            "seconds": self.clock.seconds,
            "epoch": self._samples / len(self._data.train_indices),
        }
        seen = len(self._right) * self._recipe.batch_size
        yield single("train.train_accuracy", "fraction", self._train_accuracy(), "higher", {**where, "n": seen})
        self._report()
        self._right.clear()
        yield from self._as_published(where)
        if not len(self._validation_indices) or not self._is_affordable():
            return
        outcome = self._evaluator(self._data.train, self._validation_indices)
        self._validated = True
        remarks = {**where, "n": len(outcome)}
        yield single("train.validation_accuracy", "fraction", outcome.accuracy, "higher", remarks)
        if self._target is not None and outcome.accuracy >= self._target:
            resolution = self.clock.seconds - self._last_point_s
            remarks = {"n": len(outcome), "resolution_s": resolution}
            yield single("train.time_to_target", "s", self.clock.seconds, "lower", remarks, target=self._target)
            self._stopped, self._target = self._recipe.stop_at_target, None
        self._last_point_s = self.clock.seconds

    def _as_published(self, where: Mapping[str, Scalar]) -> Iterator[Measurement]:
        """Yield the test results per epoch, as in published curves; nothing may be selected by them."""
        if self._right_after:
            seen = len(self._right_after) * self._recipe.batch_size
            accuracy = sum(self._right_after) / seen
            remarks = {**where, "n": seen}
            yield single("train.train_accuracy_after_step", "fraction", accuracy, "higher", remarks)
            self._right_after.clear()
        if self._recipe.test_curve:
            readings = {"": self._data.normalize, "_raw": self._data.raw}
            for suffix, normalize in readings.items():
                if normalize:
                    outcome = self._evaluator(self._data.test, self._test_indices, normalize=normalize)
                    remarks = {**where, "n": len(outcome)}
                    metric = f"train.epoch_test_accuracy{suffix}"
                    yield single(metric, "fraction", outcome.accuracy, "higher", remarks)

    def _is_affordable(self) -> bool:
        """Return whether another validation leaves time for the test; the first validation is always made."""
        still = len(self._validation_indices) + min(SUBSETS[-1], len(self._data.test))
        spent = self._evaluator.seconds + still * self._evaluator.image_s
        return not self._validated or spent <= EVALUATION_SHARE * self.clock.seconds

    def _train_accuracy(self) -> float:
        return sum(self._right) / (len(self._right) * self._recipe.batch_size)

    def _report(self) -> None:
        self._reported = perf_counter()
        self._bench.progress(
            step=len(self.losses),
            epoch=self._samples / len(self._data.train_indices),
            loss=self.losses[-1],
            accuracy=self._train_accuracy(),
            images_per_s=self._samples / self.clock.seconds,
            progress=min(self.progress, 1.0),
        )


def right_of_each(answers: list[tuple[Tensor, Tensor]]) -> list[int]:
    """Return the number of correct predictions per batch from its logits (N×classes), in one device read."""
    logits, labels = (torch.stack(tensors) for tensors in zip(*answers, strict=True))
    found: list[int] = (logits.argmax(2) == labels).sum(1).tolist()
    return found


def numbers(scalars: list[Tensor]) -> list[Any]:
    """Read scalars from the device, all at once; a single one is read directly, which is faster."""
    return [scalars[0].item()] if len(scalars) == 1 else torch.stack(scalars).tolist()
