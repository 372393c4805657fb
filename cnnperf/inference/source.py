"""What an engine is given to load, out of a stage's bench; nothing here imports torch."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from cnnperf import registry
from cnnperf.bench import Bench
from cnnperf.engines import Engine, EngineSource, abilities
from cnnperf.inference.samples import Inputs
from cnnperf.machine.fingerprint import usable_cores
from cnnperf.task import DEFAULT_WAITING, Choice

EXTERNAL = "onnx_data"
"""The artifact that holds the weights of an ONNX file which cannot hold them itself."""


def source_of(bench: Bench) -> EngineSource:
    """Return what the tasks before this one left for an engine to load.

    Raises StageError for a file that is no longer what its task wrote.
    """
    channels, height, width = bench.dataset.test_images.shape[1:]
    folder = bench.run / "artifacts" / bench.task.key
    folder.mkdir(parents=True, exist_ok=True)
    bench.found(EXTERNAL)  # Is checked with the others; the runtime finds it by itself, beside the file.
    return EngineSource(
        model=bench.task.cell.model,
        shape=(channels, height, width),
        num_classes=len(bench.dataset.classes),
        seed=bench.task.seed - bench.task.repeat,
        weights=bench.found("weights"),
        onnx=bench.found("onnx"),
        calibration=Inputs.of(bench).train,
        folder=folder,
        device=bench.device,
        threads=bench.task.threads or usable_cores(),
        waiting=bench.task.waiting or DEFAULT_WAITING,
    )


def import_packages(engine: Choice) -> None:
    """Import what an engine is made of, so that loading a network into it can be timed by itself."""
    for package in abilities(engine.name).packages:
        with suppress(ImportError):  # Loading says which package is missing, and the cure.
            import_module(package)


def loaded(source: EngineSource, engine: Choice) -> Engine:
    """Load what was left into an engine. Raises EngineError where that is not there, StageError where it cannot."""
    found: Engine = registry.find("engines", engine.name)(source, **engine.options)
    return found
