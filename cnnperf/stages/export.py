"""Export a trained network to a checked ONNX file with dynamic batch, and store torch's outputs as reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from cnnperf.bench import Bench
from cnnperf.datasets import Roots
from cnnperf.engines import baseline
from cnnperf.inference import golden_file
from cnnperf.inference.exporting import CachedExport, Export, content_hash, copy, export, file_facts, proved
from cnnperf.inference.golden import golden
from cnnperf.inference.inputs import LAYER_IMAGES, Inputs, save_values
from cnnperf.inference.source import EXTERNAL, loaded, source_of
from cnnperf.onnx_file import external, require, signature
from cnnperf.record import Measurement, single
from cnnperf.task import Choice

LEAVES = ("onnx", "onnx_data", "golden", "layers")

GOLDEN_FILE = "golden.npz"


def measure(bench: Bench, settings: Export) -> Iterator[Measurement]:
    """Export the network, from its trained weights or freshly built, and check the file.

    Yields seconds, sizes and counts. Writes the artifacts `onnx`, `golden` (torch's outputs for test images in float32
    and float64) and `layers` (every value of the file's graph in float64). A model that is an ONNX file is checked and
    not changed. If it takes other inputs than images or returns no logits, there is neither `golden` nor `layers`; if
    its batch is fixed, there is no `layers`. Raises StageError if the network cannot be exported or the export computes
    something else, EngineError if onnx is not installed.
    """
    path = bench.artifact("onnx", "model.onnx")
    require("export", "onnx", "onnxruntime")
    if bench.task.cell.model.is_onnx:
        bench.phase("check of the file")
        copy(Path(bench.task.cell.model.name), path)
        _enter_external(bench, path)
        yield from file_facts(path)
        _keep_reference(bench, path, settings)
        return
    require("export", "onnxscript")
    inputs = Inputs.of(bench)
    bench.phase("network")
    model = loaded(source_of(bench), Choice(name=baseline(bench.task.cell.model))).model
    cached = CachedExport(Roots.from_environment().cache / "onnx" / f"{content_hash(bench, model, settings)}.onnx")
    cure = "try another opset"
    if found := cached.read():
        cure = f"remove {cached.path}"
        content, nodes = found
        path.write_bytes(content)
    else:
        bench.phase("export to ONNX")
        start = perf_counter()
        nodes = export(model, inputs.batch(2), path, settings)
        yield single("export.export_seconds", "s", perf_counter() - start, "lower")
        if not external(path).exists():
            cached.write(path.read_bytes(), nodes)
    _enter_external(bench, path)
    yield single("export.torch_nodes", "count", nodes)
    yield from file_facts(path)
    bench.phase("reference logits")
    of_torch = golden(model, inputs, bench.device.torch_name, settings.test_images)
    of_torch.save(bench.artifact("golden", GOLDEN_FILE))
    images = inputs.test(of_torch.indices[:LAYER_IMAGES])
    yield from proved(model, of_torch, _keep_layers(bench, path, images), images, cure)
    yield single("export.threads", "count", torch.get_num_threads())


def _keep_reference(bench: Bench, path: Path, settings: Export) -> None:
    """Write the artifacts `golden` and `layers` of a file; neither unless it returns logits of images."""
    found = signature(path)
    if found.unchecked:
        return
    bench.phase("reference logits")
    inputs = replace(Inputs.of(bench), are_pixels=found.takes_pixels)
    of_file = golden_file.golden_of_file(path, inputs, settings.test_images, found.batch)
    of_file.save(bench.artifact("golden", GOLDEN_FILE))
    if found.batch is None:  # Else its values are those of another number of images.
        _keep_layers(bench, path, inputs.test(of_file.indices[:LAYER_IMAGES]))


def _enter_external(bench: Bench, path: Path) -> None:
    """Record an external weight file, if any, as a separate artifact."""
    if external(path).exists():
        bench.artifact(EXTERNAL, external(path).name)


def _keep_layers(bench: Bench, path: Path, images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Write the artifact `layers`, every value of the file's graph, and return the logits in float64."""
    bench.phase("layers in float64")
    exact = golden_file.in_float64(path, images)
    save_values(golden_file.layer_values(path, images, exact), bench.artifact("layers", "layers.npz"))
    return next(iter(exact.values()))
