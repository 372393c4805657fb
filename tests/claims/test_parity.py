"""The claim about ONNX Runtime's logits, with a parity that detects nothing and with altered logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from stand_ins import verdicts

from cnnperf.claims import Context, parity
from cnnperf.claims._onnx import bare_calls, engine, inputs
from cnnperf.claims._stages import Made
from cnnperf.claims.parity import check
from cnnperf.inference.inputs import Golden
from cnnperf.inference.parity import Parity
from cnnperf.record import Measurement

BATCH_SIZES = 1, 2, 4
"""Batch sizes of the run and 2, at which parity is always measured; each has a reading, the first ones."""
FROM_TORCH, CLASSES, REFUSED, ACCEPTED, PROVIDER = range(len(BATCH_SIZES), len(BATCH_SIZES) + 5)


@pytest.fixture(autouse=True)
def _ran(engines: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "ran", lambda *_: engines)


def retold(made: Made, metric: str, changed: Callable[[Measurement], dict[str, Any]]) -> Made:
    """Return the run with changed measurements of one metric in the record of `infer`."""
    record = made.record("infer")
    said = tuple(m.model_copy(update=changed(m)) if m.metric == metric else m for m in record.measurements)
    others = tuple(r for r in made.records if r is not record)
    return Made(made.folder, made.ready, (*others, record.model_copy(update={"measurements": said})))


def test_it_holds_on_the_cpu(context: Callable[..., Context]) -> None:
    """All readings hold: logits, classes, refused and accepted files, and the provider of each kernel."""
    assert set(verdicts(check(context()))) == {"held"}


def test_it_fails_for_a_parity_that_sees_nothing(
    context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If parity detects nothing, the file with a doubled weight is not refused, and that reading fails."""

    def nothing(*_: object) -> Iterator[None]:
        yield from ()

    monkeypatch.setattr(Parity, "measured", nothing)
    found = verdicts(check(context()))
    assert (found[REFUSED], found[ACCEPTED]) == ("failed", "held")


def test_it_fails_for_a_parity_that_refuses_all(
    context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If parity refuses everything, the exported file is refused too, and that reading fails."""
    monkeypatch.setattr("cnnperf.inference.parity.CAP", 0.0)
    found = verdicts(check(context()))
    assert (found[REFUSED], found[ACCEPTED]) == ("held", "failed")


def test_it_fails_for_logits_that_are_not_torchs(
    context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of each image's largest logit by a thousandth, as by tensor cores, fails the claim."""

    def rounded(golden: Golden) -> np.ndarray:
        logits = golden.logits.copy()
        logits[np.arange(len(logits)), np.abs(logits).argmax(axis=1)] *= 1.001
        return logits

    read = Golden.read

    def altered(path: object) -> Golden:
        golden = read(path)  # type: ignore[arg-type]
        return Golden(golden.indices, golden.labels, rounded(golden), golden.exact)

    monkeypatch.setattr(Golden, "read", altered)
    found = verdicts(check(context()))
    assert set(found[: FROM_TORCH + 1]) == {"failed"}


def test_calls_by_hand_compute_what_the_engine_does(context: Callable[..., Context], engines: Made) -> None:
    """The calls by hand, which the claim about latency times, compute the engine's logits exactly."""
    given = context()
    made = engine(given, engines, engines.artifact("export", "onnx"))
    images = inputs(engines.dataset).batch(4)
    for call in bare_calls(made, images, given.acquire()):
        [logits] = call()  # type: ignore[misc]
        assert np.array_equal(logits, made.run(images))


@pytest.mark.parametrize("printed", [0.0, 9e-5])
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_it_fails_for_a_printed_difference_of_another_order(
    context: Callable[..., Context],
    engines: Made,
    monkeypatch: pytest.MonkeyPatch,
    printed: float,
    batch_size: int,
) -> None:
    """A printed difference of 0 or 9e-5, where about 3e-7 is true, fails the reading of its batch size."""

    def changed(measured: Measurement) -> dict[str, Any]:
        return {"values": (printed,)} if measured.tags["batch_size"] == batch_size else {}

    lying = retold(engines, "infer.relative_difference", changed)
    monkeypatch.setattr(parity, "ran", lambda *_: lying)
    found = verdicts(check(context()))[:FROM_TORCH]
    assert found == ["failed" if size == batch_size else "held" for size in BATCH_SIZES]


def test_it_fails_for_another_provider_than_was_said(
    context: Callable[..., Context], engines: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recorded provider that is not the kernels' own fails the claim."""
    lying = retold(engines, "infer.threads", lambda m: {"remarks": {**m.remarks, "provider": "CUDAExecutionProvider"}})
    monkeypatch.setattr(parity, "ran", lambda *_: lying)
    assert verdicts(check(context()))[PROVIDER] == "failed"
