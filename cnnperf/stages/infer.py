"""Run a trained network in an engine: is it the same, how fast at which batch size, and how much faster than torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from cnnperf import registry
from cnnperf.engines import Engine
from cnnperf.errors import StageError
from cnnperf.record import Measurement
from cnnperf.sampling import Plan, sample
from cnnperf.stages import Bench, Settings
from cnnperf.stages._pairs import speedups
from cnnperf.stages._parity import Parity
from cnnperf.stages._samples import Golden, Inputs
from cnnperf.stages._single import single
from cnnperf.stages._source import source_of
from cnnperf.task import Scalar

BASELINE = "torch"
"""The engine that the others are compared with."""
RISE = 1.03
"""A batch twice as large must raise the throughput by this, or `auto` ends."""
LARGEST = 4096
"""Of the batch sizes that `auto` tries."""
NODE_RUNS = 20
"""Runs under the profiler."""

Size = Annotated[int, Field(ge=1, le=2**16)]
FromArray = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""TOML and JSON have arrays, settings have tuples."""


class Infer(Settings):
    """Which engines are timed, on which batches: the `[infer]` section."""

    reads: ClassVar[tuple[str, ...]] = ("train",)

    engines: Annotated[tuple[str, ...], FromArray] = Field(
        default=("torch", "onnxruntime"), min_length=1, description="Engines; cnnperf list engines."
    )
    batch_sizes: Annotated[Literal["auto"] | Annotated[tuple[Size, ...], Field(min_length=1)], FromArray] = Field(
        default=(1, 32), description="Images in a batch; auto doubles from 1 until the throughput stops rising by 3 %."
    )
    samples: int = Field(default=64, ge=11, description="Least calls timed; 64 support a p90, 662 a p99.")
    seconds: float = Field(default=1.0, ge=0, allow_inf_nan=False, description="Least seconds of timed calls.")
    pairs: int = Field(
        default=6, ge=0, le=100, description="Fresh pairs of processes that take turns with torch; 0: no speed-up."
    )
    max_accuracy_drop: float = Field(
        default=0.02, ge=0, le=1, description="How much less accurate than torch an engine may be and still be ranked."
    )

    @model_validator(mode="after")
    def _known_engines(self) -> Infer:
        known = registry.names("engines")
        for engine in self.engines:
            if engine not in known:
                raise ValueError(registry.unknown("engine", engine, known))
        for name in ("engines", "batch_sizes"):
            given = getattr(self, name)
            if given != "auto" and len(set(given)) < len(given):
                raise ValueError(f"{name} names one twice; remove it")
        return self

    def variants(self, device: str) -> tuple[dict[str, Scalar], ...]:
        """Return a task for each engine."""
        return tuple({"engine": engine} for engine in self.engines)

    def needed(self, variant: Mapping[str, Scalar]) -> tuple[str, ...]:
        """Return what the engine's own file names."""
        needs: tuple[str, ...] = registry.module("engines", str(variant["engine"])).NEEDS
        return needs

    def quick(self) -> Infer:
        """Return the settings with fewer samples and no pairs."""
        return self.model_copy(update={"samples": 11, "seconds": 0.1, "pairs": 0})

    def estimate_s(self) -> float:
        """Return about what an engine takes, its pairs of processes included."""
        sizes = 8 if self.batch_sizes == "auto" else len(self.batch_sizes)
        return 5 + sizes * (2 + self.seconds) + self.pairs * (6 + 2 * sizes)


