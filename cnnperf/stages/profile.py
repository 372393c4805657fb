"""The cost of a step layer by layer: time, arithmetic, memory, and the share of the machine's peak."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import torch
from torch import nn

from cnnperf.bench import Bench
from cnnperf.models import load_weights
from cnnperf.profiling.passes import Profiling
from cnnperf.profiling.probes import probe
from cnnperf.profiling.settings import Profile
from cnnperf.profiling.step import STEP_KINDS, InferenceStep, TrainingStep, restored
from cnnperf.record import Measurement, single
from cnnperf.task import Scalar
from cnnperf.training.optimise import DTYPES
from cnnperf.training.setup import Data, Network, frozen_heap


def measure(bench: Bench, settings: Profile) -> Iterator[Measurement]:
    """Profile the task's network at each batch size, with the weights of its training where that ran.

    Yields raw samples in SI units, tagged with `batch_size`, `mode` and, per layer, `layer`; the machine's probes come
    first. Writes an artifact `trace_<batch size>` for each batch size. Raises UsageError if the batch is too large for
    the dataset or the network returns no tensor, StageError if a weight file does not fit the network.
    """
    settings.check(bench.device.name, len(bench.dataset.train_labels), len(bench.dataset.test_labels))
    bench.device.ready_torch()
    torch.manual_seed(bench.task.seed)
    if not bench.device.is_asynchronous:
        yield from process_peaks(bench, settings)
    torch.manual_seed(bench.task.seed)
    bench.phase("probes of the machine")
    yield from probe(bench.device, DTYPES.get(settings.recipe(1).precision, torch.float32))
    yield single("profile.threads", "count", torch.get_num_threads())
    for batch_size in settings.batch_sizes:
        bench.phase("network")
        model, weights, step = built(bench, settings, batch_size)
        tags: dict[str, Scalar] = {"batch_size": batch_size, "mode": settings.mode}
        parameters = sum(parameter.numel() for parameter in model.parameters())
        yield single("profile.parameters", "count", parameters, None, {"weights": weights}, **tags)
        with restored(model, bench.device.torch_name), frozen_heap():
            model.train(settings.mode == "train")
            yield from Profiling(bench, settings, model, step, tags).run()


def process_peaks(bench: Bench, settings: Profile) -> Iterator[Measurement]:
    """Yield the rise of the process's memory by a step at each batch size, in bytes; nothing if not measurable.

    Freed memory is returned meanwhile, since its amount differs between processes. This comes before all other work:
    a block that had been freed in the heap would be used again, and kept when it is freed again.
    """
    bench.phase("memory")
    device = bench.device
    with device.returning_memory() as returns:
        for batch_size in settings.batch_sizes if returns else ():
            model, _, step = built(bench, settings, batch_size)
            model.train(settings.mode == "train")
            for _ in range(2):  # The first allocates the optimizer's state.
                step()
            gc.collect()  # Garbage that is freed meanwhile would make the step seem to take less.
            if device.reset_peak():
                start = device.used_bytes()
                step()
                risen = max(0, device.peak_bytes().get("peak_bytes", start) - start)
                tags: dict[str, Scalar] = {"batch_size": batch_size, "mode": settings.mode}
                yield single("profile.process_peak_above_start_bytes", "bytes", risen, None, **tags)


def built(bench: Bench, settings: Profile, batch_size: int) -> tuple[nn.Module, str, TrainingStep | InferenceStep]:
    """Build the network; return it, the origin of its weights as `trained_weights` has it, and its step."""
    recipe = settings.recipe(batch_size)
    data = Data.load(bench, recipe)
    model = Network.build(bench, recipe, data).model
    weights = trained_weights(bench, model)
    step = STEP_KINDS[settings.mode](model, data.batches(recipe, bench.task.seed), recipe, bench.device)
    return model, weights, step


def trained_weights(bench: Bench, model: nn.Module) -> str:
    """Load the trained weights and return `trained`, or `fresh` without a training. Raises StageError on a mismatch."""
    path = bench.found("weights")
    if path is None:
        return "fresh"
    load_weights(model, path)
    return "trained"
