"""Stages, engines and duets on a real GPU: the last of several, which is not torch's default."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import torch
from benches import left_by
from fake_cuda import numerics_kept
from processes import completed

from cnnperf.bench import Bench
from cnnperf.devices import cuda
from cnnperf.engines import onnxruntime as runtime_engine
from cnnperf.engines import torch as torch_engine
from cnnperf.errors import EngineError
from cnnperf.inference.exporting import Export
from cnnperf.inference.inputs import Inputs
from cnnperf.inference.source import source_of
from cnnperf.ipc.messages import Opening
from cnnperf.profiling.settings import Profile
from cnnperf.record import Measurement, Record
from cnnperf.stages import profile
from cnnperf.stages.export import measure as export
from cnnperf.stages.infer import Infer
from cnnperf.stages.infer import measure as infer
from cnnperf.stages.train import measure as train
from cnnperf.task import Choice
from cnnperf.timing.sampling import Plan, settle, take
from cnnperf.training.recipe import Recipe
from cnnperf.workers import subjects

pytestmark = pytest.mark.cuda
Make = Callable[..., Bench]
TRAINING = {"validation_images": 100, "batch_size": 32, "optimizer": "nesterov"}
QUICK = Infer(engines=("torch", "onnxruntime"), batch_sizes=(1, 32), samples=11, seconds=0.0, pairs=0, test_images=50)


@pytest.fixture
def on_cuda(bench: Make) -> Iterator[Make]:
    """Return a maker of benches on the GPU."""
    index = torch.cuda.device_count() - 1

    def make(model: str = "convolutional", **options: Any) -> Bench:
        made = bench(model)
        device = Choice.model_validate({"name": "cuda", "index": index, **options})
        task = made.task.model_copy(update={"cell": made.task.cell.model_copy(update={"device": device})})
        return replace(made, task=task, device=cuda.acquire(index=index, **options))

    with numerics_kept():
        yield make


@pytest.fixture
def exported(on_cuda: Make, trained: Callable[..., Record]) -> Make:
    """Return a maker of benches of the infer stage, after the export of a network."""

    def make(engine: str, **options: Any) -> Bench:
        first = on_cuda(**options)
        list(export(first, Export(test_images=50)))
        record = trained().model_copy(update={"task": first.task, "artifacts": left_by(first)})
        task = first.task.model_copy(update={"stage": "infer", "variant": {"engine": engine}})
        return replace(first, task=task, artifacts={}, needs={"export": record})

    return make


def named(measurements: Iterable[Measurement], metric: str) -> list[Measurement]:
    """Return the measurements of one metric."""
    return [m for m in measurements if m.metric == metric]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_training_learns_and_its_steps_are_its_seconds(on_cuda: Make, precision: str) -> None:
    """Step times sum to the training's seconds, which are less than the host's; accuracy and memory are measured."""
    begun = perf_counter()
    chosen = Recipe.resolve({}, {"batch_size": 32, "validation_images": 100, "epochs": 5}, {"precision": precision})
    found = list(train(on_cuda(), chosen))
    host_s = perf_counter() - begun
    [steps], [seconds] = named(found, "train.step_time"), named(found, "train.seconds")
    assert min(steps.values) > 0
    assert sum(steps.values) == pytest.approx(seconds.values[0])
    assert seconds.values[0] < host_s
    assert named(found, "train.test_accuracy")[0].values[0] > 0.8
    assert 0 < named(found, "train.peak_bytes")[0].values[0] <= named(found, "train.peak_reserved_bytes")[0].values[0]


def test_deterministic_trainings_are_alike_to_the_bit(on_cuda: Make) -> None:
    """Two deterministic trainings with one seed have bit-equal losses."""
    chosen = Recipe.resolve({}, {"batch_size": 32, "validation_images": 100, "steps": 20}, {})
    one, other = (named(train(on_cuda(deterministic=True), chosen), "train.loss")[0].values for _ in range(2))
    assert one == other


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_a_profile_s_layers_add_up(on_cuda: Make, mode: str) -> None:
    """The layers' times sum to more than half a plain step and less than 1.1 of an instrumented one."""
    found = list(profile.measure(on_cuda(), Profile.resolve(TRAINING, {"samples": 3, "mode": mode}, {})))
    [plain], [hooked] = (named(found, f"profile.{kind}step_seconds") for kind in ("", "instrumented_"))
    assert plain.remarks["calls"] > 1
    kinds = ("profile.forward_seconds", "profile.backward_seconds", "profile.seconds")
    parts = sum(median(m.values) for m in found if m.metric in kinds)
    assert 0.5 * median(plain.values) < parts < 1.1 * median(hooked.values)
    assert named(found, "profile.peak_above_start_bytes")[0].values[0] > 0


