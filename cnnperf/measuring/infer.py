"""One network in several engines: `cnnperf.infer`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cnnperf.engines import usual
from cnnperf.errors import UsageError
from cnnperf.measuring.cell import Named, dataset_of, images_of_file, lists_of_cell, name_of, network_of
from cnnperf.measuring.measured import (
    Measured,
    MeasurementWatcher,
    UnwatchedMeasurement,
    measure_and_report,
    request,
)
from cnnperf.task import Choice


def infer(
    model: Named,
    *,
    dataset: Named | None = None,
    shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
    engines: Sequence[str] | None = None,
    batch_sizes: Sequence[int] | Literal["auto"] | None = None,
    train: float | None = None,
    samples: int | None = None,
    pairs: int | None = None,
    threads: int | None = None,
    waiting: str | None = None,
    allocator: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    allow_busy: bool = False,
    dry_run: bool = False,
    watcher: MeasurementWatcher | None = None,
    where: str = "cnnperf.infer",
) -> Measured:
    """Run one network in several engines, each in fresh processes: parity, speed and layers.

        engines = cnnperf.infer("lenet", dataset="mnist", train=20).report.table("engines").frame()

    model: a name, pkg.module:callable, or an ONNX file. dataset: default: CIFAR-10, or for an ONNX file of another
    shape generated images of its shape. shape, classes: C×H×W and number of classes of generated images in place of a
    dataset. options: of the model. engines: default: all that can run the model without compiling.
    train: seconds of training first; None: untrained weights. samples: minimum of timed calls at each batch size.
    pairs: fresh pairs of processes that take turns; 0 compares separate processes. threads: default: every usable core.
    data: a folder in torchvision's layout. out: run folder to create; default: a new one below `results/`.
    allow_busy: measure although other processes compute on the GPU.
    dry_run: measure nothing; the result has only a plan. where: name of the request in errors.
    The tables state the reason of a failed engine; only the command line writes them as CSV files. Raises UsageError if
    the request cannot be carried out; after Ctrl-C the finished records stay in the run folder.
    """
    network = Choice.model_construct(name=name_of(model))
    if network.is_onnx and train is not None:
        raise UsageError(f"`train`: {network.name}: an ONNX file cannot be trained; leave `train` out")
    if train is not None and not (math.isfinite(train) and train > 0):
        raise UsageError(f"`train`: got {train}; give a number of seconds above 0, or leave `train` out")
    is_own = network.is_onnx and dataset is None and shape is None and classes is None
    section: dict[str, Any] = {"engines": list(engines or usual(network))}
    if batch_sizes is not None:
        section["batch_sizes"] = batch_sizes if isinstance(batch_sizes, str) else list(batch_sizes)
    section |= {} if samples is None else {"samples": samples}
    section |= {} if pairs is None else {"pairs": pairs}
    images = images_of_file(network) if is_own else dataset_of(dataset, shape, classes)
    # Generated images may be too few for the default validation.
    training = {"seconds": train} | ({} if shape is None else {"validation_images": 0})
    document = {
        **lists_of_cell(network_of(model, options), images, device),
        "stages": [*(["train"] if train is not None else ()), "export", "infer"],
        "infer": section,
        **({} if train is None else {"train": training}),
        **({} if threads is None else {"threads": threads}),
    }
    asked = request("infer", document, waiting, allocator, data, where, allow_busy=allow_busy)
    measured = measure_and_report(asked, out, watcher or UnwatchedMeasurement(), dry_run=dry_run)
    if not dry_run and all(record.status == "skipped" for record in measured.records):
        first = measured.records[0]
        raise UsageError(f"{first.task.label}: {first.error}; nothing was measured")
    return measured
