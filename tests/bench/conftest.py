"""The export of a network, for the benchmarks of engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cnnperf import registry
from cnnperf.bench import Bench
from cnnperf.datasets import Roots
from cnnperf.devices.cpu import acquire
from cnnperf.machine.fingerprint import fingerprint
from cnnperf.record import Artifact, Record
from cnnperf.task import Cell, Choice, Task


@pytest.fixture
def exported(tmp_path: Path) -> Callable[[str], Bench]:
    """Return a function that exports a network and returns a bench of its infer stage, with one thread."""

    def make(model: str) -> Bench:
        from cnnperf.inference.exporting import Export
        from cnnperf.stages.export import measure

        dataset = registry.find("datasets", "synthetic")(
            Roots(cache=tmp_path), None, shape=(3, 32, 32), train=512, test=64
        )
        cell = Cell(dataset=Choice(name="synthetic"), model=Choice(name=model), device=Choice(name="cpu"))
        task = Task(cell=cell, stage="export", seed=0, threads=1, timeout_s=600, data=dataset.provenance)
        first = Bench(task, acquire(), dataset, tmp_path, lambda **numbers: None)
        list(measure(first, Export()))
        made = Record(
            task=task,
            key=task.key,
            machine=fingerprint(),
            started="2025-01-02T03:04:05Z",
            duration_s=0.0,
            status="ok",
            artifacts={kind: Artifact(path=path) for kind, path in first.artifacts.items()},
        )
        variant = task.model_copy(update={"stage": "infer", "variant": {"engine": "onnxruntime"}})
        return Bench(variant, acquire(), dataset, tmp_path, first.progress, {}, {"export": made})

    return make
