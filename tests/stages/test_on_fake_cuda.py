"""The stages on a simulated asynchronous GPU, which reveals a missing wait or a wrong counter."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from benches import left_by
from fake_cuda import BLOCK, INDEX, FakeCuda, installed
from processes import completed
from torch import Tensor, nn

from cnnperf.bench import Bench
from cnnperf.datasets import Dataset
from cnnperf.devices import cuda
from cnnperf.duet.contest import Contest, Version
from cnnperf.duet.versions import RunningVersions
from cnnperf.engines import torch as torch_engine
from cnnperf.inference.golden import golden
from cnnperf.inference.inputs import Inputs
from cnnperf.inference.source import source_of
from cnnperf.ipc.messages import Bind, Load, Opening
from cnnperf.profiling import passes, probes
from cnnperf.profiling.hooks import Hooks
from cnnperf.profiling.layers import discover
from cnnperf.profiling.memory import AllocatorPeak
from cnnperf.profiling.settings import Profile
from cnnperf.record import Measurement
from cnnperf.roofline import MEMORY_PROBE
from cnnperf.sides import SIDES, Both
from cnnperf.stages import profile
from cnnperf.stages.train import measure as train
from cnnperf.task import Choice
from cnnperf.tf32 import tf32_allowed
from cnnperf.timing import sampling
from cnnperf.timing.sampling import Plan, settle, take
from cnnperf.training import loop
from cnnperf.training.recipe import Recipe
from cnnperf.training.setup import Data, Network, TrialSteps
from cnnperf.workers import paired_engine, subjects
from cnnperf.workers.paired_engine import LoadedEngine

MakeBench = Callable[..., Bench]
MakeRecipe = Callable[..., Recipe]
TRAINING = {"validation_images": 100, "batch_size": 32, "optimizer": "nesterov"}


@pytest.fixture
def gpu() -> Iterator[FakeCuda]:
    """Return a device on which an operator takes ten times as long as its launch."""
    with installed() as found:
        yield found


@pytest.fixture
def on_gpu(gpu: FakeCuda, bench: MakeBench) -> MakeBench:
    """Return a maker of benches on the simulated GPU, acquired as by a worker, before a stage readies torch."""

    def make(model: str = "convolutional", **given: Any) -> Bench:
        made = bench(model, **given)
        device = Choice.model_validate({"name": "cuda", "index": INDEX})
        task = made.task.model_copy(update={"cell": made.task.cell.model_copy(update={"device": device})})
        return replace(made, task=task, device=cuda.acquire(index=INDEX))

    return make


def named(measurements: Iterable[Measurement], metric: str) -> list[Measurement]:
    """Return the measurements of one metric."""
    return [m for m in measurements if m.metric == metric]


def step_s(gpu: FakeCuda, bench: Bench, recipe: Recipe) -> float:
    """Return how long a step keeps the device busy, from its launched operators and without cnnperf's clocks."""
    data = Data.load(bench, recipe)
    network = Network.build(bench, recipe, data)
    step, batches = network.step(recipe, "cpu"), data.batches(recipe, 0)
    for _ in range(2):  # The first draws the epoch, and makes the optimizer's state.
        images = next(batches)
        before = gpu.timeline.launched.total()
        with gpu.running():
            step(*images, 0.0)
    with gpu.running():
        next(batches)
    return (gpu.timeline.launched.total() - before) * gpu.timeline.kernel_s


def test_a_training_takes_the_device_s_time(gpu: FakeCuda, on_gpu: MakeBench, recipe: MakeRecipe) -> None:
    """A step's time is the device's, the sum is the training's, and the host waits less than once a step."""
    made, chosen = on_gpu(), recipe(steps=60, test_images=50)
    busy_s = step_s(gpu, made, chosen)
    waits = gpu.timeline.waits
    with gpu.running():
        found = list(train(made, chosen))
    [steps] = named(found, "train.step_time")
    assert median(steps.values) == pytest.approx(busy_s, rel=1e-3)
    assert min(steps.values) >= 0.99 * busy_s
    [total] = named(found, "train.seconds")
    assert total.values[0] == pytest.approx(sum(steps.values))
    assert sum(steps.values) == pytest.approx(60 * busy_s, rel=0.05)
    assert gpu.timeline.waits - waits < 60 + 20 * 6


