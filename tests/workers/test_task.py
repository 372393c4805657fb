"""The worker of a task, called directly."""

from __future__ import annotations

from collections.abc import Callable

from cnnperf.devices import Numerics
from cnnperf.devices._driver import VisibleGpu
from cnnperf.devices.cpu import acquire
from cnnperf.devices.cuda import Cuda
from cnnperf.record import Record, single
from cnnperf.tables.repeats import Repeats, disturbance
from cnnperf.workers.task import device_used


def test_which_gpu_and_how_it_was_told_to_compute_is_recorded(trained: Callable[..., Record]) -> None:
    """The record has the GPU's index and its numeric settings, and the row has that GPU's label."""
    device = Cuda(VisibleGpu("Imaginary 200", "0", (8, 0)), 1, Numerics(tf32=True))
    [found] = device_used("train", device)
    assert (found.metric, found.values) == ("train.device_index", (1,))
    assert found.remarks == {"label": "Imaginary 200", "tf32": True, "cudnn_benchmark": True, "deterministic": False}
    record = trained(device={"name": "cuda", "index": 1}, measured=[found])
    assert Repeats("a run", (record,)).device_label == "Imaginary 200"


def test_others_on_the_gpu_disturb_all_figures_of_the_task(trained: Callable[..., Record]) -> None:
    """The record has the number of other processes on the GPU, and rows of any tags say that they disturbed it."""
    device = Cuda(VisibleGpu("Imaginary 200", "0", (8, 0)), 1, Numerics())
    waited = {"waited_share": 0.0}
    [alone] = device_used("train", device, ())
    [used] = device_used("train", device, ("process 7", "process 8"))
    assert (alone.remarks["foreign_processes"], used.remarks["foreign_processes"]) == (0, 2)
    for found, words in ((alone, "no"), (used, "2 other processes computed on the device")):
        latency = single("infer.latency", "s", 1.0, "lower", waited, batch_size=8)
        record = trained(device={"name": "cuda", "index": 1}, measured=[found, latency])
        assert Repeats("a run", (record,)).disturbed == words
        assert disturbance((record,), batch_size=8) == words
        assert disturbance((record,), batch_size=9) is None


def test_of_the_cpu_there_is_nothing_to_say() -> None:
    """The CPU gives no measurement of the device."""
    assert list(device_used("train", acquire())) == []
