"""ONNX Runtime's latency compared with a bare loop over the same session."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean, median
from time import perf_counter

from cnnperf.claims import Bar, CheckedFigure, Context
from cnnperf.claims._stages import ENGINES, ran
from cnnperf.claims._turns import in_turns
from cnnperf.devices import Device
from cnnperf.engines import Engine, NormalisedImages
from cnnperf.timing.sampling import Plan, sample
from cnnperf.units import amount_of

CLAIM = "The latency of ONNX Runtime is that of a bare loop over the same session, and no call returns early."
LIMIT_S = 240.0

LATENCY_TURN_S = 0.06
REWARMING_S = 0.3
"""Maximum warm-up before each turn; it is short because the engine has just been working."""
CALLS = 8, 64
"""Minimum and maximum number of calls in a turn."""
ROUNDS_S = 16.0
ROUNDS, FORCED_ROUNDS = (24, 96), 16
"""Minimum and maximum number of rounds; as many as fit into ROUNDS_S, because turns of short calls vary more."""
BAR = Bar.within(0.03, "claimed: within 3 %")
ENDED = Bar.within(0.2, "means of some calls vary by 10 %; a call that returns before its work ends takes a fraction")


def check(context: Context) -> Iterator[CheckedFigure]:
    """Time calls as `infer` does and by hand; then time a loop whose work is forced to end by reading the logits."""
    from cnnperf.claims._onnx import engine, inputs

    made = ran(context, "engines", ENGINES)
    loaded, images = engine(context, made, made.artifact("export", "onnx")), inputs(made.dataset)
    device = context.acquire()
    for batch_size in (1, 32):
        words = amount_of(batch_size, "image")
        context.progress(words)
        yield from compared(Loops(loaded, images.batch(batch_size), device), words)


def compared(loops: Loops, words: str) -> Iterator[CheckedFigure]:
    """Compare the median and the mean of calls with both loops written by hand, in turns."""
    calls = f"{loops.calls} calls by hand"
    rounds = max(ROUNDS[0], min(ROUNDS[1], round(ROUNDS_S / (2 * loops.turn_s))))
    pairs = in_turns(lambda: median(loops.ours()), lambda: median(loops.by_hand()), rounds)
    source = f"{calls}, {rounds} pairs in turns"
    yield CheckedFigure.in_turns(f"median call, {words}", "s", *pairs, source=source, bar=BAR)
    pairs = in_turns(lambda: fmean(loops.ours()), loops.forced_s, FORCED_ROUNDS)
    source = f"{calls} and the logits read at their end, {FORCED_ROUNDS} pairs"
    yield CheckedFigure.in_turns(f"mean call, {words}", "s", *pairs, source=source, bar=ENDED)


class Loops:
    """The calls of an engine timed as by `infer`, and those of its session timed by hand in two ways."""

    def __init__(self, engine: Engine, images: NormalisedImages, device: Device) -> None:
        from cnnperf.claims._onnx import bare_calls

        self._engine = engine
        self._call = engine.bind(images)
        # Otherwise time that the engine adds to each call would be on both sides and cancel out.
        self._bare, self._read = bare_calls(engine, images, device)
        self.calls = CALLS[0]
        call_s = median(self.ours())
        self.calls = max(CALLS[0], min(CALLS[1], round(LATENCY_TURN_S / call_s)))
        self.turn_s = self.calls * call_s

    def ours(self) -> tuple[float, ...]:
        """Return the seconds of each of at least as many calls, as measured by `infer`."""
        plan = Plan(samples=self.calls, seconds=0.0, warmup_s=REWARMING_S)
        return sample(self._call, self._engine.synchronize, plan).call_s

    def by_hand(self) -> list[float]:
        """Return the seconds of as many calls of the bare session, each between two readings of the clock."""
        times = []
        for _ in range(self.calls):
            start = perf_counter()
            self._bare()
            times.append(perf_counter() - start)
        return times

    def forced_s(self) -> float:
        """Return the seconds per call of a bare loop that reads the last logits, which forces all work to end."""
        start = perf_counter()
        for _ in range(self.calls):
            self._bare()
        self._read()
        return (perf_counter() - start) / (self.calls + 1)
