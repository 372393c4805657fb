"""Profile of one network at one batch size, in separate passes that do not disturb each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from statistics import fmean

import torch
from torch import nn

from cnnperf.bench import Bench
from cnnperf.devices import Device
from cnnperf.errors import StageError
from cnnperf.machine.disturbance import Disturbance, read_counters
from cnnperf.profiling.arithmetic import Arithmetic, Work
from cnnperf.profiling.hooks import Hooks
from cnnperf.profiling.layer_time import Direction, LayerTimer
from cnnperf.profiling.layers import Structure, discover, removed
from cnnperf.profiling.memory import AllocatorPeak, Owners, SavedTensors
from cnnperf.profiling.rows import DATA, OPTIMIZER, trace_name
from cnnperf.profiling.settings import Profile
from cnnperf.profiling.step import BACKWARD, FORWARD, Marks, ProfiledStep
from cnnperf.profiling.trace import allocation_peak, write_trace
from cnnperf.record import Measurement, single
from cnnperf.task import Scalar
from cnnperf.timing import sampling

LAP_S = 0.1
"""Length of a lap on an asynchronous device: long compared with its start, when the queue is still empty."""

STEP_WARMUP_S = 10.0
"""Maximum warm-up time; then steps count even if not steady."""

WARMUP_STEPS = 20
"""Maximum number of warm-up steps, so that the warm-up takes no longer than the profile."""


class Profiling:
    """One network at one batch size, in passes that do not disturb each other."""

    def __init__(
        self, bench: Bench, settings: Profile, model: nn.Module, step: ProfiledStep, tags: Mapping[str, Scalar]
    ) -> None:
        self._bench = bench
        self._device = bench.device
        self._settings = settings
        self._model = model
        self._step = step
        self._tags = tags
        self._structure = Structure((), ())

    def run(self) -> Iterator[Measurement]:
        """Yield all measurements; times come first, so that the other passes do not disturb them."""
        self._bench.phase("layers")
        self._structure = discover(self._model, self._step)
        if not self._structure.layers:
            raise StageError("no module of the network was called; there is nothing to profile")
        yield from self._layers()
        self._bench.phase("times")
        yield from self._times()
        self._bench.phase("arithmetic")
        yield from self._work()
        self._bench.phase("memory")
        yield from self._held()
        yield from self._peaks()

    def _layers(self) -> Iterator[Measurement]:
        for order, layer in enumerate(chain(self._structure.layers, self._structure.never_called)):
            described: dict[str, Scalar] = {
                "order": order,
                "type": layer.kind,
                "inputs": layer.inputs,
                "outputs": layer.outputs,
                "dtype": layer.dtype,
            }
            yield self._of("calls", "count", layer.calls, layer.name, described)
            if layer.calls:
                yield self._of("output_bytes", "bytes", layer.output_bytes, layer.name)

    def _times(self) -> Iterator[Measurement]:
        """Take laps of steps with and without hooks in turn, so that the overhead of the hooks is measured.

        A lap is one step on the CPU. Other devices are synchronised only at the end of a lap, as in training.
        """
        steps, warmup = self._warm_up()
        laps, machine = Laps(self._device), read_counters()
        for number in range(1, self._settings.samples + 1):
            before = sampling.usage()
            laps.plain([self._step() for _ in range(steps)], before)
            laps.instrumented([self._instrumented() for _ in range(steps)])
            self._bench.progress(step=number, progress=number / self._settings.samples)
        disturbance = Disturbance.since(machine)
        taken = sampling.Samples(steps, tuple(laps.plain_samples), tuple(warmup.samples), warmup.steady, disturbance)
        yield from taken.measurements("profile.step_seconds", **self._tags)
        yield self._series("instrumented_step_seconds", "s", laps.instrumented_steps)
        for direction, of_layer in laps.layers.items():
            for layer, seconds in of_layer.items():
                yield self._series(f"{direction}_seconds", "s", seconds, layer=layer)
        for part, seconds in laps.parts.items():
            yield self._series("seconds", "s", seconds, layer=part)

    def _instrumented(self) -> tuple[Marks, LayerTimer]:
        timer = LayerTimer(self._device)
        with Hooks(self._structure, timer) as hooks:
            return self._step(hooks), timer

    def _warm_up(self) -> tuple[int, sampling.Warmup]:
        """Take warm-up steps until they are steady or the limit is reached; also return the number of steps per lap."""
        synchronize = self._device.synchronize
        if self._device.is_asynchronous:
            return sampling.settle(self._step, synchronize, sampling.Plan(sample_s=LAP_S, warmup_s=STEP_WARMUP_S))
        warmup = sampling.Warmup(most_s=STEP_WARMUP_S)
        while not (warmup.steady or warmup.exhausted or len(warmup.samples) == WARMUP_STEPS):
            warmup.samples.append(sampling.take(self._step, 1, synchronize))
        return 1, warmup

    def _work(self) -> Iterator[Measurement]:
        arithmetic = Arithmetic()
        with Hooks(self._structure, arithmetic) as hooks:
            self._step(hooks, arithmetic.counting())
        for direction, of_layer in ((FORWARD, arithmetic.forward), (BACKWARD, arithmetic.backward)):
            for layer, work in of_layer.items():
                yield from self._work_of(direction, layer, work)

    def _work_of(self, direction: str, layer: str, work: Work) -> Iterator[Measurement]:
        if work.flops is not None:
            # Torch's formulas count a multiply-accumulate as two.
            tags = {"layer": layer, **self._tags}
            yield single(f"profile.{direction}_macs", "count", work.flops // 2, "lower", **tags)
        uncounted = {"uncounted": ", ".join(sorted(work.uncounted))} if work.uncounted else {}
        yield self._of(f"{direction}_moved_bytes", "bytes", work.moved_bytes, layer, uncounted)

    def _held(self) -> Iterator[Measurement]:
        owners = Owners(self._model, self._structure)
        for layer, parameters in owners.parameters.items():
            yield self._of("parameter_bytes", "bytes", sum(p.nbytes for p in parameters), layer)
        if self._settings.mode == "infer":
            return
        saved, gradients = SavedTensors(self._model), dict[str, int]()
        update = self._step.optimizers[0].register_step_pre_hook(lambda *_: gradients.update(owners.gradient_bytes()))
        with removed([update]), Hooks(self._structure, saved) as hooks:
            self._step(hooks, saved.recording())
        state = owners.state_bytes(self._step.optimizers)
        for kind, of_layer in (("gradient", gradients), ("optimizer_state", state), ("saved", saved.bytes)):
            for layer, size in of_layer.items():
                yield self._of(f"{kind}_bytes", "bytes", size, layer)

    def _peaks(self) -> Iterator[Measurement]:
        """Write the trace, and yield the peak of the step's memory above its start, with its place, if it is known."""
        device, batch_size = self._device, self._tags["batch_size"]
        self._bench.phase("trace")
        path = self._bench.artifact(f"trace_{batch_size}", trace_name(batch_size))
        cuda = torch.device(device.torch_name).type == "cuda"
        names = write_trace(path, self._step, self._structure, steps=self._settings.trace_steps, cuda=cuda)
        if not device.is_asynchronous:
            peak, layer = allocation_peak(path, names)
        elif not device.reset_peak():
            return
        else:
            allocator = AllocatorPeak(device)
            with Hooks(self._structure, allocator) as hooks:
                self._step(hooks)
            allocator.look()
            peak, layer = allocator.bytes, allocator.layer
        yield single("profile.peak_above_start_bytes", "bytes", peak, "lower", {"at": layer}, **self._tags)

    def _of(
        self, quantity: str, unit: str, value: float, layer: str, remarks: Mapping[str, Scalar] = {}
    ) -> Measurement:
        return single(f"profile.{quantity}", unit, value, None, remarks, layer=layer, **self._tags)

    def _series(
        self, quantity: str, unit: str, values: Sequence[float], better: str | None = None, **tags: Scalar
    ) -> Measurement:
        return Measurement.model_validate(
            {
                "metric": f"profile.{quantity}",
                "unit": unit,
                "better": better,
                "values": tuple(round(value, 9) for value in values),
                "tags": {**tags, **self._tags},
            }
        )


