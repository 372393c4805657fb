"""Whether an engine computes what torch computes, and how right it is on real images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cnnperf.engines import Engine
from cnnperf.record import Measurement
from cnnperf.stages._samples import GOLDEN_IMAGES, Golden, Inputs
from cnnperf.stages._single import single
from cnnperf.task import Scalar

BATCH = 100
ERROR_FACTOR = 10.0
"""How much further from float64 an engine may lie than torch does."""
RESOLUTION = 1e-6
"""A relative error below this is that of float32 itself."""


class _Incomparable(Exception):  # noqa: N818 - a finding about the engine
    """Logits that are of another shape, or not finite."""


class Parity:
    """What an engine's logits come to beside torch's; `fault` says in a sentence what is wrong, if anything is."""

    def __init__(self, engine: Engine, inputs: Inputs, golden: Golden, max_accuracy_drop: float) -> None:
        self._engine = engine
        self._inputs = inputs
        self._golden = golden
        self._max_drop = max_accuracy_drop
        self.fault: str | None = None

    def measured(self, batch_sizes: Sequence[int], **tags: Scalar) -> Iterator[Measurement]:
        """Yield differences to torch and errors to float64 at each batch size, agreement and accuracy.

        Ends where there are no logits to compare.
        """
        try:
            for batch_size in batch_sizes:
                yield from self._at(batch_size, {**tags, "batch_size": batch_size})
            yield from self._on_test(tags)
        except _Incomparable as error:
            self._refuse(f"parity failed: {error}")

    def _at(self, batch_size: int, tags: dict[str, Scalar]) -> Iterator[Measurement]:
        golden = self._golden
        if not (np.isfinite(golden.logits).all() and np.isfinite(golden.exact).all()):
            raise _Incomparable("torch's own output is not finite (NaN or infinite); train the network anew")
        rows = np.arange(max(batch_size, GOLDEN_IMAGES // 4)) % len(golden.exact)
        rows = rows[: len(rows) // batch_size * batch_size]
        images = self._inputs.test(golden.indices[rows])
        logits = np.concatenate([self._run(batch) for batch in np.split(images, len(rows) // batch_size)])
        ours, exact = golden.logits[rows].astype(np.float64), golden.exact[rows]
        span = max(float(np.abs(exact).max()), 1e-30)
        difference = float(np.abs(logits - ours).max())
        furthest, of_torch = (float(np.abs(each - exact).max()) for each in (logits, ours))
        error, own = furthest / span, of_torch / span
        yield single("infer.max_difference", "1", difference, "lower", **tags)
        yield single("infer.relative_difference", "1", difference / span, "lower", **tags)
        yield single("infer.max_error_to_float64", "1", furthest, "lower", **tags)
        yield single("infer.error_to_float64", "1", error, "lower", **tags)
        yield single("infer.torch_error_to_float64", "1", own, None, **tags)
        if self._engine.is_exact and error > ERROR_FACTOR * max(own, RESOLUTION):
            self._refuse(
                f"parity failed at batch size {batch_size}: its logits lie {error:.2g} (relative) from torch's in "
                f"float64, torch's own in float32 {own:.2g}; at most {ERROR_FACTOR:g} times as much is allowed"
            )

    def _on_test(self, tags: dict[str, Scalar]) -> Iterator[Measurement]:
        golden = self._golden
        predictions = np.concatenate(
            [
                self._run(self._inputs.test(golden.indices[start : start + BATCH])).argmax(axis=1)
                for start in range(0, len(golden.indices), BATCH)
            ]
        )
        of_torch = golden.logits.argmax(axis=1)
        count = len(predictions)
        on: dict[str, Scalar] = {**tags, "n": count, "images": _which(count, len(self._inputs.dataset.test_labels))}
        accuracy, before = (float(np.mean(each == golden.labels)) for each in (predictions, of_torch))
        agreement = float(np.mean(predictions == of_torch))
        yield single("infer.top1_agreement", "fraction", agreement, "higher", **on)
        yield single("infer.test_accuracy", "fraction", accuracy, "higher", **on)
        yield single("infer.torch_test_accuracy", "fraction", before, None, **on)
        yield single("infer.accuracy_drop", "1", before - accuracy, "lower", **on)
        if before - accuracy > self._max_drop:
            self._refuse(
                f"parity failed: {accuracy:.1%} of {count:,} test images are right, in torch {before:.1%}; "
                f"a drop of {self._max_drop:.1%} is allowed (max_accuracy_drop)"
            )

    def _run(
        self, images: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        logits = self._engine.run(images)
        if logits.shape != (len(images), self._golden.logits.shape[1]):
            wanted = f"{len(images)}×{self._golden.logits.shape[1]}"
            raise _Incomparable(
                f"its output is {'×'.join(map(str, logits.shape))} where torch's is {wanted}; export it again"
            )
        if not np.isfinite(logits).all():
            raise _Incomparable("its output is not finite (NaN or infinite); look at the weights, or at its precision")
        return logits

    def _refuse(self, sentence: str) -> None:
        self.fault = self.fault or sentence


def _which(count: int, of: int) -> str:
    return "all" if count == of else "subset"
