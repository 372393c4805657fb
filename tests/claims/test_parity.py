"""The claim about ONNX Runtime's logits, a parity that sees nothing, and logits that are another network's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from stand_ins import verdicts

from cnnperf.claims import Context, parity
from cnnperf.claims._stages import Made
from cnnperf.claims.parity import check
from cnnperf.inference.parity import Parity
from cnnperf.inference.samples import Golden

AGREES, FROM_TORCH, CLASSES, REFUSED, ACCEPTED, PROVIDER = range(6)


@pytest.fixture(autouse=True)
def _ran(engines: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "ran", lambda *_: engines)


def test_it_holds_on_the_cpu(context: Callable[..., Context]) -> None:
    """The logits, the classes, what is refused and what is not, and the provider of each kernel."""
    assert set(verdicts(check(context()))) == {"held"}


def test_it_fails_for_a_parity_that_sees_nothing(
    context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A doubled weight is then not refused."""

    def nothing(*_: object) -> Iterator[None]:
        yield from ()

    monkeypatch.setattr(Parity, "measured", nothing)
    found = verdicts(check(context()))
    assert (found[REFUSED], found[ACCEPTED]) == ("failed", "held")


def test_it_fails_for_a_parity_that_refuses_all(
    context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file as exported is not to be refused."""
    monkeypatch.setattr("cnnperf.inference.parity.CAP", 0.0)
    found = verdicts(check(context()))
    assert (found[REFUSED], found[ACCEPTED]) == ("held", "failed")


def test_it_fails_for_logits_that_are_not_torchs(
    context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with tensor cores, which round operands to 10 bits: by a thousandth of the largest logit."""

    def rounded(golden: Golden) -> np.ndarray:
        logits = golden.logits.copy()
        logits.flat[np.abs(logits).argmax()] *= 1.001
        return logits

    read = Golden.read

    def altered(path: object) -> Golden:
        golden = read(path)  # type: ignore[arg-type]
        return Golden(golden.indices, golden.labels, rounded(golden), golden.exact)

    monkeypatch.setattr(Golden, "read", altered)
    found = verdicts(check(context()))
    assert (found[AGREES], found[FROM_TORCH]) == ("failed", "failed")


def test_it_fails_for_another_provider_than_was_said(
    context: Callable[..., Context], engines: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels' own provider is what counts."""
    record = engines.record("infer")
    said = tuple(
        m.model_copy(update={"remarks": {**m.remarks, "provider": "CUDAExecutionProvider"}})
        if m.metric == "infer.threads"
        else m
        for m in record.measurements
    )
    others = tuple(r for r in engines.records if r is not record)
    lying = Made(engines.folder, engines.ready, (*others, record.model_copy(update={"measurements": said})))
    monkeypatch.setattr(parity, "ran", lambda *_: lying)
    assert verdicts(check(context()))[PROVIDER] == "failed"
