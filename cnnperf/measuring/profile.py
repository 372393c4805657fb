"""Time and memory of one network by layer: `cnnperf.profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnnperf.errors import RunError, UsageError
from cnnperf.measuring.measured import (
    Measured,
    MeasurementWatcher,
    Named,
    UnwatchedMeasurement,
    lists_of_cell,
    measure_and_report,
    name_of,
    request,
)
from cnnperf.task import DEFAULT_DATASET, DEFAULT_PROFILE_MODE, Choice, ProfileMode


def profile(
    model: Named,
    *,
    dataset: Named = DEFAULT_DATASET,
    device: str = "cpu",
    batch_size: int | None = None,
    mode: ProfileMode = DEFAULT_PROFILE_MODE,
    samples: int | None = None,
    waiting: str | None = None,
    allocator: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    dry_run: bool = False,
    watcher: MeasurementWatcher | None = None,
    where: str = "cnnperf.profile",
) -> Measured:
    """Profile the time and memory of an untrained network layer by layer, in a separate process.

        layers = cnnperf.profile("lenet", dataset="mnist").report.table("layers").frame()

    model: a name, or pkg.module:callable. batch_size: images per step; default: the recipe's. samples: number of steps
    with hooks, and of steps without. data: a folder in torchvision's layout. out: run folder to create; default: a new
    one below `results/`. dry_run: measure nothing; the result has only a plan. where: name of the request in errors.
    Only the command line writes the tables as CSV files. Raises UsageError, before any measurement, if the request
    cannot be carried out; RunError if the profile failed.
    """
    network = Choice.model_construct(name=name_of(model))
    if network.is_onnx:
        raise UsageError(
            f"`model`: {network.name}: an ONNX file cannot be profiled; give a name or pkg.module:callable, "
            "or run `cnnperf infer` on the file"
        )
    section: dict[str, Any] = {"mode": mode}
    section |= {} if batch_size is None else {"batch_sizes": [batch_size]}
    section |= {} if samples is None else {"samples": samples}
    document = {**lists_of_cell(model, dataset, device), "stages": ["profile"], "profile": section}
    asked = request("profile", document, waiting, allocator, data, where)
    measured = measure_and_report(asked, out, watcher or UnwatchedMeasurement(), dry_run=dry_run)
    if dry_run:
        return measured
    [record] = measured.records
    if record.status == "skipped":
        raise UsageError(f"{record.task.label}: {record.error}; profile it on another device")
    if record.status != "ok":
        raise RunError(
            f"{record.task.label}: {record.status}: {record.error or record.signal}; see {measured.folder / 'logs'}"
        )
    return measured