class Laps:
    """The timed laps of steps; for a layer, the mean over the steps in which it was called."""

    def __init__(self, device: Device) -> None:
        self.plain_samples: list[sampling.Sample] = []
        """Seconds of steps without hooks."""
        self.instrumented_steps: list[float] = []
        self.layers: dict[str, dict[str, list[float]]] = {FORWARD: defaultdict(list), BACKWARD: defaultdict(list)}
        self.parts: dict[str, list[float]] = defaultdict(list)
        self._device = device

    def plain(self, lap: Sequence[Marks], before: sampling.Usage) -> None:
        """Record a lap without hooks and the usage before it; waits for the device."""
        self._device.synchronize()
        self.plain_samples.append(sampling.usage().since(before, self._elapsed_s(lap[0], lap[-1])))
        for part in (DATA, OPTIMIZER):
            if part in lap[0]:
                self.parts[part].append(fmean(self._device.elapsed_s(*marks[part]) for marks in lap))

    def instrumented(self, lap: Sequence[tuple[Marks, LayerTimer]]) -> None:
        """Record a lap with hooks; waits for the device."""
        self._device.synchronize()
        self.instrumented_steps.append(fmean(self._elapsed_s(marks, marks) for marks, _ in lap))
        found: dict[tuple[Direction, str], list[float]] = defaultdict(list)
        for marks, timer in lap:
            spent = {part: self._device.elapsed_s(*marks[part]) for part in (FORWARD, BACKWARD) if part in marks}
            for direction, of_layer in timer.read(spent[FORWARD], spent.get(BACKWARD)).items():
                for layer, seconds in of_layer.items():
                    found[direction, layer].append(seconds)
        for (direction, layer), of_steps in found.items():
            self.layers[direction][layer].append(fmean(of_steps))

    def _elapsed_s(self, first: Marks, last: Marks) -> float:
        """Return the seconds from the beginning of one step to the end of the same or another."""
        (start, _), *_ = first.values()
        *_, (_, end) = last.values()
        return self._device.elapsed_s(start, end)
