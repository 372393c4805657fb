"""The worker of a task, called directly."""

from __future__ import annotations

from collections.abc import Callable

from cnnperf.devices import Numerics
from cnnperf.devices._driver import VisibleGpu
from cnnperf.devices.cpu import acquire
from cnnperf.devices.cuda import Cuda
from cnnperf.record import Record
from cnnperf.tables.repeats import Repeats
from cnnperf.workers.task import device_used


def test_which_gpu_and_how_it_was_told_to_compute_is_recorded(trained: Callable[..., Record]) -> None:
    """The record has the GPU's index and its numeric settings, and the row has that GPU's label."""
    device = Cuda(VisibleGpu("Imaginary 200", "0", (8, 0)), 1, Numerics(tf32=True))
    [found] = device_used("train", device)
    assert (found.metric, found.values) == ("train.device_index", (1,))
    assert found.remarks == {"label": "Imaginary 200", "tf32": True, "cudnn_benchmark": True, "deterministic": False}
    record = trained(device={"name": "cuda", "index": 1}, measured=[found])
    assert Repeats("a run", (record,)).device_label == "Imaginary 200"


def test_of_the_cpu_there_is_nothing_to_say() -> None:
    """The CPU gives no measurement of the device."""
    assert list(device_used("train", acquire())) == []
