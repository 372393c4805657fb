"""Time and memory of one network by layer: `cnnperf.profile`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnperf.errors import RunError, UsageError
from cnnperf.measuring.cell import Named, dataset_of, lists_of_cell, name_of, network_of
from cnnperf.measuring.measured import (
    Measured,
    MeasurementWatcher,
    UnwatchedMeasurement,
    measure_and_report,
    request,
)
from cnnperf.task import DEFAULT_PROFILE_MODE, Choice, ProfileMode


def profile(
    model: Named,
    *,
    dataset: Named | None = None,
    shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
    batch_size: int | None = None,
    mode: ProfileMode = DEFAULT_PROFILE_MODE,
    samples: int | None = None,
    waiting: str | None = None,
    allocator: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    allow_busy: bool = False,
    dry_run: bool = False,
    watcher: MeasurementWatcher | None = None,
    where: str = "cnnperf.profile",
) -> Measured:
    """Profile the time and memory of an untrained network layer by layer, in a separate process.

        layers = cnnperf.profile("lenet", dataset="mnist").report.table("layers").frame()

    model: a name, or pkg.module:callable. dataset: default: CIFAR-10. shape, classes: C×H×W and number of classes of
    generated images in place of a dataset. options: of the model. batch_size: images per step; default: the recipe's.
    samples: number of steps with hooks, and of steps without. data: a folder in torchvision's layout. out: run folder
    to create; default: a new one below `results/`. allow_busy: measure although other processes compute on the GPU.
    dry_run: measure nothing; the result has only a plan. where: name of the request in errors.
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
    images = dataset_of(dataset, shape, classes, batch_size)
    document = {**lists_of_cell(network_of(model, options), images, device), "stages": ["profile"], "profile": section}
    asked = request("profile", document, waiting, allocator, data, where, allow_busy=allow_busy)
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