def measure(bench: Bench, settings: Infer) -> Iterator[Measurement]:
    """Load the network into the task's engine, hold it to torch, time it alone, then in turns with torch.

    Raises EngineError where the engine is not there, StageError, after all is measured, for an engine that computes
    something else.
    """
    name = str(bench.task.variant["engine"])
    tags: dict[str, Scalar] = {"engine": name}
    inputs, source = Inputs.of(bench), source_of(bench)
    start = perf_counter()
    engine: Engine = registry.find("engines", name)(source)
    yield single("infer.load_seconds", "s", perf_counter() - start, "lower", **tags)
    start = perf_counter()
    engine.run(inputs.batch(1))
    yield single("infer.first_run_seconds", "s", perf_counter() - start, "lower", **tags)
    yield single("infer.threads", "count", int(engine.facts["threads"]), None, **tags, **_apart(engine.facts))
    if engine.file is not None:
        yield single(
            "infer.file_bytes", "bytes", engine.file.stat().st_size, "lower", **tags, artifact=engine.file.stem
        )

    yield from _timed(bench, settings, engine, inputs, tags)
    sizes = _sizes(bench, settings)
    parity = Parity(engine, inputs, _golden(bench, engine, inputs), settings.max_accuracy_drop)
    yield from parity.measured(sorted({1, 2, max(sizes)}), **tags)
    for kind, peak in bench.device.peak_bytes().items():
        yield single(f"infer.{kind}", "bytes", peak, None, **tags)
    yield from _layers(engine, inputs, max(sizes), tags)
    del engine
    if name != BASELINE and settings.pairs:
        yield from speedups(bench, BASELINE, name, sizes, settings.pairs)
    if parity.fault:
        raise StageError(f"{name}: {parity.fault}")


def _timed(
    bench: Bench, settings: Infer, engine: Engine, inputs: Inputs, tags: Mapping[str, Scalar]
) -> Iterator[Measurement]:
    plan = Plan(samples=settings.samples, seconds=settings.seconds, sample_s=0.0, warmup_s=10.0)
    before = 0.0
    for batch_size in _ladder(settings):
        on: dict[str, Scalar] = {**tags, "batch_size": batch_size}
        try:
            samples = sample(engine.bind(inputs.batch(batch_size)), engine.synchronize, plan)
        except Exception as error:
            if settings.batch_sizes != "auto" or batch_size == 1 or not _starved(error):
                raise
            yield single("infer.largest_batch_size", "count", batch_size // 2, None, **tags, bound="memory")
            return
        bench.progress(batch_size=batch_size, ms=1e3 * samples.call_s[-1])
        yield from samples.measurements("infer.latency", **on)
        bench_speed = batch_size / (sum(samples.call_s) / len(samples.call_s))
        if settings.batch_sizes == "auto" and bench_speed < RISE * before:
            yield single("infer.largest_batch_size", "count", batch_size, None, **tags, bound="throughput")
            return
        before = bench_speed


def _ladder(settings: Infer) -> Iterator[int]:
    if settings.batch_sizes != "auto":
        yield from settings.batch_sizes
        return
    size = 1
    while size <= LARGEST:
        yield size
        size *= 2


def _sizes(bench: Bench, settings: Infer) -> tuple[int, ...]:
    """Return the batch sizes for parity and pairs: those asked for; of `auto` the two that every engine knows."""
    return (1, 32) if settings.batch_sizes == "auto" else settings.batch_sizes


def _golden(bench: Bench, engine: Engine, inputs: Inputs) -> Golden:
    """Return what torch computes: as the export left it, or, in an engine that is torch, computed here."""
    left: Path | None = bench.found("golden")
    if left:
        return Golden.read(left)
    from cnnperf.stages._golden import golden

    return golden(engine.model, inputs, bench.device.torch_name)  # type: ignore[attr-defined]


def _layers(engine: Engine, inputs: Inputs, batch_size: int, tags: Mapping[str, Scalar]) -> Iterator[Measurement]:
    times = engine.node_times(inputs.batch(batch_size), NODE_RUNS)
    if times is None:
        return
    for group in times.groups:
        yield Measurement(
            metric="infer.node_time",
            unit="s",
            better="lower",
            values=tuple(group.times),
            tags={
                **tags,
                "batch_size": batch_size,
                "layer": "+".join(group.layers) or "(unmapped)",
                "operator": group.operator,
                "reorder": group.is_reorder,
            },
        )
    yield single("infer.mapped_share", "1", times.mapped, "higher", **tags, batch_size=batch_size)


def _apart(facts: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {name: fact for name, fact in facts.items() if name != "threads"}


def _starved(error: Exception) -> bool:
    words = f"{type(error).__name__}: {error}".lower()
    return isinstance(error, MemoryError) or "outofmemory" in words or "alloc" in words
