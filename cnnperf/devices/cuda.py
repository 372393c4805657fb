"""A CUDA device. Torch is imported only if torch computes on it; other engines find the device without torch."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from cnnperf.devices import Numerics, _driver
from cnnperf.devices._driver import VisibleGpu, gpus, held_bytes
from cnnperf.errors import DeviceError, UsageError
from cnnperf.tf32 import allow_tf32

if TYPE_CHECKING:
    import torch

FIRST_WITH_TF32 = (8, 0)
"""Compute capability of Ampere, the first with TF32."""
TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"
"""Environment variable with which NVIDIA's libraries override a program's TF32 setting."""
CUBLAS_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""Workspace setting that makes cuBLAS deterministic; torch's deterministic mode requires it."""


class Cuda:
    """A CUDA device; it computes asynchronously, so it is timed by events on its own clock."""

    name = "cuda"
    is_asynchronous = True

    def __init__(self, gpu: VisibleGpu, index: int, numerics: Numerics) -> None:
        self.label = gpu.name
        self.index = index
        self.torch_name = f"cuda:{index}"
        self.numerics = numerics
        self.has_tf32 = gpu.capability >= FIRST_WITH_TF32
        self.uuid = gpu.uuid
        self._cuda: Any = None

    def ready_torch(self) -> None:
        """Make torch compute on this device with these numerical settings.

        Raises DeviceError with the reason if torch cannot.
        """
        if self._cuda is not None:
            return
        import torch

        if torch.version.cuda is None:
            raise DeviceError(
                f"torch cannot use {self.label} (torch {torch.__version__} is built without CUDA); "
                "install torch with CUDA"
            )
        if self.numerics.deterministic:
            os.environ.setdefault(*CUBLAS_WORKSPACE)  # cuBLAS reads this when it starts.
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            torch.cuda.set_device(self.index)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition(". ")[0].strip()
            built = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"
            raise DeviceError(f"torch cannot use {self.label} ({built}: {reason})") from error
        set_numerics(self.numerics)
        self._cuda = torch.cuda

    def synchronize(self) -> None:
        """Wait until the device has completed all queued work."""
        self._cuda.synchronize(self.index)

    def mark(self) -> torch.cuda.Event:
        """Record an event in the device's current stream."""
        event: torch.cuda.Event = self._cuda.Event(enable_timing=True)
        event.record(self._cuda.current_stream(self.index))
        return event

    def elapsed_s(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """Return the seconds between two marks; the device must have been synchronised since the second."""
        return float(start.elapsed_time(end)) / 1e3

    def reset_peak(self) -> bool:
        """Reset the peaks to the memory allocated now."""
        self._cuda.reset_peak_memory_stats(self.index)
        return True

    def returning_memory(self) -> AbstractContextManager[bool]:
        """Return a context that does nothing: the peaks are those of live tensors."""
        return nullcontext(True)

    def used_bytes(self) -> int:
        """Return the memory of all live tensors."""
        return int(self._cuda.memory_allocated(self.index))

    def available_bytes(self) -> None:
        """Return None: the allocator raises an exception when memory runs out."""

    def peak_bytes(self) -> dict[str, int]:
        """Return the peaks of live tensors and of the allocator's reserved memory; empty without torch."""
        if self._cuda is None:
            return {}
        return {
            "peak_bytes": int(self._cuda.max_memory_allocated(self.index)),
            "peak_reserved_bytes": int(self._cuda.max_memory_reserved(self.index)),
        }

    def held_bytes(self) -> int | None:
        """Return this process's memory according to NVML, including CUDA's context, libraries and engines' arenas."""
        return held_bytes(self.uuid)


def count() -> int:
    """Return the number of CUDA devices that this process sees. Raises DeviceError with the reason if there is none."""
    return len(gpus())


def foreign_processes(device: Cuda) -> tuple[str, ...] | None:
    """Name the other processes that compute on a device, for a process that does not; None if NVML does not tell."""
    return _driver.processes_beside(device.uuid)


def set_numerics(numerics: Numerics) -> None:
    """Set all of torch's numerical switches, whatever their previous state."""
    import torch

    allow_tf32(products=numerics.tf32, convolutions=numerics.tf32)
    cudnn = torch.backends.cudnn
    cudnn.benchmark, cudnn.deterministic = numerics.cudnn_benchmark, numerics.deterministic
    if cudnn.is_available():  # type: ignore[no-untyped-call]
        cudnn.benchmark_limit = 0  # No limit, as in ONNX Runtime's exhaustive search; torch's own is ten algorithms.
    # Otherwise each new tensor is first filled with NaN, which takes time and changes no result here.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(numerics.deterministic)


def acquire(
    *,
    index: Annotated[int, Field(ge=0)] = 0,
    tf32: bool = False,
    cudnn_benchmark: bool | None = None,
    deterministic: bool = False,
) -> Cuda:
    """Return a CUDA device by its index among the visible ones; does not import torch.

    tf32, cudnn_benchmark and deterministic apply to torch and ONNX Runtime; cudnn_benchmark is on by default unless
    deterministic is on. Raises DeviceError with the reason if there is no such device, UsageError if the options
    contradict each other, the device or the environment.
    """
    if deterministic and cudnn_benchmark:
        raise UsageError("cuda: deterministic excludes cudnn_benchmark, which chooses by measured time; leave one out")
    if TF32_OVERRIDE in os.environ:
        raise UsageError(f"{TF32_OVERRIDE} is set and overrides the option tf32; unset it")
    found = gpus()
    if index >= len(found):
        known = ", ".join(f"{number}: {gpu.name}" for number, gpu in enumerate(found))
        raise DeviceError(f"there is no CUDA device {index}; give the index of one of these: {known}")
    gpu = found[index]
    if tf32 and gpu.capability < FIRST_WITH_TF32:
        major, minor = gpu.capability
        raise UsageError(f"cuda: {gpu.name} (compute capability {major}.{minor}) has no TF32; leave tf32 out")
    search = not deterministic if cudnn_benchmark is None else cudnn_benchmark
    return Cuda(gpu, index, Numerics(tf32, search, deterministic))
