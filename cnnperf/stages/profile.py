"""The cost of a step layer by layer: time, arithmetic, memory, and the share of the machine's peak."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from cnnperf.bench import Bench
from cnnperf.models import load_weights
from cnnperf.profiling.passes import Profiling
from cnnperf.profiling.probes import probe
from cnnperf.profiling.settings import Profile
from cnnperf.profiling.step import STEP_KINDS, restored
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
    bench.phase("probes of the machine")
    yield from probe(bench.device, DTYPES.get(settings.recipe(1).precision, torch.float32))
    yield single("profile.threads", "count", torch.get_num_threads())
    for batch_size in settings.batch_sizes:
        bench.phase("network")
        recipe = settings.recipe(batch_size)
        data = Data.load(bench, recipe)
        model = Network.build(bench, recipe, data).model
        weights = trained_weights(bench, model)
        step = STEP_KINDS[settings.mode](model, data.batches(recipe, bench.task.seed), recipe, bench.device)
        tags: dict[str, Scalar] = {"batch_size": batch_size, "mode": settings.mode}
        parameters = sum(parameter.numel() for parameter in model.parameters())
        yield single("profile.parameters", "count", parameters, None, {"weights": weights}, **tags)
        with restored(model, bench.device.torch_name), frozen_heap():
            model.train(settings.mode == "train")
            yield from Profiling(bench, settings, model, step, tags).run()


def trained_weights(bench: Bench, model: nn.Module) -> str:
    """Load the trained weights and return `trained`, or `fresh` without a training. Raises StageError on a mismatch."""
    path = bench.found("weights")
    if path is None:
        return "fresh"
    load_weights(model, path)
    return "trained"
