"""The seconds per call of `sampling.take`, which all timings use, compared with a bare loop."""

from __future__ import annotations

from collections.abc import Iterator

from cnnperf.claims import Bar, CheckedFigure, Context
from cnnperf.claims._turns import in_turns
from cnnperf.timing.sampling import collector_off, take

CLAIM = "The seconds of a call in a sample are those of a bare loop."
LIMIT_S = 60.0

LOOP_S = 0.03
ROUNDS = 80
BAR = Bar.within(0.03, "a sample of 30 ms reads clocks and counters once, in some 10 µs; the rest is noise of turns")


def check(context: Context) -> Iterator[CheckedFigure]:
    """Time a product by `sampling.take` and by a loop with torch's own wait, in turns."""
    from cnnperf.claims._torch_work import call_s, calls_for, product, waiting

    device = context.acquire()
    call, wait = product(device.torch_name), waiting(device.torch_name)
    calls = calls_for(call, wait, LOOP_S)
    with collector_off():
        ours, theirs = in_turns(
            lambda: take(call, calls, device.synchronize).wall_s / calls, lambda: call_s(call, wait, calls), ROUNDS
        )
    yield CheckedFigure.in_turns(
        f"a product, {calls:,} calls per sample",
        "s",
        ours,
        theirs,
        source=f"perf_counter around as many calls, {ROUNDS} pairs in turns",
        bar=BAR,
    )
