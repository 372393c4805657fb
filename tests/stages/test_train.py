"""The training stage: budgets, clocks, evaluations without side effects, and the files written."""

from __future__ import annotations

import ast
import gc
import itertools
import math
import re
import sys
import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import completed

from cnnperf import models, registry
from cnnperf.bench import Bench
from cnnperf.datasets import Dataset
from cnnperf.devices.cpu import Cpu, acquire
from cnnperf.errors import StageError, UsageError
from cnnperf.ipc.process import Launch
from cnnperf.record import Measurement
from cnnperf.stages.train import measure
from cnnperf.tables.facts import ReducedColumn
from cnnperf.tables.leaderboard_row import OF_SEVERAL_PROCESSES, LeaderboardRow
from cnnperf.timing import sampling
from cnnperf.training import loop, setup
from cnnperf.training.evaluate import Evaluator
from cnnperf.training.peak import Memory
from cnnperf.training.recipe import EVALUATION_SHARE, MOST_POINTS, Recipe

MakeBench = Callable[..., Bench]
MakeRecipe = Callable[..., Recipe]


def named(measurements: Iterable[Measurement], metric: str) -> list[Measurement]:
    """Return the measurements of one metric."""
    return [m for m in measurements if m.metric == f"train.{metric}"]


def value(measurements: Iterable[Measurement], metric: str) -> float:
    """Return the one value of a metric."""
    ((found,),) = (m.values for m in named(measurements, metric))
    return found


def losses(bench: Bench, recipe: Recipe) -> tuple[float, ...]:
    """Train and return the loss curve."""
    (curve,) = named(measure(bench, recipe), "loss")
    return curve.values


@pytest.mark.parametrize(
    ("budget", "steps"), [({"steps": 5}, 5), ({"samples": 100}, 4), ({"samples": 96}, 3), ({"epochs": 2}, 24)]
)
def test_budget_is_met_exactly(bench: MakeBench, recipe: MakeRecipe, budget: dict[str, int], steps: int) -> None:
    """A budget in steps, samples or epochs gives an exact number of steps: an epoch is 12 batches of 32."""
    found = list(measure(bench(), recipe(**budget)))
    assert value(found, "steps") == steps
    assert value(found, "samples") == 32 * steps
    for metric in ("loss", "step_time"):
        assert len(named(found, metric)[0].values) == steps


def test_budget_in_seconds_ends_with_the_step_that_uses_it_up(bench: MakeBench, recipe: MakeRecipe) -> None:
    """The training's time is below its budget in seconds before the last step, and reaches it with that step."""
    found = list(measure(bench(), recipe(seconds=0.2)))
    times = named(found, "step_time")[0].values
    assert sum(times[:-1]) < 0.2 <= sum(times) + 1e-6
    assert value(found, "seconds") == pytest.approx(sum(times), abs=1e-6)
    assert value(found, "total_images_per_s") == pytest.approx(value(found, "samples") / value(found, "seconds"))


