"""Memory in use compared with the system's count: the kernel's page tables, or NVML."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psutil

from cnnperf.claims import Bar, CheckedFigure, Context, NotApplicable
from cnnperf.claims._nvml import used_bytes as nvml_used_bytes
from cnnperf.devices import Device

CLAIM = "The memory in use is what the system counts, for a known tensor and, on CUDA, for a training step."
LIMIT_S = 90.0

TENSOR_BYTES = 512 * 2**20
BAR = Bar.within(0.02, "both count pages: of 4 KiB (CPU, in batches of a few MiB), or segments of 2 MiB (CUDA)")
STEP_MODEL, STEP_IMAGES = "vgg", 256
"""Sizes of a step of some hundreds of MiB, which is large compared with a segment of the allocator."""
STEP_BAR = Bar.within(
    0.05, "NVML also counts memory that libraries load; an earlier step of the same shape has loaded most of it"
)


def check(context: Context) -> Iterator[CheckedFigure]:
    """Compare project and system for a tensor of 512 MiB, then for the memory that a training step reserved."""
    import torch

    device = context.acquire()
    kind = torch.device(device.torch_name).type
    if kind not in SYSTEMS:
        raise NotApplicable(f"no other counter of the memory of {kind} is known")
    system, source = SYSTEMS[kind]
    torch.ones(2**20, dtype=torch.uint8, device=device.torch_name)  # Allocates what comes with a first tensor.
    device.synchronize()
    ours, theirs = device.used_bytes(), system()
    held = torch.ones(TENSOR_BYTES, dtype=torch.uint8, device=device.torch_name)
    device.synchronize()
    figure, reading = device.used_bytes() - ours, system() - theirs
    del held
    yield _checked("a tensor of 512 MiB, in use", figure, reading, source, BAR)
    if kind == "cuda":
        yield _step(device, system, source)


def _step(device: Device, system: Callable[[], int], source: str) -> CheckedFigure:
    """Take a training step on CUDA, and compare the memory reserved for it: the project's peak with NVML."""
    import torch
    from torch.nn.functional import cross_entropy

    from cnnperf import models
    from cnnperf.task import Choice

    model = models.create(Choice(name=STEP_MODEL), (3, 32, 32), 10).to(device.torch_name)
    images = torch.rand(STEP_IMAGES, 3, 32, 32, device=device.torch_name)
    labels = torch.zeros(STEP_IMAGES, dtype=torch.int64, device=device.torch_name)

    def step() -> None:
        cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)
        device.synchronize()

    step()
    torch.cuda.empty_cache()
    start, before = torch.cuda.memory_reserved(), system()
    device.reset_peak()
    step()
    # The allocator keeps reserved memory, so that NVML, which records no peak, still counts it.
    figure, reading = device.peak_bytes()["peak_reserved_bytes"] - start, system() - before
    return _checked(
        f"a training step of {STEP_MODEL}, {STEP_IMAGES} images, reserved", figure, reading, source, STEP_BAR
    )


def resident_bytes() -> int:
    """Return the resident set, which the kernel computes for smaps by a walk over the page tables (proc(5))."""
    try:
        return sum(each.rss for each in psutil.Process().memory_maps())
    except (OSError, psutil.Error) as error:
        raise NotApplicable(f"/proc/self/smaps cannot be read ({error})") from error


SYSTEMS: dict[str, tuple[Callable[[], int], str]] = {
    "cpu": (resident_bytes, "Rss of all maps in /proc/self/smaps, by psutil"),
    "cuda": (nvml_used_bytes, "NVML (nvidia-smi, memory.used of this GPU)"),
}
"""Independent counters by the kind of the device."""


def _checked(quantity: str, figure: int, reading: int, source: str, bar: Bar) -> CheckedFigure:
    return CheckedFigure(quantity=quantity, unit="bytes", figure=figure, reading=reading, source=source, bar=bar)
