"""What this machine can do at best: several products and convolutions, and copies, each probe named.

Williams, Waterman, Patterson, "Roofline" (2009). A matrix product alone is no ceiling: convolutions may exceed it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere

from cnnperf._roofline import MEMORY_PROBE
from cnnperf.devices import Device
from cnnperf.record import Measurement

PROBE_S = 0.1
"""How long one probe is repeated, after a first time that does not count; all of them take about two seconds."""
LEAST = 3
"""How often at least."""
SQUARES = (512, 1024, 2048)
"""Sides of the matrices."""
CONVOLUTIONS = ((3, 32, 64, 32), (3, 32, 128, 16), (3, 32, 256, 8), (1, 32, 256, 16), (1, 32, 512, 8))
"""Kernel, batch, channels in and out, height and width."""
COPIES = {MEMORY_PROBE: 2**28, "copy 16 MiB": 2**24, "copy 1 MiB": 2**20}
"""Bytes. The first is the bandwidth of memory; the others fit into caches and tell what these can do."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Something to run that is known to be fast."""

    name: str
    work: float
    """FLOPs or bytes of one call."""
    call: Callable[[], object]


def probe(device: Device, dtype: torch.dtype) -> Iterator[Measurement]:
    """Measure the machine: FLOP/s of every arithmetic probe, bytes/s of every copy; every call's value."""
    with torch.inference_mode():
        for each in arithmetic(device.torch_name, dtype):
            yield _measured("profile.probe_flops_per_s", "FLOP/s", each, device)
        for each in copies(device.torch_name):
            yield _measured("profile.probe_bytes_per_s", "bytes/s", each, device)


def arithmetic(device: str, dtype: torch.dtype) -> Iterator[Probe]:
    """Yield matrix products, and convolutions in both memory formats."""
    for side in SQUARES:
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        yield Probe(f"matmul {side}×{side}", 2 * side**3, lambda left=left, right=right: left @ right)  # type: ignore[misc]
    for kernel, batch, channels, side in CONVOLUTIONS:
        for name, memory_format in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
            images, weight = (
                torch.randn(shape, device=device, dtype=dtype).contiguous(memory_format=memory_format)
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


def _measured(metric: str, unit: str, each: Probe, device: Device) -> Measurement:
    each.call()
    values: list[float] = []
    begun = perf_counter()
    while len(values) < LEAST or perf_counter() - begun < PROBE_S:
        device.synchronize()
        start = device.mark()
        each.call()
        end = device.mark()
        device.synchronize()
        values.append(each.work / device.elapsed_s(start, end))
    return Measurement(metric=metric, unit=unit, better=None, values=tuple(values), tags={"probe": each.name})
