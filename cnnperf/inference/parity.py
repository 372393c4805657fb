"""Parity of an engine's output with torch's, and the engine's accuracy on real images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cnnperf.engines import Engine
from cnnperf.inference.inputs import GOLDEN_IMAGES, LAYER_IMAGES, TEST_BATCH, Golden, Inputs, LayerValue
from cnnperf.inference.metrics import ACCURACY_DROP, DISAGREEMENTS, RIGHT_IN_ENGINE_ONLY, RIGHT_IN_TORCH_ONLY
from cnnperf.record import PARITY, Measurement, single
from cnnperf.task import Scalar
from cnnperf.units import shape_in_words

ERROR_FACTOR = 10.0
"""Maximum error of an engine against float64, as a multiple of torch's own error."""
LOGIT_RESOLUTION = 1e-5
"""Error of the logits, relative to the largest logit, that always passes."""
CAP = 1e-3
"""Error that always fails, relative to the logits' spread between classes or to a layer's largest value. The nine
networks in float32, freshly built and trained, reach 1.3e-6 and 2.3e-6."""
LAYER_FACTOR, LAYER_RESOLUTION = 5.0, 2e-6
"""Maximum error of a layer, as a multiple of the same runtime's error before any optimisation; the nine networks reach
1.9 at most, at every level of optimisation."""


class _Incomparable(Exception):  # noqa: N818 - a finding about the engine
    """Logits have another shape or are not finite."""


