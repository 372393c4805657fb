"""The peak of memory compared with a tensor of known size."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cnnperf.claims import Bar, CheckedFigure, Context, NotApplicable
from cnnperf.devices import Device

CLAIM = "The memory peak rises by the size of a tensor, stays when the tensor is freed, and is cleared by a reset."
LIMIT_S = 60.0

TENSOR_BYTES = 256 * 2**20
BAR = Bar.within(
    8 * 2**20, "the kernel counts resident pages in batches of a few MiB; CUDA's allocator rounds up by 2 MiB at most"
)


def check(context: Context) -> Iterator[CheckedFigure]:
    """Write and free a tensor of 256 MiB; read the peak, and the peak after a reset."""
    import torch

    device = context.acquire()

    def written(size: int) -> Callable[[], object]:
        return lambda: torch.ones(size, dtype=torch.uint8, device=device.torch_name)

    written(2**20)()  # Excludes the memory that the first tensor of a process allocates besides its own.
    source = "number of elements × 1 byte"
    yield _checked("a tensor, written and gone", _risen(device, written(TENSOR_BYTES)), TENSOR_BYTES, source)
    yield _checked("nothing, after a reset", _risen(device, lambda: None), 0, source)
    if torch.device(device.torch_name).type == "cpu":
        reserved = _risen(device, lambda: torch.empty(TENSOR_BYTES, dtype=torch.uint8))
        yield _checked("a tensor, reserved and never written", reserved, 0, "the kernel maps a page when it is written")


def _risen(device: Device, use: Callable[[], object]) -> int:
    """Return the peak above the memory in use before."""
    if not device.reset_peak() or "peak_bytes" not in device.peak_bytes():
        raise NotApplicable("this system does not permit the peak of memory to be read and reset")
    start = device.used_bytes()
    use()
    device.synchronize()
    return device.peak_bytes()["peak_bytes"] - start


def _checked(quantity: str, figure: int, reading: int, source: str) -> CheckedFigure:
    return CheckedFigure(
        quantity=quantity, unit="bytes", figure=figure, reading=reading, source=source, relative=False, bar=BAR
    )
