"""The source that an engine loads, built from a stage's bench; this module does not import torch."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from cnnperf import registry
from cnnperf.bench import Bench
from cnnperf.engines import Engine, EngineSource, abilities
from cnnperf.inference.inputs import Inputs
from cnnperf.machine.fingerprint import usable_cores
from cnnperf.task import DEFAULT_WAITING, Choice

EXTERNAL = "onnx_data"
"""The artifact with the external weights of an ONNX file."""


def source_of(bench: Bench, *, reuses: bool = False) -> EngineSource:
    """Return the source that earlier tasks wrote for an engine.

    reuses: whether to load the files that the engine generated in another process of the task, as in pairs.
    Raises StageError if a file has changed since its task wrote it.
    """
    channels, height, width = bench.dataset.test_images.shape[1:]
    folder = bench.run / "artifacts" / bench.task.key
    folder.mkdir(parents=True, exist_ok=True)
    bench.found(EXTERNAL)  # Only verified here; the runtime finds it beside the file.
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
        reuses=reuses,
    )


def import_packages(engine: Choice, model: Choice) -> None:
    """Import what loading a network needs, so that its time excludes imports.

    These are the engine's packages and, for an engine that builds the network itself, the model's module.
    """
    known = abilities(engine.name)
    for package in known.packages:
        with suppress(ImportError):  # Loading reports the missing package and the cure.
            import_module(package)
    if not known.loads:
        registry.find("models", model.name)


def loaded(source: EngineSource, engine: Choice) -> Engine:
    """Load the source into an engine. Raises EngineError if the engine is unavailable, StageError if loading fails."""
    found: Engine = registry.make("engines", engine.name, source, **engine.options)
    return found
