"""An ONNX Runtime session opened by hand, and the project's engine; this module does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnperf import registry
from cnnperf.claims import Context
from cnnperf.claims._stages import Made
from cnnperf.datasets import Dataset
from cnnperf.devices import Device
from cnnperf.engines import FILES, Engine, EngineSource, NormalisedImages, baseline_of
from cnnperf.inference.inputs import GOLDEN_IMAGES, Inputs
from cnnperf.task import DEFAULT_WAITING

DOCUMENTED_PROVIDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # Without TF32, torch's convolutions are float32: tensor cores would round the operands to 10 bits.
    "cuda": ("CUDAExecutionProvider", {"use_tf32": 0}),
}
"""Provider and its options by device, from the documentation of ONNX Runtime."""


def inputs(dataset: Dataset) -> Inputs:
    """Return the images' normalisation by the dataset's mean and standard deviation."""
    mean, std = (np.array(each, np.float64)[:, None, None] for each in (dataset.mean, dataset.std))
    return Inputs(dataset, (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32))


def engine(context: Context, made: Made, file: Path) -> Engine:
    """Load an ONNX file into the project's engine."""
    data = made.dataset
    channels, height, width = data.test_images.shape[1:]
    source = EngineSource(
        model=made.record("export").task.cell.model,
        shape=(channels, height, width),
        num_classes=len(data.classes),
        seed=0,
        weights=None,
        onnx=file,
        calibration=inputs(data).train,
        folder=context.scratch,
        device=context.acquire(),
        threads=context.threads,
        waiting=DEFAULT_WAITING,
    )
    loaded: Engine = registry.find("engines", baseline_of(FILES))(source)
    return loaded


def session(context: Context, file: Path, *, profile: Path | None = None) -> Any:
    """Open a session by hand; with a profile prefix, the session writes each kernel run to a file with that prefix."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = context.threads
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return onnxruntime.InferenceSession(str(file), options, providers=[DOCUMENTED_PROVIDERS[context.device]])


def session_logits(session: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a session on a batch."""
    [found] = session.run(None, {session.get_inputs()[0].name: images})
    return np.asarray(found)


def relative_difference(
    session: Any, images: NDArray[np.float32], logits: NDArray[np.float32], batch_size: int
) -> float:
    """Return the largest difference from torch's logits, relative to the largest logit, of the images of `infer`.

    images: those of which torch also computed float64.
    """
    # The same batches as in the project's figure, because kernels differ with the batch size.
    rows = np.arange(max(batch_size, GOLDEN_IMAGES // 4)) % len(images)
    rows = rows[: len(rows) // batch_size * batch_size]
    found = [session_logits(session, images[each]) for each in np.split(rows, len(rows) // batch_size)]
    return float(abs(np.concatenate(found) - logits[rows]).max() / abs(logits[rows]).max())


def bare_calls(
    engine: Engine, images: NormalisedImages, device: Device
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return ONNX Runtime's own call of the engine's session, and one that reads the logits; both bypass the engine.

    On a GPU the first call leaves images and logits on the device, as the engine's call does.
    """
    # Not a second session: two sessions of the same file may differ in speed.
    session: Any = engine._session  # type: ignore[attr-defined]
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    run, names, feed = session.run, [output], {name: images}
    if device.name == "cpu":
        return lambda: run(names, feed), lambda: run(names, feed)
    import onnxruntime

    binding, place = session.io_binding(), (device.name, device.index)
    binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(images, *place))
    binding.bind_output(output, *place)
    return lambda: session.run_with_iobinding(binding), lambda: run(names, feed)