def test_a_budget_in_seconds_is_the_device_s_seconds(gpu: FakeCuda, on_gpu: MakeBench, recipe: MakeRecipe) -> None:
    """A budget in seconds counts the device's time, and the training ends within one lap of it."""
    made, chosen = on_gpu(), recipe(steps=None, seconds=1.0, test_images=50)
    busy_s = step_s(gpu, made, chosen)
    with gpu.running():
        found = list(train(made, chosen))
    [steps] = named(found, "train.steps")
    assert 1.0 <= named(found, "train.seconds")[0].values[0] < 1.0 + loop.LAP_S
    assert steps.values[0] == pytest.approx(1.0 / busy_s, rel=0.1)


def test_a_stretch_s_cpu_time_is_of_its_own_steps(gpu: FakeCuda, on_gpu: MakeBench, recipe: MakeRecipe) -> None:
    """The CPU time of each stretch equals its wall time, since the host spins while it waits."""
    with gpu.running():
        found = list(train(on_gpu(), recipe(steps=60, test_images=50)))
    [walls], [cpus] = named(found, "train.stretch"), named(found, "train.stretch_cpu")
    assert len(walls.values) > 1
    assert cpus.values == pytest.approx(walls.values, rel=0.01)


def test_a_warm_up_knows_a_step_and_an_image(gpu: FakeCuda, on_gpu: MakeBench, recipe: MakeRecipe) -> None:
    """The warm-up measures the device's time of a step and of an image, not the time to queue them."""
    made, chosen = on_gpu(), recipe()
    made.device.ready_torch()
    busy_s = step_s(gpu, made, chosen)
    data = Data.load(made, chosen)
    network = Network.build(made, chosen, data)
    with gpu.running():
        trial = TrialSteps(made, chosen, data, network)
        found_s, evaluator = trial.warm_up(), trial.evaluator
        before = gpu.timeline.launched.total()
        evaluator(data.train, data.train_indices[:320])
        launched = gpu.timeline.launched.total() - before
    assert found_s == pytest.approx(busy_s, rel=0.1)
    assert evaluator.image_s * 320 == pytest.approx(launched * gpu.timeline.kernel_s, rel=0.05)


def test_a_sample_waits_for_the_device(gpu: FakeCuda) -> None:
    """A sample's wall time and CPU time are those of the device's work."""
    image = torch.zeros(2)
    with gpu.running():
        found = take(lambda: image + 1, 100, gpu.device.synchronize)
    assert found.wall_s == pytest.approx(100 * gpu.timeline.kernel_s, rel=0.01)
    assert found.cpu_s == pytest.approx(found.wall_s)


@pytest.mark.parametrize("metric", ["train.step", "infer.forward"])
def test_a_duet_times_the_device(
    gpu: FakeCuda, on_gpu: MakeBench, dataset: Callable[..., Dataset], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, metric: str,
) -> None:  # fmt: skip
    """A sample of a duet's subject has the device's time."""
    made = on_gpu(data=dataset(train=400))
    monkeypatch.setattr(subjects, "open_arrays", lambda *_: made.dataset)
    chosen = {"validation_images": 0, "batch_size": 32, "optimizer": "nesterov", "steps": 1}
    task = made.task.model_copy(update={"settings": chosen})
    opening = Opening(task=task.model_dump(mode="json"), metric=metric, folder=tmp_path, store=tmp_path, leads=True)
    with gpu.running():
        subject = subjects.open_subject(opening)
        calls, _ = settle(subject.call, subject.synchronize, Plan(warmup_s=1.0))
        before = gpu.timeline.launched.total()
        found = take(subject.call, calls, subject.synchronize)
        launched = gpu.timeline.launched.total() - before
    assert found.wall_s == pytest.approx(launched * gpu.timeline.kernel_s, rel=0.02)


