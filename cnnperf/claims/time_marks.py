"""The device's clock compared with the system's clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

from cnnperf.claims import Bar, CheckedFigure, Context, NotApplicable

CLAIM = "The seconds between two marks of the device are the seconds of a wall clock."
LIMIT_S = 60.0

LOOP_S = 1.2
LOOPS = 3
PARTS = 10
BAR = Bar.within(0.01, "to queue the first call and to notice the end of the last takes the host < 1 ms of 1 s")


def check(context: Context) -> Iterator[CheckedFigure]:
    """Queue a second of work with marks, wait once, and add up the seconds between the marks.

    The independent clock is CLOCK_MONOTONIC_RAW: the CPU's marks read CLOCK_MONOTONIC, which the system adjusts.
    """
    if not hasattr(time, "CLOCK_MONOTONIC_RAW"):
        raise NotApplicable("this system has no CLOCK_MONOTONIC_RAW")
    from cnnperf.claims._torch_work import calls_for, product, waiting

    device = context.acquire()
    call, wait = product(device.torch_name), waiting(device.torch_name)
    calls = max(1, calls_for(call, wait, LOOP_S) // PARTS)
    ours, theirs = [], []
    for _ in range(LOOPS):
        wait()
        began = time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
        marks = [device.mark()]
        for _ in range(PARTS):
            for _ in range(calls):
                call()
            marks.append(device.mark())
        device.synchronize()
        theirs.append(time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - began)
        ours.append(sum(device.elapsed_s(start, end) for start, end in pairwise(marks)))
    # The loop with the median ratio: in others the host may have lost its core between the clock and a mark.
    figure, reading = sorted(zip(ours, theirs, strict=True), key=lambda pair: pair[0] / pair[1])[LOOPS // 2]
    yield CheckedFigure(
        quantity=f"{PARTS} parts of a loop of {PARTS * calls:,} products",
        unit="s",
        figure=figure,
        reading=reading,
        source="CLOCK_MONOTONIC_RAW around the loop and one wait",
        bar=BAR,
        raw={"figure": tuple(ours), "reading": tuple(theirs)},
    )
    if not device.is_asynchronous:
        return  # Marks that are readings of one clock have no other sum: nothing would be tested.
    yield CheckedFigure(
        quantity="the last loop, first mark to last",
        unit="s",
        figure=device.elapsed_s(marks[0], marks[-1]),
        reading=ours[-1],
        source="the sum of its parts",
        bar=Bar.within(0.001, "marks divide time: they are points on one clock, whose resolution is 1 µs or better"),
    )