def test_probes_in_tf32_are_faster_than_in_float32(on_cuda: Make) -> None:
    """Probes in TF32 are more than 1.5 times as fast as in float32, where the GPU has TF32."""
    made = on_cuda()
    if not made.device.has_tf32:
        pytest.skip("this GPU has no TF32")
    found = list(profile.measure(made, Profile.resolve(TRAINING, {"samples": 1}, {})))
    best = {
        kind: max(max(m.values) for m in named(found, f"profile.{kind}probe_flops_per_s")) for kind in ("", "tf32_")
    }
    assert best["tf32_"] > 1.5 * best[""]


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
@pytest.mark.parametrize("allowed", [False, True])
def test_an_engine_computes_what_torch_computes(exported: Make, engine: str, allowed: bool) -> None:
    """An engine agrees with torch in float32 and in TF32, and records whether TF32 is allowed."""
    if allowed and not cuda.acquire().has_tf32:
        pytest.skip("this GPU has no TF32")
    try:
        found = list(infer(exported(engine, tf32=allowed), QUICK))
    except EngineError as error:
        pytest.skip(str(error))
    [facts] = named(found, "infer.threads")
    assert facts.remarks["tf32"] is allowed
    assert named(found, "infer.top1_agreement")[0].values[0] > 0.95
    assert bool(named(found, "infer.peak_bytes")) == (engine == "torch")


def test_engines_wait_for_the_gpu(exported: Make) -> None:
    """A hundred calls take about ten times as long as ten, by the host's clock."""
    made = exported("torch")
    images = Inputs.of(made).batch(256)
    for load in (torch_engine.load, runtime_engine.load):
        try:
            engine = load(source_of(made))
        except EngineError as error:
            pytest.skip(str(error))
        call = engine.bind(images)
        settle(call, engine.synchronize, Plan(warmup_s=2.0))
        one, ten = (min(take(call, calls, engine.synchronize).wall_s for _ in range(20)) for calls in (10, 100))
        assert ten == pytest.approx(10 * one, rel=0.3)
        assert np.isfinite(engine.run(images)).all()


@pytest.mark.parametrize("metric", ["train.step", "infer.forward"])
def test_a_duet_s_subject_runs(on_cuda: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str) -> None:
    """The subject of a duet runs on the cell's device and is timed."""
    made = on_cuda()
    monkeypatch.setattr(subjects, "open_arrays", lambda *_: made.dataset)
    chosen = {"validation_images": 0, "batch_size": 32, "optimizer": "nesterov", "steps": 1}
    task = made.task.model_copy(update={"settings": chosen}).model_dump(mode="json")
    subject = subjects.open_subject(Opening(task=task, metric=metric, folder=tmp_path, store=tmp_path, leads=True))
    calls, warmup = settle(subject.call, subject.synchronize, Plan(warmup_s=2.0))
    assert calls >= 1
    assert all(sample.wall_s > 0 for sample in warmup.samples)
    subject.check()


WORKER = """
import sys
from cnnperf.devices import cuda
from cnnperf.engines import EngineSource, onnxruntime
from cnnperf.task import Choice
from pathlib import Path
import numpy as np
device = cuda.acquire()
source = EngineSource(model=Choice(name="x"), shape=(1, 28, 28), num_classes=10, seed=0, weights=None,
                      onnx=Path(sys.argv[1]), calibration=lambda count: None, folder=Path(), device=device, threads=1)
engine = onnxruntime.load(source)
engine.run(np.zeros((4, 1, 28, 28), np.float32))
print("torch" in sys.modules, device.peak_bytes())
"""


def test_onnxruntime_finds_cuda_s_libraries_without_torch(exported: Make) -> None:
    """ONNX Runtime runs on CUDA in a process that does not import torch."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this build of onnxruntime has no CUDA")
    file = exported("onnxruntime").found("onnx")
    done = completed(sys.executable, "-c", WORKER, file)
    assert done.stdout.strip() == "False {}", done.stderr
