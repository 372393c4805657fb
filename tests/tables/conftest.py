"""Fixtures that tests of several tables share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cnnperf.record import PARITY, Measurement, Record, single

Trained = Callable[..., Record]


@pytest.fixture
def engine(trained: Trained) -> Callable[..., Record]:
    """Return a maker of an engine's record."""

    def make(
        name: str,
        latency: Sequence[float],
        ratios: Sequence[float] = (),
        *,
        accuracy: float | None = 0.5,
        n: int = 1000,
        batch_size: int = 8,
        samples: Sequence[Sequence[float]] = (),
        error: str | None = None,
        fault: bool = False,
        **changes: Any,
    ) -> Record:
        tags = {"engine": name, "batch_size": batch_size}
        measured = [
            Measurement(metric="infer.latency", unit="s", better="lower", values=tuple(latency), tags=tags),
            Measurement(metric="infer.error_to_float64", unit="1", better="lower", values=(1e-7,), tags=tags),
        ]
        if accuracy is not None:
            measured.append(single("infer.test_accuracy", "fraction", accuracy, "higher", {"n": n}, engine=name))
            measured.append(single(PARITY, "1", 0 if fault else 1, engine=name))
        for pair, ratios_of_pair in enumerate(samples or [[ratio] for ratio in ratios]):
            for side, values in (("baseline", tuple(ratios_of_pair)), ("candidate", (1.0,) * len(ratios_of_pair))):
                on = {**tags, "pair": pair, "side": side}
                measured.append(Measurement(metric="infer.pair_seconds", unit="s", better=None, values=values, tags=on))
        if ratios:
            measured.append(
                Measurement(metric="infer.speedup", unit="1", better="higher", values=tuple(ratios), tags=tags)
            )
        record = trained(**changes)
        settings = {**record.task.settings, "max_accuracy_drop": 0.02}
        task = record.task.model_copy(update={"stage": "infer", "variant": {"engine": name}, "settings": settings})
        status = "failed" if error or fault else "ok"
        made = record.model_copy(
            update={"task": task, "status": status, "error": error, "measurements": tuple(measured)}
        )
        return made.model_copy(update={"key": task.key})

    return make
