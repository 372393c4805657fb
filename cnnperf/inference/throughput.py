"""An engine alone: its latency at each batch size, up to the largest useful one."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from statistics import median

from cnnperf.bench import Bench
from cnnperf.engines import Engine
from cnnperf.errors import is_out_of_memory
from cnnperf.inference.headroom import Headroom
from cnnperf.inference.inputs import Inputs
from cnnperf.inference.settings import LARGEST, LATENCY_WARMUP_S, Infer
from cnnperf.record import Measurement, single
from cnnperf.task import Scalar
from cnnperf.timing.sampling import Plan, sample

RISE = 1.03
"""Minimum gain in throughput by doubling the batch; below it `auto` ends."""
MEMORY, PEAK = "memory", "infer.peak"


class Timing:
    """Times an engine at one batch size after another; `images_per_s` contains the successful ones."""

    def __init__(
        self, bench: Bench, settings: Infer, engine: Engine, inputs: Inputs, tags: Mapping[str, Scalar]
    ) -> None:
        self._bench = bench
        self._settings = settings
        self._engine = engine
        self._inputs = inputs
        self._tags = tags
        self._plan = Plan(samples=settings.samples, seconds=settings.seconds, warmup_s=LATENCY_WARMUP_S)
        self._headroom = Headroom(bench.device)
        self.images_per_s: dict[int, float] = {}
        """Throughput by batch size, from the median call, as in the tables."""

    def measured(self) -> Iterator[Measurement]:
        """Yield the latency of each call at each batch size, the end of a search with its reason, and peaks."""
        if self._settings.batch_sizes == "auto":
            bound = yield from self._searched()
            largest = max(self.images_per_s)
            yield single("infer.largest_batch_size", "count", largest, None, {"bound": bound}, **self._tags)
        else:
            for batch_size in self._settings.batch_sizes:
                yield from self._at(batch_size)
        yield from self._peaks()

    def _searched(self) -> Generator[Measurement, None, str]:
        """Double the batch until the gain is too small, and return the reason for the end.

        Each batch's results are saved, because the system may kill this process for the memory of the next batch.
        """
        if kept := self._bench.kept():
            yield from self._recalled(kept)
            return MEMORY
        before, batch_size = 0.0, 1
        while batch_size <= LARGEST:
            if not self._headroom.holds_double():
                return MEMORY
            self._headroom.begin()
            try:
                found = list(self._at(batch_size))
            except Exception as error:
                if not (self.images_per_s and is_out_of_memory(error)):
                    raise
                return MEMORY
            self._headroom.end()
            self._bench.keep(*found, *self._peaks())
            yield from found
            if self.images_per_s[batch_size] < RISE * before:
                return "throughput"
            before, batch_size = self.images_per_s[batch_size], 2 * batch_size
        return f"limit of {LARGEST}"

    def _recalled(self, kept: Sequence[Measurement]) -> Iterator[Measurement]:
        """Yield the measurements of an earlier process that the system killed."""
        for found in kept:
            if found.metric.startswith(PEAK):
                self._headroom.recall({found.metric.removeprefix("infer."): int(found.values[0])})
                continue
            if found.metric == "infer.latency":
                self._enter(int(found.tags["batch_size"]), median(found.values))
            yield found

    def _peaks(self) -> Iterator[Measurement]:
        for kind, peak in self._headroom.peaks().items():
            yield single(f"infer.{kind}", "bytes", peak, None, **self._tags)

    def _enter(self, batch_size: int, call_s: float) -> None:
        self.images_per_s[batch_size] = batch_size / call_s
        self._bench.progress(batch_size=batch_size, ms=1e3 * call_s)

    def _at(self, batch_size: int) -> Iterator[Measurement]:
        self._bench.phase(f"latency of batch {batch_size}")
        samples = sample(self._engine.bind(self._inputs.batch(batch_size)), self._engine.synchronize, self._plan)
        self._enter(batch_size, median(samples.call_s))
        yield from samples.measurements("infer.latency", **self._tags, batch_size=batch_size)