class Parity:
    """An engine's logits compared with torch's; `fault` is one sentence, or None."""

    def __init__(
        self, engine: Engine, inputs: Inputs, golden: Golden, layers: Mapping[str, LayerValue], max_accuracy_drop: float
    ) -> None:
        """Compare an engine's logits and, if available, its intermediate values with the reference."""
        self._engine = engine
        self._inputs = inputs
        self._golden = golden
        self._layers = layers
        self._max_drop = max_accuracy_drop
        self._tie = 0.0
        self.fault: str | None = None

    def measured(self, batch_sizes: Sequence[int], **tags: Scalar) -> Iterator[Measurement]:
        """Yield differences to torch and errors to float64 at each batch size and layer by layer, agreement, accuracy.

        The verdict is yielded last, or at once if there are no logits to compare.
        """
        try:
            for batch_size in batch_sizes:
                yield from self._at(batch_size, {**tags, "batch_size": batch_size})
            if self._engine.is_exact and self._layers:
                yield from self._by_layer(tags)
            yield from self._on_test(tags)
        except _Incomparable as error:
            self._refuse(f"parity failed: {error}")
        yield verdict(PARITY, self.fault, **tags)

    def _at(self, batch_size: int, tags: dict[str, Scalar]) -> Iterator[Measurement]:
        golden = self._golden
        if not (np.isfinite(golden.logits).all() and np.isfinite(golden.exact).all()):
            raise _Incomparable("torch's own output is not finite (NaN or infinite); train the network again")
        rows = np.arange(max(batch_size, GOLDEN_IMAGES // 4)) % len(golden.exact)
        rows = rows[: len(rows) // batch_size * batch_size]
        images = self._inputs.test(golden.indices[rows])
        logits = np.concatenate([self._run(batch) for batch in np.split(images, len(rows) // batch_size)])
        ours, exact = golden.logits[rows].astype(np.float64), golden.exact[rows]
        largest = max(float(np.abs(exact).max()), 1e-30)
        difference = float(np.abs(logits - ours).max())
        error, own = (float(np.abs(each - exact).max()) for each in (logits, ours))
        yield single("infer.max_difference", "1", difference, "lower", **tags)
        yield single("infer.relative_difference", "1", difference / largest, "lower", **tags)
        yield single("infer.max_error_to_float64", "1", error, "lower", **tags)
        yield single("infer.error_to_float64", "1", error / largest, "lower", **tags)
        yield single("infer.torch_error_to_float64", "1", own / largest, None, **tags)
        yield single("infer.logit_spread", "1", spread(exact), None, **tags)
        if self._engine.is_exact:
            self._hold(error, own, largest, spread(exact), batch_size)

    def _hold(self, error: float, own: float, largest: float, spread: float, batch_size: int) -> None:
        """Report logits that are too far from float64; classes closer than the limit are a tie."""
        cap, allowed = CAP * spread, max(ERROR_FACTOR * own, LOGIT_RESOLUTION * largest)
        self._tie = max(self._tie, 2 * (min(allowed, cap) + own))
        if own > cap:
            self._refuse(
                f"parity failed at batch size {batch_size}: it cannot be judged, since torch's own logits in float32 "
                f"differ from those in float64 by {own / spread:.2g} of their spread between classes, above the limit "
                f"of {CAP:g}; look for a random output, or for weights that float32 cannot hold"
            )
        elif error > min(allowed, cap):
            self._refuse(
                f"parity failed at batch size {batch_size}: its logits differ from torch's in float64 by "
                f"{error / largest:.2g} (relative), torch's own in float32 by {own / largest:.2g}; the limit is "
                f"{ERROR_FACTOR:g} times torch's own difference, at least {LOGIT_RESOLUTION:g}, and never more than "
                f"{CAP:g} of their spread between classes"
            )

    def _by_layer(self, tags: dict[str, Scalar]) -> Iterator[Measurement]:
        """Yield the largest error of the intermediate values, if the engine reports them."""
        images = self._inputs.test(self._golden.indices[:LAYER_IMAGES])
        found = self._engine.values(images)
        if found is None:
            return
        if not np.array_equal(found.logits, self._run(images)):
            raise _Incomparable(
                "the engine computes different logits from the same images each time; look for random operations in it"
            )
        judged = {name: layer for name, layer in self._layers.items() if _is_judged(layer, found.before.get(name))}
        if not judged:
            return
        for name in judged:
            if not np.isfinite(found.before[name]).all():
                raise _Incomparable(f"its layer value {name!r} is not finite (NaN or infinite), in float64 it is")
        errors = {name: layer.error(found.before[name]) for name, layer in judged.items()}
        furthest = max(errors, key=lambda name: errors[name] / _allowed(judged[name]))
        error, own = errors[furthest], judged[furthest].own_error
        on: dict[str, Scalar] = {"at": furthest, "n": len(judged)}
        yield single("infer.layer_error_to_float64", "1", error, "lower", on, **tags)
        if error > _allowed(judged[furthest]):
            self._refuse(
                f"parity failed in the layer value {furthest!r}: it differs from the exported network's in "
                f"float64 by {error:.2g} (relative), that network's own in float32 before any optimisation by "
                f"{own:.2g}; the limit is {LAYER_FACTOR:g} times this own difference, at least {LAYER_RESOLUTION:g}, "
                f"and never more than {CAP:g}"
            )

    def _on_test(self, tags: dict[str, Scalar]) -> Iterator[Measurement]:
        # Late, because SciPy would add to an engine's memory and times.
        from cnnperf.inference.accuracy import AccuracyDrop

        golden = self._golden
        predictions = np.concatenate(
            [
                self._run(self._inputs.test(golden.indices[start : start + TEST_BATCH])).argmax(axis=1)
                for start in range(0, len(golden.indices), TEST_BATCH)
            ]
        )
        of_torch = golden.logits.argmax(axis=1)
        count = len(predictions)
        of = len(self._inputs.dataset.test_labels)
        on: dict[str, Scalar] = {"n": count, "images": "all" if count == of else "subset"}
        right, before = predictions == golden.labels, of_torch == golden.labels
        drop = AccuracyDrop(lost=int((before & ~right).sum()), gained=int((right & ~before).sum()), images=count)
        agreement = float(np.mean(predictions == of_torch))
        yield single("infer.top1_agreement", "fraction", agreement, "higher", on, **tags)
        yield single("infer.test_accuracy", "fraction", float(right.mean()), "higher", on, **tags)
        yield single("infer.torch_test_accuracy", "fraction", float(before.mean()), None, on, **tags)
        yield single(ACCURACY_DROP, "1", drop.estimate, "lower", on, **tags)
        yield single(RIGHT_IN_TORCH_ONLY, "count", drop.lost, None, on, **tags)
        yield single(RIGHT_IN_ENGINE_ONLY, "count", drop.gained, None, on, **tags)
        if self._engine.is_exact:
            differing = self._disagreements(predictions)
            yield single(DISAGREEMENTS, "count", differing, "lower", on, **tags)
        elif drop.outcome(self._max_drop) == "failed":
            low, high = drop.interval
            self._refuse(
                f"parity failed: {right.mean():.1%} of {count:,} test images are right, in torch {before.mean():.1%}: "
                f"a drop of {low:.1%} to {high:.1%} (95 % interval); {self._max_drop:.1%} is allowed "
                "(max_accuracy_drop)"
            )

    def _disagreements(self, predictions: NDArray[np.int64]) -> int:
        """Count images whose class differs from torch's, and report those that are not a tie."""
        logits, images = self._golden.logits.astype(np.float64), np.arange(len(predictions))
        margins = logits.max(axis=1) - logits[images, predictions]
        count = int((margins > self._tie).sum())
        if count:
            self._refuse(
                f"parity failed: {count:,} of {len(images):,} test images have another class than in torch, whose "
                f"two logits differ by up to {margins.max():.2g}; {self._tie:.2g} would be a tie"
            )
        return count

    def _run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = self._engine.run(images)
        if logits.shape != (len(images), self._golden.logits.shape[1]):
            wanted = shape_in_words((len(images), self._golden.logits.shape[1]))
            got = shape_in_words(logits.shape)
            raise _Incomparable(f"its output is {got} where torch's is {wanted}; export it again")
        if not np.isfinite(logits).all():
            raise _Incomparable("its output is not finite (NaN or infinite); check the weights and the precision")
        return logits

    def _refuse(self, sentence: str) -> None:
        self.fault = self.fault or sentence


def verdict(metric: str, fault: str | None, **tags: Scalar) -> Measurement:
    """Return the parity verdict: 1, or 0 with the fault as a remark."""
    return single(metric, "1", 1 if fault is None else 0, None, {} if fault is None else {"fault": fault}, **tags)


def spread(logits: NDArray[np.float64]) -> float:
    """Return the spread of an image's logits (largest minus smallest), the median over images."""
    return max(float(np.median(np.ptp(logits, axis=1))), 1e-30)


def _is_judged(layer: LayerValue, found: NDArray[np.float32] | None) -> bool:
    """Return whether a value is comparable with float64: not if float32 loses it, as in a small difference."""
    return found is not None and found.shape == layer.exact.shape and layer.own_error <= CAP


def _allowed(layer: LayerValue) -> float:
    return min(max(LAYER_FACTOR * layer.own_error, LAYER_RESOLUTION), CAP)