def test_an_injected_slowdown_is_the_one_that_was_asked_for(
    gpu: FakeCuda, on_gpu: MakeBench, dataset: Callable[..., Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The side that is compared with a slowed one also waits for the device, so that only the slowdown differs."""
    made = on_gpu(data=dataset(train=400))
    monkeypatch.setattr(subjects, "open_arrays", lambda *_: made.dataset)
    monkeypatch.setattr(subjects, "perf_counter", iter(range(10**9)).__next__)
    task = made.task.model_copy(update={"settings": {"validation_images": 0, "batch_size": 32, "steps": 1}})
    versions = RunningVersions(Both(Version(name="this"), Version(name="slowed", slowdown=0.05)), None)  # type: ignore[arg-type]
    contest = Contest("infer.forward", Both(task, task), tmp_path, Both(task.settings, task.settings))
    with gpu.running():
        for side in SIDES:
            subject = subjects.open_subject(
                versions._opening(side, contest, tmp_path, leads=side == "baseline", images=None)
            )
            before = gpu.timeline.waits
            subject.call()
            assert gpu.timeline.waits == before + 1, side


def test_torch_s_engine_waits_for_its_device(gpu: FakeCuda, on_gpu: MakeBench) -> None:
    """A call of torch's engine has the device's time, and the engine records its settings."""
    made = on_gpu()
    engine = torch_engine.load(source_of(made))
    call = engine.bind(Inputs.of(made).batch(8))
    with gpu.running():
        call()
        engine.synchronize()
        before = gpu.timeline.launched.total()
        found = take(call, 10, engine.synchronize)
        launched = gpu.timeline.launched.total() - before
    assert found.wall_s == pytest.approx(launched * gpu.timeline.kernel_s, rel=0.02)
    assert (engine.facts["tf32"], engine.facts["cudnn_benchmark"]) == (False, True)
    assert engine.is_exact


def test_a_pair_of_engines_times_the_latency(
    gpu: FakeCuda, on_gpu: MakeBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paired engine waits for the device after each call, as a latency does, not once a sample."""
    made = on_gpu()
    monkeypatch.setattr(paired_engine, "open_arrays", lambda *_: made.dataset)
    engine = LoadedEngine(None)  # type: ignore[arg-type]
    load = Load(task=made.task, run=made.run, folder=tmp_path, needs=(), engine=Choice(name="torch"))
    with gpu.running():
        engine.verbs[Load](load)
        engine.verbs[Bind](Bind(batch_size=8))
        waits = gpu.timeline.waits
        for _ in range(10):
            engine._call()
    assert gpu.timeline.waits == waits + 10
    assert gpu.timeline.done <= gpu.timeline.now


@pytest.fixture
def _quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SQUARES", "LARGE_SQUARES"):
        monkeypatch.setattr(probes, name, (32,))
    for name in ("CONVOLUTIONS", "LARGE_CONVOLUTIONS"):
        monkeypatch.setattr(probes, name, ((3, 2, 4, 8),))
    monkeypatch.setattr(probes, "COPIES", {MEMORY_PROBE: 2**10})


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_a_profile_s_plain_steps_are_queued_as_a_training_s(
    gpu: FakeCuda, on_gpu: MakeBench, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """The profile waits for laps of plain steps, and the times of the layers sum to that of a step."""
    made = on_gpu()
    settings = Profile.resolve(TRAINING, {"samples": 3, "mode": mode}, {})
    monkeypatch.setattr(profile, "probe", lambda *_: ())
    waits = gpu.timeline.waits
    with gpu.running():
        found = list(profile.measure(made, settings))
    waits = gpu.timeline.waits - waits
    [steps], [cpus] = named(found, "profile.step_seconds"), named(found, "profile.step_seconds_cpu")
    calls = int(steps.remarks["calls"])
    assert calls * steps.values[0] >= passes.LAP_S
    assert waits < 3 * calls
    assert cpus.values == pytest.approx(steps.values, rel=0.01)
    [instrumented] = named(found, "profile.instrumented_step_seconds")
    assert len(steps.values) == len(instrumented.values) == 3
    # The stand-in's hooks launch nothing: steps with them are as long, but for those that the host is too slow for.
    assert instrumented.values == pytest.approx(steps.values, rel=0.02)
    per_layer = [m for m in found if m.metric in ("profile.forward_seconds", "profile.backward_seconds")]
    parts = named(found, "profile.seconds")
    assert all(len(m.values) == 3 for m in (*per_layer, *parts))
    whole = sum(median(m.values) for m in (*per_layer, *parts))
    assert whole == pytest.approx(median(steps.values), rel=0.05)


def test_a_device_without_a_peak_is_profiled_without_one(
    gpu: FakeCuda, on_gpu: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the allocator counts no peak, as Apple's, a profile has no peak and all else."""
    monkeypatch.setattr(cuda.Cuda, "reset_peak", lambda _: False)
    monkeypatch.setattr(cuda.Cuda, "peak_bytes", lambda _: {})
    monkeypatch.setattr(profile, "probe", lambda *_: ())
    made = on_gpu()
    with gpu.running():
        found = {m.metric for m in profile.measure(made, Profile.resolve(TRAINING, {"samples": 2}, {}))}
    assert {metric for metric in found if "peak" in metric} == set()
    assert {"profile.step_seconds", "profile.forward_seconds", "profile.saved_bytes"} <= found


def test_a_lap_is_waited_for_once(gpu: FakeCuda) -> None:
    """The host waits once for a lap of 50 steps, which lasts from its first mark to its last."""
    laps = passes.Laps(gpu.device)
    image = torch.zeros(2)

    def step() -> dict[str, tuple[Any, Any]]:
        start = gpu.device.mark()
        image + 1
        return {"forward": (start, gpu.device.mark())}

    with gpu.running():
        before, waits = sampling.usage(), gpu.timeline.waits
        laps.plain([step() for _ in range(50)], before)
    assert gpu.timeline.waits == waits + 1
    [lap] = laps.plain_samples
    assert lap.wall_s == pytest.approx(50 * gpu.timeline.kernel_s, rel=0.01)


@pytest.mark.usefixtures("_quick_probes")
def test_a_probe_does_not_pay_for_its_launch(gpu: FakeCuda) -> None:
    """A probe's rate counts the device's time, without that of the launch."""
    image = torch.zeros(2)
    probe = probes.Probe("addition", 7.0, lambda: image + 1)
    with gpu.running():
        values = list(probes._values(probe, gpu.device))
    assert len(values) >= probes.LEAST
    assert values == pytest.approx([7.0 / gpu.timeline.kernel_s] * len(values), rel=0.002)


@pytest.mark.usefixtures("_quick_probes")
@pytest.mark.parametrize("allowed", [False, True])
def test_float32_is_probed_in_tf32_apart(monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    """The ceiling has the precision set on the device; a metric of its own has the other precision."""
    seen: list[tuple[bool, bool]] = []
    monkeypatch.setattr(probes, "arithmetic", lambda *_: iter([noting(seen)]))
    with installed(tf32=allowed) as gpu, gpu.running():
        found = list(probes.probe(gpu.device, torch.float32))
        assert tf32_allowed() == (allowed, allowed)
    assert list(dict.fromkeys(seen)) == [(allowed, allowed), (not allowed, not allowed)]
    other = "fp32" if allowed else "tf32"
    ceilings, others = named(found, "profile.probe_flops_per_s"), named(found, f"profile.{other}_probe_flops_per_s")
    assert {m.remarks["precision"] for m in ceilings} == {"tf32" if allowed else "fp32"}
    assert [m.tags["probe"] for m in others] == [m.tags["probe"] for m in ceilings]


def noting(seen: list[Any]) -> probes.Probe:
    """Return a probe that records torch's switches for TF32."""
    return probes.Probe("notes", 1.0, lambda: (seen.append(tf32_allowed()), torch.zeros(1)))


class Noting(nn.Module):
    """Records torch's switches for TF32 when it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(28 * 28, 10)
        self.seen: set[tuple[bool, bool]] = set()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits: N×C×H×W → N×10."""
        self.seen.add(tf32_allowed())
        return self.linear(images.flatten(1))


def test_golden_logits_are_never_computed_in_tf32(bench: MakeBench) -> None:
    """Golden logits are computed without TF32, and the switches are restored."""
    with installed(tf32=True) as gpu:
        model, made = Noting().eval(), replace(bench(), device=gpu.device)
        golden(model, Inputs.of(made), "cpu", 50)
        assert tf32_allowed() == (True, True)
    assert model.seen == {(False, False)}


def test_what_computes_in_tf32_is_not_held_to_float32(bench: MakeBench) -> None:
    """An engine in TF32 is not exact, so it answers for its accuracy instead."""
    with installed(tf32=True) as gpu:
        engine = torch_engine.load(source_of(replace(bench(), device=gpu.device)))
    assert not engine.is_exact
    assert engine.facts["tf32"] is True


def test_a_peak_is_of_tensors_and_not_of_what_is_reserved(gpu: FakeCuda) -> None:
    """The peak is that of two live activations, in the layer that makes the second, not of reserved blocks."""
    model = nn.Sequential(nn.Flatten(), nn.Sigmoid(), nn.Tanh())
    with gpu.running(), torch.inference_mode():
        images = torch.zeros(100, 1000)
        structure = discover(model, lambda: model(images))
        peak = AllocatorPeak(gpu.device)
        with Hooks(structure, peak):
            model(images)
        peak.look()
    assert (peak.bytes, peak.layer) == (2 * images.nbytes, "2")
    assert gpu.timeline.reserved >= BLOCK > peak.bytes


def test_a_training_s_peak_is_of_tensors(gpu: FakeCuda, on_gpu: MakeBench, recipe: MakeRecipe) -> None:
    """A training's peak counts tensors, and the reserved peak is larger, in whole blocks."""
    with gpu.running():
        found = {m.metric: m.values[-1] for m in train(on_gpu("wide"), recipe(steps=4, test_images=50))}
    activation = 32 * 48 * 28 * 28 * 4
    assert 2 * activation < found["train.peak_bytes"] < 8 * activation
    assert found["train.peak_reserved_bytes"] > found["train.peak_bytes"]
    assert found["train.peak_reserved_bytes"] % BLOCK == 0


def test_a_profile_in_fp16_scales_its_gradients_as_training_does(gpu: FakeCuda, on_gpu: MakeBench) -> None:
    """A profile in fp16 launches the same operators for gradient scaling as a training."""
    recipe = Profile.resolve({**TRAINING, "precision": "fp16"}, {}, {}).recipe(32)
    made = on_gpu("dense")
    data = Data.load(made, recipe)
    model = Network.build(made, recipe, data).model
    step = profile.STEP_KINDS["train"](model, data.batches(recipe, 0), recipe, gpu.device)
    with gpu.running() as timeline:
        step()
        of_profile = {name for name in timeline.launched if "amp" in name or "scale" in name}
        timeline.launched.clear()
        training = Network.build(made, recipe, data).step(recipe, "cpu")
        training(*next(data.batches(recipe, 0)), 0.0)
        of_training = {name for name in timeline.launched if "amp" in name or "scale" in name}
    assert of_profile == of_training
    assert "_amp_update_scale_" in of_profile


LACKS_TORCH = """
import pickle
import sys
from pathlib import Path

from cnnperf import devices, registry
from cnnperf.datasets import open_arrays
from cnnperf.devices import cuda
from cnnperf.devices._driver import VisibleGpu
from cnnperf.engines import onnxruntime as engine
from cnnperf.record import Record
from cnnperf.bench import Bench
from cnnperf.stages.infer import Infer, measure
from cnnperf.task import Task

cuda.gpus = lambda: (VisibleGpu("Imaginary 100", "00000000-0000-0000-0000-000000000000", (8, 0)),)
cuda.held_bytes = lambda identity: 123
engine.PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CPUExecutionProvider"}
engine.provider_options = lambda device: {}
opened = engine.Session._open


def open_on_cpu(session, options, file=None):
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "0")
    return opened(session, options, file)


engine.Session._open = open_on_cpu
run, record, dataset = sys.argv[1:]
record = Record.model_validate_json(Path(record).read_text())
task = Task.model_validate({**record.task.model_dump(), "stage": "infer", "variant": {"engine": "onnxruntime"}})
device = registry.find("devices", "cuda")()
dataset = pickle.loads(Path(dataset).read_bytes())
bench = Bench(task, device, dataset, Path(run), lambda **_: None, {}, {"export": record})
settings = Infer(engines=("onnxruntime",), batch_sizes="auto", samples=11, seconds=0.0, pairs=0, test_images=50)
import cnnperf.inference.throughput as throughput
throughput.LARGEST = 4
for found in measure(bench, settings):
    if "peak" in found.metric:
        print(found.metric, *found.values)
print("torch" in sys.modules)
"""


def test_onnxruntime_on_cuda_needs_no_torch(bench: MakeBench, trained: Callable[..., Any], tmp_path: Path) -> None:
    """ONNX Runtime on CUDA does not import torch, and its memory is NVML's figure under its own name."""
    from cnnperf.inference.exporting import Export
    from cnnperf.stages.export import measure as export

    pytest.importorskip("onnx")
    made = bench()
    list(export(made, Export(test_images=50)))
    record = trained().model_copy(update={"task": made.task, "artifacts": left_by(made)})
    (tmp_path / "record.json").write_text(record.model_dump_json(by_alias=True))
    (tmp_path / "dataset").write_bytes(pickle.dumps(made.dataset))
    arguments = [str(made.run), str(tmp_path / "record.json"), str(tmp_path / "dataset")]
    done = completed(sys.executable, "-c", LACKS_TORCH, *arguments)
    assert done.stdout.splitlines() == ["infer.peak_held_bytes 123.0", "False"], done.stderr
