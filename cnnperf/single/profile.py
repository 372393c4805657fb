"""Where the time and memory of one network go: `cnnperf.profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from cnnperf.errors import RunError, UsageError
from cnnperf.single.measured import Measured, MeasurementWatcher, Named, UnwatchedMeasurement, cell, measure, request


def profile(
    model: Named,
    *,
    dataset: Named = "cifar10",
    device: str = "cpu",
    batch_size: int | None = None,
    mode: Literal["train", "infer"] = "train",
    samples: int | None = None,
    waiting: str | None = None,
    allocator: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    watcher: MeasurementWatcher | None = None,
    where: str = "cnnperf.profile",
) -> Measured:
    """Measure where the time and memory of a freshly built network go, layer by layer, in a process of its own.

        layers = cnnperf.profile("lenet", dataset="mnist").report.table("layers").frame()

    model: a name, or pkg.module:callable. batch_size: images a step, the recipe's if None. samples: steps with hooks,
    and as many without. data: a folder in torchvision's layout. out: the run folder to make; a new one below
    `results/` if None. where: what errors call the request.
    Raises UsageError, before anything is measured, for what cannot be carried out; RunError if the profile failed.
    """
    section: dict[str, Any] = {"mode": mode}
    section |= {} if batch_size is None else {"batch_sizes": [batch_size]}
    section |= {} if samples is None else {"samples": samples}
    document = {**cell(model, dataset, device), "stages": ["profile"], "profile": section}
    asked = request("profile", document, waiting, allocator, data, where)
    measured = measure(asked, out, watcher or UnwatchedMeasurement())
    [record] = measured.records
    if record.status == "skipped":
        raise UsageError(f"{record.task.label}: {record.error}; profile it on another device")
    if record.status != "ok":
        raise RunError(
            f"{record.task.label}: {record.status}: {record.error or record.signal}; see {measured.folder / 'logs'}"
        )
    return measured
