"""Benchmarks of engines: time of a batch, overhead over a loop by hand, and comparison of an engine with itself."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from time import perf_counter

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from cnnperf import registry
from cnnperf.bench import Bench
from cnnperf.engines import Engine
from cnnperf.inference.inputs import Inputs
from cnnperf.inference.pairs import speedups
from cnnperf.inference.settings import LATENCY_WARMUP_S, Infer
from cnnperf.inference.source import loaded, source_of
from cnnperf.stats import INTERVAL_LEVEL, SignedRanks
from cnnperf.task import Choice
from cnnperf.timing.sampling import Plan, sample

pytest.importorskip("onnxruntime")

WARMUP, ROUNDS = 3, 30
TURNS = 15


@pytest.fixture
def bench(exported: Callable[[str], Bench]) -> Bench:
    """Return a bench of the infer stage with ResNet's export."""
    return exported("resnet")


@pytest.fixture(params=registry.names("engines"))
def engine(request: pytest.FixtureRequest, bench: Bench) -> Engine:
    """Return each engine of the package."""
    return loaded(source_of(bench), Choice(name=request.param))


@pytest.mark.benchmark(group="engines, ResNet, one thread")
@pytest.mark.parametrize("batch_size", [1, 32])
def test_engine(benchmark: BenchmarkFixture, bench: Bench, engine: Engine, batch_size: int) -> None:
    """The time in which an engine computes the logits of a batch is measured."""
    call = engine.bind(Inputs.of(bench).batch(batch_size))
    benchmark.pedantic(call, warmup_rounds=WARMUP, rounds=ROUNDS)


@pytest.mark.parametrize("batch_size", [1, 32])
def test_latency_is_that_of_a_loop_by_hand(benchmark: BenchmarkFixture, bench: Bench, batch_size: int) -> None:
    """The latency by cnnperf is within 3 % of a loop by hand over the same session in the same run."""
    benchmark.group = "infer.latency of onnxruntime ÷ a loop by hand, within 3 %"
    made = loaded(source_of(bench), Choice(name="onnxruntime"))
    images = Inputs.of(bench).batch(batch_size)
    call, session = made.bind(images), made._session  # type: ignore[attr-defined]
    defaults = Infer()
    plan = Plan(samples=defaults.samples, seconds=0.0, sample_s=0.0, warmup_s=LATENCY_WARMUP_S)
    sample(call, made.synchronize, plan)
    pairs: list[tuple[float, float]] = []

    def take_turns() -> None:
        for _ in range(TURNS):
            ours = statistics.median(sample(call, made.synchronize, plan).call_s)
            pairs.append((ours, statistics.median(by_hand(session, images, defaults.samples))))

    benchmark.pedantic(take_turns, rounds=1)
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    benchmark.extra_info |= {"ratio": ratio, "call_s": pairs[0][0]}
    assert abs(ratio - 1) <= 0.03


def by_hand(session: object, images: np.ndarray, count: int) -> list[float]:
    """Return the seconds of a session's calls, timed without cnnperf."""
    run: Callable[..., object] = session.run  # type: ignore[attr-defined]
    feed = {"images": images}
    times = []
    for _ in range(count):
        start = perf_counter()
        run(["logits"], feed)
        times.append(perf_counter() - start)
    return times


def test_an_engine_does_not_differ_from_itself(benchmark: BenchmarkFixture, bench: Bench) -> None:
    """An engine compared with itself in eight fresh pairs has a speed-up interval that contains 1."""
    benchmark.group = "onnxruntime ÷ onnxruntime in turns: 1 is in the interval"
    same = Choice(name="onnxruntime")
    *_, found = benchmark.pedantic(lambda: list(speedups(bench, same, same, (1,), 8)), rounds=1)
    ranks = SignedRanks(np.log(found.values))
    low, high = math.exp(ranks.lower(INTERVAL_LEVEL)), math.exp(ranks.upper(INTERVAL_LEVEL))
    benchmark.extra_info |= {"speed-up": math.exp(ranks.estimate), "low": low, "high": high}
    assert low <= 1 <= high
