"""ONNX Runtime's logits compared with torch's; a wrong weight; the provider that computed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from cnnperf.claims import Bar, CheckedFigure, Context
from cnnperf.claims._stages import ENGINES, Made, ran
from cnnperf.units import amount_of

CLAIM = "ONNX Runtime computes on the device asked for what torch computes, and a wrong weight is refused."
LIMIT_S = 150.0

ROUNDING = {
    "cpu": Bar(low=-0.5, high=1.0, reason="the same kernels on the same batches round alike, but for a last digit"),
    # The engine and the session choose their convolution algorithms separately.
    "cuda": Bar(low=-0.9, high=9.0, reason="float32 sums of another algorithm differ from torch's by a few times more"),
}
EQUAL = Bar.within(2.0**-23, "where the session agrees with torch to the last digit, so does the engine, but for one")
LOGITS = Bar.within(1e-4, "float32 sums in another order differ by some 1e-6; TF32, or a wrong layer, by 1e-3 and more")
AGREEMENT = Bar.within(0.005, "one session computes 512 images in one batch, the other in several")
EXACT = Bar.within(0, "a count is exact")
ALL = Bar.within(0, "an operator on another provider would not be on the device that was asked for")
TRIALS = 4


def check(context: Context) -> Iterator[CheckedFigure]:
    """Compare the parity with a session opened by hand; double weights; read ONNX Runtime's own profile."""
    from cnnperf.claims._onnx import inputs, relative_difference, session, session_logits
    from cnnperf.inference.inputs import Golden

    made = ran(context, "engines", ENGINES)
    file, golden = made.artifact("export", "onnx"), Golden.read(made.artifact("export", "golden"))
    opened, images = session(context, file), inputs(made.dataset).test(golden.indices)
    differences = []
    for measured in made.record("infer").find("infer.relative_difference"):
        size, [printed] = int(measured.tags["batch_size"]), measured.values
        by_hand = relative_difference(opened, images[: len(golden.exact)], golden.logits, size)
        differences += [printed, by_hand]
        yield _rounding(context, size, printed, by_hand)
    ours = session_logits(opened, images)
    yield CheckedFigure(
        quantity="difference from torch's logits",
        unit="1",
        figure=max(*differences, float(abs(ours - golden.logits).max() / abs(golden.logits).max())),
        reading=0,
        source="torch's logits, which export left",
        relative=False,
        bar=LOGITS,
    )
    yield _agreement(made, float((ours.argmax(1) == golden.logits.argmax(1)).mean()))
    yield from _planted(context, made, file, golden)
    yield _provider(context, made, file)


def _rounding(context: Context, size: int, printed: float, by_hand: float) -> CheckedFigure:
    """Compare the differences from torch's logits at one batch size."""
    return CheckedFigure(
        quantity=f"difference from torch's logits, printed, {amount_of(size, 'image')}",
        unit="1",
        figure=printed,
        reading=by_hand,
        source="a session by hand, NumPy",
        relative=by_hand > 0,
        bar=ROUNDING[context.device] if by_hand else EQUAL,
    )


def _agreement(made: Made, by_hand: float) -> CheckedFigure:
    """Compare the share of images whose class is torch's."""
    [agreement] = made.value("infer", "infer.top1_agreement")
    return CheckedFigure(
        quantity="images whose class is torch's",
        unit="fraction",
        figure=agreement,
        reading=by_hand,
        source="a session by hand, NumPy",
        relative=False,
        bar=AGREEMENT,
    )


def _planted(context: Context, made: Made, file: Path, golden: object) -> Iterator[CheckedFigure]:
    """Count the files with one doubled weight that are refused, and check that the exported file is not."""
    wrong = [_refuses(context, made, _doubled(file, context.scratch, trial), golden) for trial in range(TRIALS)]
    for quantity, found, planted in (
        (f"refused files of {TRIALS} with a doubled weight", sum(wrong), TRIALS),
        ("refused files of 1 as exported", int(_refuses(context, made, file, golden)), 0),
    ):
        yield CheckedFigure(
            quantity=quantity,
            unit="count",
            figure=found,
            reading=planted,
            source="planted",
            relative=False,
            bar=EXACT,
        )


def _refuses(context: Context, made: Made, file: Path, golden: object) -> bool:
    from cnnperf.claims._onnx import engine, inputs
    from cnnperf.inference.parity import Parity

    parity = Parity(engine(context, made, file), inputs(made.dataset), golden, {}, 1.0)  # type: ignore[arg-type]
    for _ in parity.measured((1, 2, 32)):
        pass
    return parity.fault is not None


def _doubled(file: Path, scratch: Path, trial: int) -> Path:
    """Return a copy of an exported network with one weight of a convolution or linear layer doubled."""
    import numpy as np
    import onnx

    dice, model = np.random.default_rng(trial), onnx.load(file)
    weights = [each for each in model.graph.initializer if each.name.endswith("weight") and len(each.dims) > 1]
    weight = weights[dice.integers(len(weights))]
    values = onnx.numpy_helper.to_array(weight).copy()
    # The largest weight, because the double of a weight near 0 is also near 0.
    values.flat[np.abs(values).argmax()] *= 2
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    path = scratch / f"doubled-{trial}.onnx"
    onnx.save(model, path)
    return path


def _provider(context: Context, made: Made, file: Path) -> CheckedFigure:
    """Read the providers of the kernels from ONNX Runtime's own profile."""
    from cnnperf.claims._onnx import inputs, session, session_logits

    profiled = session(context, file, profile=context.scratch / "kernels")
    session_logits(profiled, inputs(made.dataset).batch(1))
    events = json.loads(Path(profiled.end_profiling()).read_text())
    ran_on = [event["args"]["provider"] for event in events if "provider" in event.get("args", {})]
    [threads] = made.record("infer").find("infer.threads")
    said = threads.remarks["provider"]
    return CheckedFigure(
        quantity=f"kernels of {len(ran_on)} on the engine's {said}",
        unit="count",
        figure=sum(each == said for each in ran_on),
        reading=len(ran_on),
        source="the profile of ONNX Runtime",
        relative=False,
        bar=ALL,
    )
