"""A fake GPU: tensors lie on the CPU, work is queued on a simulated clock, and the host's clocks stand still.

Every operator takes the host `launch_s` and the device `kernel_s`. Calls of `torch.cuda` are answered from here for
one device of two; a call that names the other, or none, is refused, as is an event that the device has not reached.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch._dynamo  # It keeps a table of torch's functions, which must be made before any is replaced.
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnnperf.devices import cuda
from cnnperf.devices._driver import VisibleGpu
from cnnperf.tf32 import allow_tf32, tf32_allowed

INDEX = 1
GPUS = (
    VisibleGpu("Imaginary 100", "00000000-0000-0000-0000-000000000000", (8, 0)),
    VisibleGpu("Imaginary 200", "ab" * 16, (9, 0)),
)
BLOCK = 2**21
"""Bytes that the allocator reserves at a time."""
SCALAR = torch.ops.aten._local_scalar_dense.default


class Timeline:
    """The clocks of the host and of the device, and the memory of the device's tensors."""

    def __init__(self, launch_s: float, kernel_s: float) -> None:
        self.launch_s, self.kernel_s = launch_s, kernel_s
        self.now = 0.0
        """The host's time."""
        self.cpu_s = 0.0
        """CPU time that the host's process has used: a process that waits spins."""
        self.done = 0.0
        """When the device will have done all that it was given."""
        self.waits = 0
        self.launched: Counter[str] = Counter()
        self.allocated = self.peak = self.reserved = self.peak_reserved = 0
        self._known: set[int] = set()

    def launch(self, operator: str) -> None:
        """Queue an operator."""
        self.launched[operator] += 1
        self.now += self.launch_s
        self.cpu_s += self.launch_s
        self.done = max(self.now, self.done) + self.kernel_s

    def wait(self) -> None:
        """Move the host's clock to the end of the device's work."""
        self.waits += 1
        spun = max(0.0, self.done - self.now)
        self.now += spun
        self.cpu_s += spun

    def track(self, tensor: Tensor) -> None:
        """Count a tensor's memory until the tensor is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or not size:
            return
        self._known.add(key)
        self._grow(size)
        weakref.finalize(storage, self._free, key, size)

    def _grow(self, size: int) -> None:
        self.allocated += size
        self.peak = max(self.peak, self.allocated)
        self.reserved = max(self.reserved, -(-self.allocated // BLOCK) * BLOCK + BLOCK)
        self.peak_reserved = max(self.peak_reserved, self.reserved)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.allocated -= size


class Queue(TorchDispatchMode):
    """A mode that queues every operator on the timeline."""

    def __init__(self, timeline: Timeline) -> None:
        super().__init__()
        self._timeline = timeline

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute at once, and queue the operator's time."""
        result = func(*args, **(kwargs or {}))
        if func is SCALAR:
            self._timeline.wait()  # As torch does before it hands a value to the host.
            return result
        self._timeline.launch(func.overloadpacket.__name__)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._timeline.track(leaf)
        return result


@dataclass(frozen=True)
class FakeCuda:
    """The fake GPU of a test: the device and its timeline."""

    device: cuda.Cuda
    timeline: Timeline

    @contextmanager
    def running(self) -> Iterator[Timeline]:
        """Run every operator of the block on the device."""
        with Queue(self.timeline):
            yield self.timeline


@contextmanager
def installed(launch_s: float = 1e-5, kernel_s: float = 1e-4, **options: Any) -> Iterator[FakeCuda]:
    """Replace torch's CUDA and every clock of cnnperf by a timeline, and acquire the second device."""
    with pytest.MonkeyPatch.context() as patch, numerics_kept():
        timeline = Timeline(launch_s, kernel_s)
        for name, answer in torch_cuda(timeline).items():
            patch.setattr(torch.cuda, name, answer)
        patch.setattr(torch.version, "cuda", "13.0")
        patch.setattr(cuda, "gpus", lambda: GPUS)
        stop_clocks(patch, timeline)
        acquire = cuda.acquire

        def acquired(**given: Any) -> cuda.Cuda:
            device = acquire(**given)
            device.torch_name = "cpu"
            return device

        patch.setattr(cuda, "acquire", acquired)
        device = acquired(index=INDEX, **options)
        device.ready_torch()
        yield FakeCuda(device, timeline)


def torch_cuda(timeline: Timeline) -> dict[str, Any]:
    """Return the replacements of torch.cuda's functions, by name."""

    def at_work(index: int | None = None) -> Timeline:
        assert index == INDEX, f"asked device {index}, and {INDEX} is at work"
        return timeline

    class Event:
        """An event on the device's clock, which is reached when all earlier work is done."""

        def __init__(self, enable_timing: bool = False) -> None:
            assert enable_timing

        def record(self, stream: Timeline) -> None:
            self.at = max(stream.now, stream.done)

        def elapsed_time(self, end: Event) -> float:
            if max(self.at, end.at) > timeline.now + 1e-12:
                raise RuntimeError("CUDA error: device not ready")
            return 1e3 * (end.at - self.at)

    def reset(index: int | None = None) -> None:
        at_work(index).peak, timeline.peak_reserved = timeline.allocated, timeline.reserved

    return {
        "init": lambda: None,
        "set_device": at_work,
        "current_stream": at_work,
        "synchronize": lambda index=None: at_work(index).wait(),
        "Event": Event,
        "memory_allocated": lambda index=None: at_work(index).allocated,
        "max_memory_allocated": lambda index=None: at_work(index).peak,
        "max_memory_reserved": lambda index=None: at_work(index).peak_reserved,
        "reset_peak_memory_stats": reset,
    }


@contextmanager
def numerics_kept() -> Iterator[None]:
    """Restore all of torch's numerical switches at the end of the block."""
    cudnn, deterministic = torch.backends.cudnn, torch.utils.deterministic
    names = ("benchmark", "deterministic", "benchmark_limit")
    before = {name: getattr(cudnn, name) for name in names}
    filled, products_and_convolutions = deterministic.fill_uninitialized_memory, tf32_allowed()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is not None:
                setattr(cudnn, name, value)
        torch.use_deterministic_algorithms(False)
        deterministic.fill_uninitialized_memory = filled
        products, convolutions = products_and_convolutions
        allow_tf32(products=products, convolutions=convolutions)


def stop_clocks(patch: pytest.MonkeyPatch, timeline: Timeline) -> None:
    """Make every clock that a module of cnnperf reads show the timeline's time."""
    clocks = {
        "perf_counter": lambda: timeline.now,
        "perf_counter_ns": lambda: round(1e9 * timeline.now),
        "process_time": lambda: timeline.cpu_s,
        "process_time_ns": lambda: round(1e9 * timeline.cpu_s),
    }
    for name, module in list(sys.modules.items()):
        if name.startswith("cnnperf"):
            for clock, stopped in clocks.items():
                if getattr(module, clock, None) is getattr(time, clock):
                    patch.setattr(module, clock, stopped)
