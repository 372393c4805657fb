"""ONNX Runtime's latency against a bare loop over the same session."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from time import perf_counter

from cnnperf.claims import Bar, Context, Reading
from cnnperf.claims._stages import ENGINES, ran
from cnnperf.claims._turns import in_turns

CLAIM = "The latency of ONNX Runtime is that of a bare loop over the same session, and no call returns early."
LIMIT_S = 150.0

CALLS, ROUNDS = 64, 16
BAR = Bar.within(0.03, "README: within 3 %")
ENDED = Bar.within(0.1, "a loop against the mean of its calls; with calls that return early, by the work still queued")


def check(context: Context) -> Iterator[Reading]:
    """Time calls as `infer` does and by hand; then a loop with the end of its work forced by reading logits."""
    from cnnperf.claims._onnx import engine, inputs
    from cnnperf.sampling import Plan, sample

    made = ran(context, "engines", ENGINES)
    loaded, images = engine(context, made, made.artifact("export", "onnx")), inputs(made.dataset)
    plan = Plan(samples=CALLS, seconds=0.0, sample_s=0.0, warmup_s=5.0)
    for batch_size in (1, 32):
        batch = images.batch(batch_size)
        call = loaded.bind(batch)

        def ours() -> tuple[float, ...]:
            return sample(call, loaded.synchronize, plan).call_s  # noqa: B023 - used before the next is bound

        def theirs() -> list[float]:
            times = []
            for _ in range(CALLS):
                start = perf_counter()
                call()  # noqa: B023
                times.append(perf_counter() - start)
            return times

        def forced() -> float:
            start = perf_counter()
            for _ in range(CALLS):
                call()  # noqa: B023
            loaded.run(batch)  # noqa: B023 - on the same stream, so that it ends after them
            return (perf_counter() - start) / (CALLS + 1)

        ours()
        images_of = f"{batch_size} image{'s' * (batch_size > 1)}"
        context.progress(images_of)
        pairs = in_turns(lambda: median(ours()), lambda: median(theirs()), ROUNDS)
        yield Reading.in_turns(
            f"median call, {images_of}", "s", *pairs, source=f"{CALLS} calls by hand, {ROUNDS} pairs in turns", bar=BAR
        )
        pairs = in_turns(lambda: sum(ours()) / CALLS, forced, ROUNDS)
        yield Reading.in_turns(
            f"mean call, {images_of}", "s", *pairs, source="a loop whose logits are read at its end", bar=ENDED
        )