def test_laps_of_many_steps_end_with_the_step_that_uses_the_budget_up(
    bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lap that lasts longer than planned ends at the budget or at a point of the curve."""
    monkeypatch.setattr(loop, "BRIEF_LAP_S", 1e6)
    monkeypatch.setattr(loop, "pace", lambda count, image_s, seconds, most: (count, 4))
    Ticking(monkeypatch)
    reads: list[int] = []
    read = loop.Clock.read
    monkeypatch.setattr(loop.Clock, "read", lambda clock: (reads.append(1), read(clock)))
    monkeypatch.setattr(loop.Training, "_lap_steps", lambda training: 1000)
    found = list(measure(bench(), recipe(seconds=20.0)))
    assert value(found, "steps") == 20
    assert [m.remarks["step"] for m in named(found, "train_accuracy")] == [5, 10, 15, 20]
    assert len(reads) == 4


def test_the_learning_rate_follows_the_clock_between_its_readings(
    bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With steps of a second the rate falls from second to second, though the clock is read once in five steps.

    The first lap, of ten steps, is planned before a step has been timed, at half a second for each.
    """
    monkeypatch.setattr(loop, "BRIEF_LAP_S", 5.0)
    monkeypatch.setattr(loop, "pace", lambda count, image_s, seconds, most: (count, 1))
    monkeypatch.setattr(setup.TrialSteps, "warm_up", lambda trial: 0.5)
    Ticking(monkeypatch)
    progress: list[float] = []
    rate_at = loop.learning_rate
    monkeypatch.setattr(loop, "learning_rate", lambda recipe, used: (progress.append(used), rate_at(recipe, used))[1])
    list(measure(bench(), recipe(seconds=32.0)))
    assert progress[10:] == [step / 32 for step in range(10, 32)]


def test_hits_are_counted_batch_by_batch() -> None:
    """`right_of_each` counts the right predictions of each batch."""
    logits = torch.eye(4)[torch.tensor([[0, 1, 2], [3, 3, 3]])]
    answers = list(zip(logits, torch.tensor([[0, 1, 3], [0, 1, 3]]), strict=True))
    assert loop.right_of_each(answers) == [2, 1]


def test_the_leaderboard_s_columns_have_the_units_that_are_measured(
    bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each column of the leaderboard has the unit and direction of its metric as measured.

    Those of several processes are in test_distributed.py.
    """
    monkeypatch.setattr(Cpu, "returning_memory", lambda self: nullcontext(True))
    asked = recipe(steps=None, epochs=2, test_flip=True, target_accuracy=0.05, stop_at_target=False)
    found = {m.metric: (m.unit, m.better) for m in measure(bench(), asked)}
    reduced = [column for column in LeaderboardRow.columns() if isinstance(column, ReducedColumn)]
    of_one = [column for column in reduced if column.name not in OF_SEVERAL_PROCESSES]
    columns = {column.metric: (column.unit, column.better) for column in of_one if column.metric}
    assert columns == {metric: found[metric] for metric in columns}


def test_the_steps_tell_what_they_stand_on(
    bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stretches of steps have CPU time, switches and the machine's load, and a remark on disturbances."""
    monkeypatch.setattr("cnnperf.timing.clock.SAMPLE_S", 0.0)
    monkeypatch.setattr(loop, "BRIEF_LAP_S", 0.0)
    delays = itertools.count(step=0.002)
    monkeypatch.setattr(sampling, "run_delay_s", lambda: next(delays))
    found = list(measure(bench(), recipe(steps=5)))
    for metric in ("stretch", "stretch_cpu", "stretch_switches"):
        assert len(named(found, metric)[0].values) == 5
    assert named(found, "stretch")[0].values == pytest.approx(named(found, "step_time")[0].values)
    assert sum(named(found, "stretch_cpu")[0].values) > 0
    assert len(named(found, "stretch_load")[0].values) == 1
    disturbed = named(found, "step_time")[0].remarks["disturbed"]
    assert disturbed.startswith("the main thread lost the CPU for > 1 ms in 100 % of stretches")
    assert named(found, "stretch")[0].better is None


class Ticking:
    """A clock on which a reading takes one second, and an evaluation a thousand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step_s: float = 1.0, evaluation_s: float = 1000.0) -> None:
        self.now = 0.0
        evaluate = Evaluator.__call__
        monkeypatch.setattr(Cpu, "mark", lambda device: self.pass_by(step_s))
        monkeypatch.setattr(
            Evaluator, "__call__", lambda *given, **named: (self.pass_by(evaluation_s), evaluate(*given, **named))[1]
        )

    def pass_by(self, seconds: float) -> float:
        """Advance the clock and return its time."""
        self.now += seconds
        return self.now


def test_clock_counts_training_only(bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training's time includes neither evaluations nor progress reports."""
    monkeypatch.setattr(loop, "VALIDATION_SHARE", math.inf)
    monkeypatch.setattr(loop, "EVALUATION_SHARE", math.inf)
    monkeypatch.setattr(loop, "REPORT_S", 0.0)
    monkeypatch.setattr(loop, "BRIEF_LAP_S", 0.0)
    monkeypatch.setattr(loop, "pace", lambda count, image_s, seconds, most: (count, 3))
    clock = Ticking(monkeypatch)
    seen: list[dict[str, float]] = []
    made = bench(progress=lambda **numbers: (clock.pass_by(1000), seen.append(numbers)))
    found = list(measure(made, recipe(steps=6)))
    assert len(named(found, "validation_accuracy")) == 3
    assert named(found, "step_time")[0].values == (1.0,) * 6
    assert value(found, "seconds") == 6.0
    assert [numbers["step"] for numbers in seen] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(number) for numbers in seen for number in numbers.values())


def test_a_report_a_second(bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """With steps of 0.3 seconds each third step is reported, and the last."""
    monkeypatch.setattr(loop, "BRIEF_LAP_S", 0.0)
    monkeypatch.setattr(loop.Training, "_is_due", lambda running: running.progress >= 1)
    clock = Ticking(monkeypatch, step_s=0.3)
    monkeypatch.setattr(loop, "perf_counter", lambda: clock.now)
    seen: list[float] = []
    made = bench(progress=lambda **numbers: seen.append(numbers["step"]))
    list(measure(made, recipe(steps=8, validation_images=0)))
    assert seen == [3, 6, 8]


def test_it_learns(bench: MakeBench, recipe: MakeRecipe) -> None:
    """A training of five epochs classifies stripes with an accuracy above 90 %."""
    found = list(measure(bench(), recipe(epochs=5, lr=0.01)))
    assert value(found, "test_accuracy") > 0.9
    (curve,) = named(found, "loss")
    assert curve.values[-1] < curve.values[0] / 2


def test_an_auxiliary_head_is_not_trained(bench: MakeBench, recipe: MakeRecipe) -> None:
    """A network that returns a named tuple in training is trained and tested by its logits alone."""
    made = bench("with_auxiliary")
    found = list(measure(made, recipe(epochs=5, lr=0.01)))
    assert value(found, "test_accuracy") > 0.9
    state = torch.load(made.run / made.artifacts["weights"], weights_only=True)
    assert torch.equal(state["head.1.weight"], torch.ones(10, 28 * 28))


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adamw", "muon"])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_every_optimizer_lowers_the_loss(
    bench: MakeBench, recipe: MakeRecipe, optimizer: str, memory_format: str
) -> None:
    """Each optimizer lowers the loss, in either memory format."""
    curve = losses(bench(), recipe(steps=30, optimizer=optimizer, memory_format=memory_format))
    assert np.mean(curve[-5:]) < 0.85 * curve[0]


def test_same_seed_gives_the_same_curve(bench: MakeBench, recipe: MakeRecipe) -> None:
    """Two trainings with one seed have bit-equal losses; another seed gives other losses."""
    busy = recipe(steps=14, flip="random", crop=2, cutout=4)
    first, second, other = (losses(bench(seed=seed, dropout=0.5), busy) for seed in (3, 3, 4))
    assert first == second
    assert first != other


def test_evaluation_leaves_no_trace(bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses are bit-equal whether the network is evaluated after every step or only at the end."""
    monkeypatch.setattr(loop, "VALIDATION_SHARE", 0.0)
    seldom = losses(bench(dropout=0.5), recipe(steps=12))
    monkeypatch.setattr(loop, "VALIDATION_SHARE", math.inf)
    monkeypatch.setattr(loop, "EVALUATION_SHARE", math.inf)
    monkeypatch.setattr(loop, "pace", lambda count, image_s, seconds, most: (count, 12))
    found = list(measure(bench(dropout=0.5), recipe(steps=12)))
    assert len(named(found, "validation_accuracy")) == 12
    assert named(found, "loss")[0].values == seldom


def test_warm_up_leaves_no_trace_in_the_curve(
    bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses do not depend on the length of the warm-up."""
    curve = losses(bench(dropout=0.5), recipe())
    monkeypatch.setattr(setup, "WARMUP_STEPS", 5)
    assert losses(bench(dropout=0.5), recipe()) == curve


def test_warm_up_leaves_no_trace_in_the_network(bench: MakeBench, recipe: MakeRecipe) -> None:
    """The warm-up restores weights, statistics, gradients, modes and random numbers."""
    made, settings = bench(dropout=0.5), recipe(optimizer="muon")
    data = setup.Data.load(made, settings)
    network = setup.Network.build(made, settings, data)
    before = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
    state = torch.random.get_rng_state()
    trial = setup.TrialSteps(made, settings, data, network)
    assert len(list(trial.memory(Memory(made.device)))) in (0, 2)
    step_s = trial.warm_up()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.model.state_dict().items())
    assert all(parameter.grad is None for parameter in network.model.parameters())
    assert all(module.training for module in network.model.modules())
    assert torch.equal(state, torch.random.get_rng_state())
    assert trial.evaluator.seconds == 0
    assert min(trial.evaluator.image_s, step_s) > 0


def test_the_memory_of_an_evaluation_holds_no_batch_of_a_step(
    bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the evaluation's peak is reset, no batch of images of the steps before is alive."""
    made, settings = bench(), recipe(batch_size=37)
    data = setup.Data.load(made, settings)
    trial = setup.TrialSteps(made, settings, data, setup.Network.build(made, settings, data))
    shapes: list[set[tuple[int, ...]]] = []

    def living() -> bool:
        tensors = (each for each in gc.get_objects() if type(each) is torch.Tensor)
        shapes.append({tuple(each.shape) for each in tensors})
        return True

    memory = Memory(made.device)
    monkeypatch.setattr(memory, "again", living)
    list(trial.memory(memory))
    batch = 37, *data.train.shape
    assert [batch in alive for alive in shapes[-1:]] == [False]


def test_a_step_leaves_no_tensor_behind(bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of live tensors is the same after the second step and after the last."""
    monkeypatch.setattr(loop, "REPORT_S", 0.0)
    monkeypatch.setattr(loop, "BRIEF_LAP_S", 0.0)
    monkeypatch.setattr(loop, "pace", lambda count, image_s, seconds, most: (count, 1))
    alive: list[int] = []
    made = bench(progress=lambda **_: alive.append(sum(isinstance(o, torch.Tensor) for o in gc.get_objects())))
    list(measure(made, recipe(steps=10, train_accuracy="after_step")))
    assert len(alive) == 10
    assert len(set(alive[1:-1])) == 1


def test_loss_that_is_not_finite_ends_the_training(bench: MakeBench, recipe: MakeRecipe) -> None:
    """The error names the learning rate and the step: a training that ends with this step has the same error."""
    settings = {"optimizer": "sgd", "lr": 1e6, "schedule": "constant", "validation_images": 0}
    with pytest.raises(StageError, match=r"loss became (nan|inf) at step [2-9] \(learning rate 1e\+06\)") as caught:
        list(measure(bench(), recipe(**settings, steps=50)))
    [step] = re.findall(r"at step (\d)", str(caught.value))
    with pytest.raises(StageError, match=f"at step {step} "):
        list(measure(bench(), recipe(**settings, steps=int(step))))


def test_target_stops_early(bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training ends at the evaluation that reaches the target, and the time to target is that of the evaluation."""
    monkeypatch.setattr(loop, "VALIDATION_SHARE", math.inf)
    monkeypatch.setattr(loop, "EVALUATION_SHARE", math.inf)
    monkeypatch.setattr(loop, "pace", lambda count, image_s, seconds, most: (count, most))
    found = list(measure(bench(), recipe(epochs=20, lr=0.01, target_accuracy=0.8)))
    (reached,) = named(found, "time_to_target")
    last = named(found, "validation_accuracy")[-1]
    assert last.values[0] >= 0.8 > named(found, "validation_accuracy")[-2].values[0]
    assert reached.values == (value(found, "seconds"),) == (last.remarks["seconds"],)
    assert reached.tags["target"] == 0.8
    assert 0 < reached.remarks["resolution_s"] < value(found, "seconds")
    assert value(found, "steps") < 20 * 12


def test_target_may_leave_the_training_to_its_budget(
    bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stop_at_target false the training uses up its budget, and the first evaluation at the target counts."""
    monkeypatch.setattr(loop, "VALIDATION_SHARE", math.inf)
    monkeypatch.setattr(loop, "EVALUATION_SHARE", math.inf)
    monkeypatch.setattr(loop, "pace", lambda count, image_s, seconds, most: (count, most))
    found = list(measure(bench(), recipe(epochs=20, lr=0.01, target_accuracy=0.8, stop_at_target=False)))
    (reached,) = named(found, "time_to_target")
    first = next(m for m in named(found, "validation_accuracy") if m.values[0] >= 0.8)
    assert reached.values == (first.remarks["seconds"],)
    assert value(found, "steps") == 20 * 12


def test_target_that_is_not_reached_is_absent(bench: MakeBench, recipe: MakeRecipe) -> None:
    """A target that was not reached has no measurement, and the budget is used up."""
    found = list(measure(bench(), recipe(steps=3, target_accuracy=1.0)))
    assert not named(found, "time_to_target")
    assert value(found, "steps") == 3


def test_without_validation_images_there_is_no_validation(bench: MakeBench, recipe: MakeRecipe) -> None:
    """Without validation images the training uses all images and still measures its training accuracy."""
    found = list(measure(bench(), recipe(epochs=1, steps=None, validation_images=0)))
    assert value(found, "steps") == 500 // 32
    assert not named(found, "validation_accuracy")
    assert sum(m.remarks["n"] for m in named(found, "train_accuracy")) == value(found, "samples")


def test_points_say_where_they_stand(bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last validation is at the last step and counts all validation images."""
    monkeypatch.setattr(
        "cnnperf.training.loop.EVALUATION_SHARE", 1e9
    )  # On a busy machine there is no time for the last one.
    found = list(measure(bench(), recipe(epochs=2)))
    last = named(found, "validation_accuracy")[-1]
    assert last.remarks["step"] == 24
    assert last.remarks["samples"] == 24 * 32
    assert last.remarks["epoch"] == pytest.approx(24 * 32 / 400)
    assert last.remarks["seconds"] == value(found, "seconds")
    assert last.remarks["n"] == 100


def test_confusion_adds_up(bench: MakeBench, recipe: MakeRecipe) -> None:
    """The rows of the confusion matrix are labels, and its diagonal gives the test accuracy."""
    data = bench().dataset
    found = list(measure(bench(data=data), recipe(steps=20)))
    (confusion,) = named(found, "confusion")
    counts = np.reshape(confusion.values, (10, 10))
    assert counts.sum(axis=1).tolist() == np.bincount(data.test_labels, minlength=10).tolist()
    assert counts.trace() / 200 == value(found, "test_accuracy")
    assert named(found, "test_accuracy")[0].remarks == {"n": 200, "images": "all"}


def test_test_images_are_a_named_subset(bench: MakeBench, recipe: MakeRecipe) -> None:
    """A test on a subset records its number of images."""
    found = list(measure(bench(), recipe(test_images=50)))
    assert named(found, "test_accuracy")[0].remarks == {"n": 50, "images": "subset"}
    assert sum(named(found, "confusion")[0].values) == 50


def test_flipped_test_stands_beside_the_plain_one(bench: MakeBench, recipe: MakeRecipe) -> None:
    """The flipped test is measured on the same images if it is asked for, and does not change the plain one."""
    plain = list(measure(bench(), recipe(steps=3, test_images=50)))
    both = list(measure(bench(), recipe(steps=3, test_images=50, test_flip=True)))
    assert not named(plain, "test_accuracy_flip")
    (flipped,) = named(both, "test_accuracy_flip")
    assert flipped.remarks == {"n": 50, "images": "subset"}
    assert value(both, "test_accuracy") == value(plain, "test_accuracy")


def test_weights_can_be_loaded_and_give_the_same_accuracy(bench: MakeBench, recipe: MakeRecipe) -> None:
    """The saved weights are contiguous and give the measured test accuracy."""
    made = bench()
    found = list(measure(made, recipe(steps=20, memory_format="channels_last")))
    assert set(made.artifacts) == set(registry.declared("stages", "train")["LEAVES"])
    state = torch.load(made.run / made.artifacts["weights"], weights_only=True)
    assert all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in state.values())
    from tiny_networks import convolutional

    model = convolutional(1, 10, (28, 28))
    model.load_state_dict(state)
    images = (torch.from_numpy(made.dataset.test_images) / 255 - 0.25) / 0.2
    with torch.inference_mode():
        predictions = model.eval()(images).argmax(1)
    right = (predictions == torch.from_numpy(made.dataset.test_labels)).float().mean()
    assert float(right) == pytest.approx(value(found, "test_accuracy"), abs=0.011)


def test_examples_are_test_images_right_and_wrong(bench: MakeBench, recipe: MakeRecipe) -> None:
    """The examples are 25 right and 25 wrong test images with probabilities, and the classes' names."""
    made = bench()
    list(measure(made, recipe(steps=12)))
    with np.load(made.run / made.artifacts["examples"]) as examples:
        right = examples["label"] == examples["prediction"]
        assert right.sum() == (~right).sum() == 25
        assert examples["image"].dtype == np.uint8
        assert tuple(examples["classes"]) == made.dataset.classes
        assert ((examples["probability"] >= 0.1) & (examples["probability"] <= 1)).all()
        for image, label in zip(examples["image"], examples["label"], strict=True):
            (places,) = np.nonzero((made.dataset.test_images == image).all(axis=(1, 2, 3)))
            assert label in made.dataset.test_labels[places]


SCRIPT = """
import math, sys
from pathlib import Path

import torch

from cnnperf import registry
from cnnperf.datasets import Roots
from cnnperf.devices.cpu import acquire
from cnnperf.bench import Bench
from cnnperf.training import loop
from cnnperf.training.recipe import Recipe
from cnnperf.stages.train import measure
from cnnperf.task import Cell, Choice, Task

torch.set_num_threads(1)
folder = Path(sys.argv[1])
load = registry.find("datasets", "synthetic")

def trained(model, seed, shape, train, test, recipe):
    dataset = load(Roots(cache=folder), None, shape=shape, train=train, test=test)
    cell = Cell(dataset=Choice(name="synthetic"), model=Choice(name=model), device=Choice(name="cpu"))
    task = Task(cell=cell, stage="train", seed=seed, threads=1, timeout_s=60)
    return list(measure(Bench(task, acquire(), dataset, folder, lambda **numbers: None), recipe))

shares, pace = (loop.EVALUATION_SHARE, loop.VALIDATION_SHARE), loop.pace
loop.EVALUATION_SHARE = loop.VALIDATION_SHARE = math.inf
loop.pace = lambda count, image_s, seconds, most: (count, 4)

def memory_of(model, shape, train, test, recipe):
    measured = trained(model, 0, shape, train, test, recipe)
    return {m.metric[6:]: m.values[0] for m in measured if m.metric.endswith(("bytes", "parameters"))}

def lenet(train, steps, batch_size):
    recipe = Recipe(steps=steps, batch_size=batch_size, validation_images=100)
    return memory_of("lenet", (1, 28, 28), train, 200, recipe)

found = memory_of("mlp", (3, 32, 32), 2000, 500, Recipe(steps=8, validation_images=500))
(loop.EVALUATION_SHARE, loop.VALIDATION_SHARE), loop.pace = shares, pace
if sys.argv[2] == "0":
    found["batches"] = lenet(600, 2, 32), lenet(600, 2, 500)
    found["datasets"] = lenet(200, 1, 1), lenet(10_000, 1, 1)
recipe = Recipe(steps=12, batch_size=32, validation_images=100, flip="random", crop=2)
curve = trained("lenet", 5, (1, 28, 28), 300, 50, recipe)
print(found | {"losses": next(m.values for m in curve if m.metric == "train.loss")})
"""


@pytest.fixture(scope="module", params=[2, pytest.param(5, marks=pytest.mark.slow)])
def fresh_processes(
    once: Callable[[str, Callable[[Path], Any]], Any], request: pytest.FixtureRequest
) -> list[dict[str, Any]]:
    """Run the trainings of SCRIPT in two processes, or in five; return the measurements of each.

    The first process also trains on batches and datasets of several sizes.
    """

    def make(folder: Path) -> Any:
        command, env = (sys.executable, "-c", SCRIPT, folder), Launch().variables()
        outputs = [completed(*command, number, env=env, check=True).stdout for number in range(request.param)]
        return [ast.literal_eval(output) for output in outputs]

    made: list[dict[str, Any]] = once(f"{request.param}_fresh_processes", make)
    return made


@pytest.mark.skipif(not acquire().reset_peak(), reason="this system does not permit the peak to be reset")
def test_memory_of_fresh_processes_is_the_same(fresh_processes: list[dict[str, Any]]) -> None:
    """Peaks of fresh processes agree within 10 %, and those of steps lie near the calculated memory."""
    for metric in ("peak_above_start_bytes", "evaluation_peak_above_start_bytes"):
        risen = [each[metric] for each in fresh_processes]
        assert max(risen) <= 1.1 * min(risen), risen
    batch = 128 * 3072 * 4
    for each in fresh_processes:
        # AdamW keeps two numbers a weight, and a step its gradient and its batch; an evaluation no gradient.
        step = 12 * each["parameters"] + batch
        # What else a process frees and takes meanwhile came to -0.17 to +0.25 MB in 14 processes.
        assert 0.95 * step <= each["peak_above_start_bytes"] <= 1.2 * step
        assert each["evaluation_peak_above_start_bytes"] < each["peak_above_start_bytes"]


@pytest.mark.skipif(not acquire().reset_peak(), reason="this system does not permit the peak to be reset")
def test_memory_is_at_least_what_is_certainly_used(fresh_processes: list[dict[str, Any]]) -> None:
    """Larger batches raise the peak, which is at least the memory of data and activations."""
    small, large = fresh_processes[0]["batches"]
    assert small["peak_bytes"] > 600 * 784
    # The input and the first activations of 500 images alone are 500 × (784 + 6·784) floats.
    assert large["peak_above_start_bytes"] > 4 * 500 * 7 * 784
    for metric in ("peak_above_start_bytes", "evaluation_peak_above_start_bytes"):
        assert small[metric] < large[metric]


@pytest.mark.skipif(not acquire().reset_peak(), reason="this system does not permit the peak to be reset")
def test_memory_of_steps_does_not_grow_with_the_dataset(fresh_processes: list[dict[str, Any]]) -> None:
    """The peak above start differs by less than 1 MiB between 200 and 10,000 images."""
    few, many = (found["peak_above_start_bytes"] for found in fresh_processes[0]["datasets"])
    assert abs(many - few) < 2**20, (few, many)


def test_fresh_processes_give_the_same_curve(fresh_processes: list[dict[str, Any]]) -> None:
    """Trainings in fresh processes have bit-equal losses."""
    first, *others = (found["losses"] for found in fresh_processes)
    assert len(first) == 12
    assert others
    assert others == [first] * len(others)


def test_peak_is_that_of_the_whole_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peak before a reset counts for the process, but not for the work after the reset."""
    peaks = iter([900, 700, 700, 550, 650])
    monkeypatch.setattr(Cpu, "peak_bytes", lambda device: {"peak_bytes": next(peaks)})
    monkeypatch.setattr(Cpu, "used_bytes", lambda device: 500)
    monkeypatch.setattr(Cpu, "reset_peak", lambda device: True)
    memory = Memory(Cpu())
    assert memory.begin()
    assert memory.risen() == 200
    assert memory.again()
    assert memory.risen() == 50
    assert value(memory.peaks(), "peak_bytes") == 900


def test_garbage_of_before_is_no_memory_that_the_work_frees(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor in a reference cycle is collected before the peak is reset."""
    alive: list[object] = []
    garbage = torch.ones(1)
    garbage.itself = garbage  # type: ignore[attr-defined]
    left = weakref.ref(garbage)
    del garbage
    monkeypatch.setattr(Cpu, "reset_peak", lambda device: not alive.append(left()))
    assert Memory(Cpu()).begin()
    assert alive == [None]


def test_memory_above_start_is_absent_where_it_cannot_be_reset(
    bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peak above start is absent if the peak cannot be reset or freed memory is not returned."""
    made = bench()
    lacking = {"reset_peak": lambda self: False, "returning_memory": lambda self: nullcontext(False)}
    for name, method in lacking.items():
        with monkeypatch.context() as patch:
            patch.setattr(type(made.device), name, method)
            found = list(measure(made, recipe()))
        assert named(found, "peak_bytes")
        assert not named(found, "peak_above_start_bytes")
        assert not named(found, "evaluation_peak_above_start_bytes")


def test_network_is_trained_in_training_mode_and_evaluated_out_of_it(
    bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network is evaluated in evaluation mode, in batches as large as those of the training."""
    built: list[Any] = []
    create = models.create
    monkeypatch.setattr(models, "create", lambda *choice: built.append(create(*choice)) or built[-1])
    list(measure(bench("Recording"), recipe()))
    assert set(built[0].calls) == {(True, False, 32), (False, True, 32)}
    assert built[0].training


def test_a_device_that_computes_behind_our_back_is_waited_for_seldom(
    bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Laps of many steps give the same losses as single steps."""
    curve = losses(bench(), recipe(steps=30))
    original = loop.Training.__init__

    def patient(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        self._waits = True

    monkeypatch.setattr(loop.Training, "__init__", patient)
    made = bench()
    reads: list[int] = []
    read = loop.Clock.read
    monkeypatch.setattr(loop.Clock, "read", lambda clock: (reads.append(1), read(clock)))
    assert losses(made, recipe(steps=30)) == curve
    assert len(reads) <= MOST_POINTS


def test_recipe_that_the_dataset_does_not_allow_is_refused(bench: MakeBench, recipe: MakeRecipe) -> None:
    """A recipe with more test images than the dataset has is refused."""
    with pytest.raises(UsageError, match="test_images 201 is more than the 200"):
        list(measure(bench(), recipe(test_images=201)))


def test_weights_may_depend_on_the_data(bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's `initialise` gets the network and normalised training images."""
    shown: list[torch.Tensor] = []
    monkeypatch.setattr(models, "initialise_of", lambda choice: lambda model, images: shown.append(images))
    list(measure(bench(), recipe()))
    assert shown[0].shape == (400, 1, 28, 28)
    assert shown[0].mean().abs() < 0.3


def test_validation_leaves_time_for_the_test(
    bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without time for evaluation one validation is still made."""
    monkeypatch.setattr(loop, "VALIDATION_SHARE", math.inf)
    monkeypatch.setattr(loop, "EVALUATION_SHARE", 0.0)
    monkeypatch.setattr(loop, "pace", lambda count, image_s, seconds, most: (count, 12))
    found = list(measure(bench(), recipe(steps=12)))
    assert len(named(found, "validation_accuracy")) == 1
    assert len(named(found, "train_accuracy")) == 12


def test_validations_slower_than_planned_are_made_less_often(
    bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If each validation takes as long as a step, they take 3/16 of the training; the last point is made all the same.

    Points follow each step, and a validation waits until it and those before fit: 1 s of 5.3 s, 2 s of 10.7 s, ...
    """
    monkeypatch.setattr(loop, "EVALUATION_SHARE", math.inf)
    monkeypatch.setattr(loop, "pace", lambda count, image_s, seconds, most: (count, 32))
    clock = Ticking(monkeypatch, evaluation_s=0.0)
    classify = Evaluator._classify

    def classified(evaluator: Evaluator, images: Any, indices: torch.Tensor, *rest: Any) -> Any:
        clock.pass_by(len(indices) / 100)
        return classify(evaluator, images, indices, *rest)

    monkeypatch.setattr(Evaluator, "_classify", classified)
    monkeypatch.setattr("cnnperf.training.evaluate.perf_counter", lambda: clock.now)
    found = list(measure(bench(), recipe(steps=32)))
    assert [m.remarks["step"] for m in named(found, "validation_accuracy")] == [6, 11, 16, 22, 27, 32]


@pytest.mark.parametrize("reading", [{"train_accuracy": "after_step"}, {"test_curve": True}])
def test_one_validation_is_made_beside_other_readings(
    bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, reading: dict[str, Any]
) -> None:
    """Other readings may use up the time for evaluation, but not the first validation and its target."""
    monkeypatch.setattr(loop, "EVALUATION_SHARE", 0.0)
    monkeypatch.setattr(loop, "pace", lambda count, image_s, seconds, most: (count, 1))
    asked = recipe(steps=None, epochs=1, target_accuracy=0.0, **reading)
    found = list(measure(bench(), asked))
    assert len(named(found, "validation_accuracy")) == 1
    assert len(named(found, "time_to_target")) == 1


@pytest.mark.parametrize("slower", [1.0, 1.5])
def test_evaluation_takes_at_most_a_quarter(
    bench: MakeBench,
    dataset: Callable[..., Dataset],
    recipe: MakeRecipe,
    monkeypatch: pytest.MonkeyPatch,
    slower: float,
) -> None:
    """All evaluation stays within its share of the training, also if it is slower than planned.

    The clock is the test's own: a step takes 0.1 s, and an image 0.1 ms, or longer from the fifth second on.
    """
    clock = Ticking(monkeypatch, step_s=0.1, evaluation_s=0.0)
    logits = Evaluator._logits

    def classified(evaluator: Evaluator, images: Any, positions: torch.Tensor, *rest: Any) -> torch.Tensor:
        clock.pass_by(1e-4 * len(positions) * (slower if clock.now > 5.0 else 1.0))
        return logits(evaluator, images, positions, *rest)

    monkeypatch.setattr(Evaluator, "_logits", classified)
    monkeypatch.setattr("cnnperf.training.evaluate.perf_counter", lambda: clock.now)
    data = dataset(train=6000, test=6000)
    found = list(measure(bench(data=data), recipe(seconds=20.0, validation_images=3000)))
    assert value(found, "evaluation_seconds") <= EVALUATION_SHARE * value(found, "seconds")
    assert value(found, "evaluation_seconds") > 0.5 * EVALUATION_SHARE * value(found, "seconds"), "most of it is used"


AS_PUBLISHED = {
    "epochs": 3,
    "steps": None,
    "lr": 0.01,
    "validation_images": 0,
    "normalize_eval": False,
    "train_accuracy": "after_step",
    "test_curve": True,
}


def test_one_training_is_read_as_published_and_as_it_should_be(bench: MakeBench, recipe: MakeRecipe) -> None:
    """Each reading has a point per epoch, and the last of each test curve equals the final test."""
    found = list(measure(bench(), recipe(**AS_PUBLISHED)))
    epoch = 500 // 32
    for metric in ("train_accuracy", "train_accuracy_after_step", "epoch_test_accuracy", "epoch_test_accuracy_raw"):
        assert [m.remarks["step"] for m in named(found, metric)] == [epoch, 2 * epoch, 3 * epoch]
    assert [m.remarks["n"] for m in named(found, "train_accuracy_after_step")] == [3 * 32] * 3
    for suffix in ("", "_raw"):
        assert named(found, f"epoch_test_accuracy{suffix}")[-1].values == (value(found, f"test_accuracy{suffix}"),)
    assert value(found, "test_accuracy_raw") < value(found, "test_accuracy")


def test_reading_after_the_step_sees_what_the_step_taught(
    bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The accuracy after a step equals that before it at a learning rate of 0, and is higher otherwise."""
    monkeypatch.setattr(loop, "AFTER_STEP_EVERY", 1)
    readings = []
    for lr in (0.0, 0.01):
        found = list(measure(bench(), recipe(**AS_PUBLISHED | {"lr": lr})))
        names = ("train_accuracy", "train_accuracy_after_step")
        readings.append([[(m.values[0], m.remarks["n"]) for m in named(found, name)] for name in names])
    assert readings[0][0] == readings[0][1]
    (first, _), (first_after, _) = readings[1][0][0], readings[1][1][0]
    assert first_after > first + 0.05


def test_readings_leave_no_trace_in_the_training(bench: MakeBench, recipe: MakeRecipe) -> None:
    """The losses are bit-equal with and without additional readings."""
    quiet = {"normalize_eval": True, "train_accuracy": "before_step", "test_curve": False}
    read, unread = (losses(bench(dropout=0.5), recipe(**AS_PUBLISHED | s)) for s in ({}, quiet))
    assert read == unread


def test_clock_does_not_count_readings(bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step times do not include a reading after the step."""
    clock = Ticking(monkeypatch)
    again = Evaluator.again
    monkeypatch.setattr(Evaluator, "again", lambda *batch: (clock.pass_by(1000), again(*batch))[1])
    found = list(measure(bench(), recipe(**AS_PUBLISHED)))
    assert named(found, "step_time")[0].values == (1.0,) * 45


def test_test_curve_is_drawn_whatever_it_costs(
    bench: MakeBench, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test curve has every point, though the time for evaluation is used up."""
    monkeypatch.setattr(loop, "VALIDATION_SHARE", 0.0)
    found = list(measure(bench(), recipe(**AS_PUBLISHED, test_images=50)))
    assert [m.remarks["n"] for m in named(found, "epoch_test_accuracy")] == [50] * 3
