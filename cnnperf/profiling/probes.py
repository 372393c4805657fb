"""Peak performance of this machine, measured by named probes: matrix products, convolutions and copies.

Williams, Waterman, Patterson, "Roofline" (2009). A matrix product alone is no ceiling: convolutions may exceed it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere

from cnnperf.devices import Device
from cnnperf.errors import is_out_of_memory
from cnnperf.record import Measurement
from cnnperf.roofline import ARITHMETIC, MEMORY_PROBE
from cnnperf.task import Scalar
from cnnperf.tf32 import tf32
from cnnperf.timing.sampling import MARGIN
from cnnperf.training.optimise import DTYPES

PROBE_S = 0.1
"""Duration of a probe's repetitions, after a first call that does not count; all probes take about two seconds."""
LEAST = 3
"""Minimum number of repetitions."""
QUEUED_S = 0.010
"""Minimum duration of the calls between two marks on an asynchronous device, where a single call's time would include
its launch."""
SQUARES = (512, 1024, 2048)
"""Sides of the matrices."""
CONVOLUTIONS = ((3, 32, 64, 32), (3, 32, 128, 16), (3, 32, 256, 8), (1, 32, 256, 16), (1, 32, 512, 8))
"""Kernel, batch, channels in and out, height and width."""
LARGE_SQUARES = (4096, 8192)
LARGE_CONVOLUTIONS = ((3, 256, 128, 32), (3, 256, 256, 16), (1, 256, 512, 16))
"""Larger sizes that a GPU needs for full load; a CPU would take minutes."""
COPIES = {MEMORY_PROBE: 2**28, "copy 16 MiB": 2**24, "copy 1 MiB": 2**20}
"""Sizes in bytes. The first measures memory bandwidth; the others fit into caches and measure cache bandwidth."""


NAMES = {dtype: name for name, dtype in DTYPES.items()}
"""Names of the precisions other than float32."""


@dataclass(frozen=True, slots=True)
class Probe:
    """An operation that is known to be fast."""

    name: str
    work: float
    """FLOPs or bytes of one call."""
    call: Callable[[], object]


def probe(device: Device, dtype: torch.dtype) -> Iterator[Measurement]:
    """Measure the machine: FLOP/s of every arithmetic probe, bytes/s of every copy; every sample's value.

    If float32 may also use TF32, the ceiling has the device's setting; the other precision is a separate metric,
    `profile.tf32_probe_flops_per_s` or `profile.fp32_probe_flops_per_s`.
    """
    is_tf32 = device.numerics is not None and device.numerics.tf32 and dtype == torch.float32
    precision = NAMES.get(dtype, _of_float32(is_tf32))
    yield from _all(arithmetic(device, dtype), ARITHMETIC, "FLOP/s", device, {"precision": precision})
    if device.has_tf32 and dtype == torch.float32:
        other = _of_float32(not is_tf32)
        with tf32(not is_tf32):
            found = list(_all(arithmetic(device, dtype), f"profile.{other}_probe_flops_per_s", "FLOP/s", device))
        yield from found
    yield from _all(copies(device.torch_name), "profile.probe_bytes_per_s", "bytes/s", device)


def _of_float32(is_tf32: bool) -> str:
    return "tf32" if is_tf32 else "fp32"


def arithmetic(device: Device, dtype: torch.dtype) -> Iterator[Probe]:
    """Yield matrix products, and convolutions in both memory formats; larger ones too for a GPU."""
    is_large = device.is_asynchronous
    for side in (*SQUARES, *(LARGE_SQUARES if is_large else ())):
        left, right = (torch.randn(side, side, device=device.torch_name, dtype=dtype) for _ in range(2))
        yield Probe(f"matmul {side}×{side}", 2 * side**3, lambda left=left, right=right: left @ right)  # type: ignore[misc]
    for kernel, batch, channels, side in (*CONVOLUTIONS, *(LARGE_CONVOLUTIONS if is_large else ())):
        for name, memory_format in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
            images, weight = (
                torch.randn(shape, device=device.torch_name, dtype=dtype).contiguous(memory_format=memory_format)
                for shape in ((batch, channels, side, side), (channels, channels, kernel, kernel))
            )
            yield Probe(
                f"conv {kernel}×{kernel} {batch}×{channels}×{side}×{side} {name}",
                2 * batch * side**2 * channels**2 * kernel**2,
                lambda images=images, weight=weight, kernel=kernel: F.conv2d(images, weight, padding=kernel // 2),  # type: ignore[misc]
            )


def copies(device: str) -> Iterator[Probe]:
    """Yield copies, which read and write each byte once."""
    for name, size in COPIES.items():
        source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
        yield Probe(name, 2 * size, lambda source=source, target=target: target.copy_(source))  # type: ignore[misc]


def _all(
    probes: Iterator[Probe], metric: str, unit: str, device: Device, remarks: Mapping[str, Scalar] = {}
) -> Iterator[Measurement]:
    with torch.inference_mode():
        for each in probes:
            try:
                values = tuple(_values(each, device))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                continue  # A probe that exceeds the device's memory is omitted.
            yield Measurement(
                metric=metric, unit=unit, better=None, values=values, tags={"probe": each.name}, remarks=remarks
            )


def _values(each: Probe, device: Device) -> Iterator[float]:
    """Yield work per second; a sample is one call, or many calls if they only queue work."""
    each.call()
    calls = _queued(each, device) if device.is_asynchronous else 1
    begun, count = perf_counter(), 0
    while count < LEAST or perf_counter() - begun < PROBE_S:
        yield calls * each.work / _seconds(each, calls, device)
        count += 1


def _queued(each: Probe, device: Device) -> int:
    """Return the number of calls that last long enough."""
    calls = 1
    while (elapsed_s := _seconds(each, calls, device)) < QUEUED_S:
        calls = max(calls + 1, min(10 * calls, math.ceil(MARGIN * calls * QUEUED_S / max(elapsed_s, 1e-9))))
    return calls


def _seconds(each: Probe, calls: int, device: Device) -> float:
    device.synchronize()
    start = device.mark()
    for _ in range(calls):
        each.call()
    end = device.mark()
    device.synchronize()
    return device.elapsed_s(start, end)
