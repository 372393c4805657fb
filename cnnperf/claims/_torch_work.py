"""Work for a device, and torch's own way to wait for it. Imports torch."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch

SIDES = {"cpu": 512}
SIDE = 1024
"""Of other devices: a product takes longer than it takes the host to queue it."""


def product(torch_name: str) -> Callable[[], object]:
    """Return a matrix product on the device, which allocates nothing; the process computes on one thread of the CPU.

    Several threads wait for each other, and beside a neighbour no two of their calls take equally long.
    """
    torch.set_num_threads(1)
    side = SIDES.get(torch.device(torch_name).type, SIDE)
    one, other, result = (torch.rand(side, side, device=torch_name) for _ in range(3))
    return lambda: torch.mm(one, other, out=result)


def waiting(torch_name: str) -> Callable[[], object]:
    """Return torch's function that waits for the device; on the CPU it does nothing."""
    if torch.device(torch_name).type == "cpu":
        return lambda: None
    synchronize: Callable[[], object] = torch.get_device_module(torch_name).synchronize
    return synchronize


def call_s(call: Callable[[], object], wait: Callable[[], object], calls: int) -> float:
    """Return seconds a call: a loop of `calls` calls and one synchronisation, timed by the host's clock."""
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
    # The fastest of a few: what disturbs only adds, and would leave the loop too short.
    each_s = min(each_s, *(call_s(call, wait, calls) for _ in range(2)))
    return max(1, round(seconds / each_s))
