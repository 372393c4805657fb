"""Work for a device, and torch's function to wait for it. This module imports torch."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch

MATRIX_SIZES = {"cpu": 512}
MATRIX_SIZE = 1024
"""Size on other devices, where a product takes longer than the host needs to queue it."""


def product(torch_name: str) -> Callable[[], object]:
    """Return a matrix product on the device that allocates nothing; the CPU uses one thread.

    Several threads wait for each other, so their times vary if another process is busy.
    """
    torch.set_num_threads(1)
    side = MATRIX_SIZES.get(torch.device(torch_name).type, MATRIX_SIZE)
    one, other, result = (torch.rand(side, side, device=torch_name) for _ in range(3))
    return lambda: torch.mm(one, other, out=result)


def waiting(torch_name: str) -> Callable[[], object]:
    """Return torch's function that waits for the device; on the CPU it does nothing."""
    if torch.device(torch_name).type == "cpu":
        return lambda: None
    synchronize: Callable[[], object] = torch.get_device_module(torch_name).synchronize
    return synchronize


def call_s(call: Callable[[], object], wait: Callable[[], object], calls: int) -> float:
    """Return the seconds per call of a loop of `calls` calls and one synchronisation, on the host's clock."""
    start = perf_counter()
    for _ in range(calls):
        call()
    wait()
    return (perf_counter() - start) / calls


def calls_for(call: Callable[[], object], wait: Callable[[], object], seconds: float) -> int:
    """Return the number of calls that take about `seconds`; the first call, which loads libraries, is not timed."""
    call()
    wait()
    calls = 1
    while (each_s := call_s(call, wait, calls)) * calls < min(0.1, seconds):
        calls *= 2
    # The fastest of a few, because disturbances only add time and would make the loop too short.
    each_s = min(each_s, *(call_s(call, wait, calls) for _ in range(2)))
    return max(1, round(seconds / each_s))
