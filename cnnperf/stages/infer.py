"""Run a trained network in an engine: parity with torch, latency by batch size, and speed-up over torch."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from cnnperf.bench import Bench
from cnnperf.engines import UNMAPPED, Engine, baseline
from cnnperf.errors import StageError
from cnnperf.inference.inputs import Golden, Inputs, read_values
from cnnperf.inference.metrics import UNCHECKED
from cnnperf.inference.pairs import speedups
from cnnperf.inference.parity import Parity
from cnnperf.inference.settings import NODE_RUNS
from cnnperf.inference.settings import Infer as Infer
from cnnperf.inference.source import import_packages, loaded, source_of
from cnnperf.inference.throughput import Timing
from cnnperf.onnx_file import stored_bytes
from cnnperf.record import Measurement, single
from cnnperf.task import Choice, Scalar

COMMON_BATCH_SIZE = 32
"""Largest batch size for pairs and layers after a batch search, because engines find different best sizes."""


def measure(bench: Bench, settings: Infer) -> Iterator[Measurement]:
    """Load the network into the task's engine, compare its output with torch's, time it alone and in turns with torch.

    Raises EngineError if the engine is not available; raises StageError, after all measurements, if the engine computes
    something else or its paired runs failed.
    """
    choice, base = settings.engine(bench.task.variant), baseline(bench.task.cell.model)
    sizes, fault = yield from _alone(bench, settings, choice)
    faults = [f"{choice}: {fault}"] if fault else []
    if str(choice) != base and settings.pairs:
        try:
            bench.phase("pairs")
            yield from speedups(bench, Choice(name=base), choice, sizes, settings.pairs)
        except StageError as error:
            faults.append(str(error))
    if faults:
        raise StageError("; ".join(faults))


def _alone(
    bench: Bench, settings: Infer, choice: Choice
) -> Generator[Measurement, None, tuple[Sequence[int], str | None]]:
    """Yield an engine's own measurements, and return its batch sizes for pairs and its fault, if any.

    The engine is freed afterwards, so that it takes no memory from the pairs of processes.
    """
    tags: dict[str, Scalar] = {"engine": str(choice)}
    inputs = Inputs.of(bench)
    bench.phase("loading")
    import_packages(choice, bench.task.cell.model)
    source = source_of(bench)
    start = perf_counter()
    engine = loaded(source, choice)
    yield single("infer.load_seconds", "s", perf_counter() - start, "lower", **tags)
    if engine.takes_pixels:
        inputs = replace(inputs, are_pixels=True)
    image = inputs.batch(engine.batch or 1)
    start = perf_counter()
    engine.run(image)
    yield single("infer.first_run_seconds", "s", perf_counter() - start, "lower", **tags)
    facts, has_reference = dict(engine.facts), engine.model is not None or bench.found("golden") is not None
    if not has_reference:
        facts[UNCHECKED] = engine.unchecked or "its output has no reference"
    yield single("infer.threads", "count", int(facts.pop("threads")), None, facts, **tags)
    if engine.file is not None:
        size = stored_bytes(engine.file)
        yield single("infer.file_bytes", "bytes", size, "lower", **tags, artifact=engine.file.stem)
    timing = Timing(bench, settings, engine, inputs, tags)
    yield from timing.measured()
    sizes = _compared(settings, timing)
    fault = (yield from _parity(bench, settings, engine, inputs, timing, tags)) if has_reference else None
    bench.phase("layers")
    # After a search engines share no size for sure but 1.
    for batch_size in sizes if settings.batch_sizes == "auto" else (max(sizes),):
        yield from _layers(bench, choice, engine, inputs, batch_size)
    return sizes, fault


def _parity(
    bench: Bench,
    settings: Infer,
    engine: Engine,
    inputs: Inputs,
    timing: Timing,
    tags: Mapping[str, Scalar],
) -> Generator[Measurement, None, str | None]:
    """Yield the comparison of an engine with the reference, and return its fault, if any."""
    bench.phase("parity")
    left = bench.found("layers")
    layers, golden = read_values(left) if left else {}, _golden(bench, settings, engine, inputs)
    parity = Parity(engine, inputs, golden.first(settings.test_images), layers, settings.max_accuracy_drop)
    sizes = {1, 2, max(timing.images_per_s)} if engine.batch is None else {engine.batch}
    yield from parity.measured(sorted(sizes), **tags)
    return parity.fault


def _compared(settings: Infer, timing: Timing) -> Sequence[int]:
    """Return the batch sizes for pairs: the requested ones, or after a search 1 and this engine's largest up to 32."""
    if settings.batch_sizes != "auto":
        return settings.batch_sizes
    return sorted({1, min(COMMON_BATCH_SIZE, max(timing.images_per_s))})


def _golden(bench: Bench, settings: Infer, engine: Engine, inputs: Inputs) -> Golden:
    """Return torch's outputs: stored by an earlier task, or computed here with the engine's torch module."""
    left: Path | None = bench.found("golden")
    if left:
        return Golden.read(left)
    from cnnperf.inference.golden import golden

    return golden(engine.model, inputs, bench.device.torch_name, settings.test_images)


def _layers(bench: Bench, choice: Choice, engine: Engine, inputs: Inputs, batch_size: int) -> Iterator[Measurement]:
    """Yield the seconds of each layer, if the engine reports them; layers.csv contains them."""
    tags: Mapping[str, Scalar] = {"engine": str(choice), "batch_size": batch_size}
    images = inputs.batch(batch_size)
    if engine.runs_modules:
        from cnnperf.profiling.torch_layers import layer_times

        for layer in layer_times(engine.model, images, bench.device, NODE_RUNS):
            yield _node_time(layer.name, layer.kind, layer.times, **tags)
        return
    times = engine.node_times(images, NODE_RUNS)
    if times is None:
        return
    for group in times.groups:
        name = "+".join(group.layers) or UNMAPPED
        yield _node_time(name, group.operator, group.times, reorder=group.is_reorder, **tags)
    yield single("infer.mapped_share", "fraction", times.mapped, None, **tags)


def _node_time(layer: str, operator: str, times: Sequence[float], **tags: Scalar) -> Measurement:
    return Measurement(
        metric="infer.node_time",
        unit="s",
        better="lower",
        values=tuple(times),
        tags={**tags, "layer": layer, "operator": operator},
    )
