"""The children's part of a duet: the baton that two processes pass, and the samples that they take in turns.

The two sides may be different versions of cnnperf: the bytes on the baton are part of the protocol of `ipc.messages`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from itertools import groupby
from statistics import median
from time import perf_counter, process_time
from typing import Any

from cnnperf.ipc.messages import Settled, Taken, Turns
from cnnperf.timing.sampling import SPAN, Call, Plan, Sample, Warmup, collector_off, settle, take


class PartnerGoneError(Exception):
    """The other worker has ended."""


class Baton:
    """One byte passed between the sides, whose holder has the turn; a waiting side is blocked."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)

    def hand_over(self, word: bytes = b".") -> None:
        """Pass the turn to the other side."""
        try:
            self._socket.sendall(word)
        except OSError as error:
            raise PartnerGoneError from error

    def wait(self) -> bytes:
        """Wait for the turn and return the byte sent by the other side."""
        try:
            word = self._socket.recv(1)
        except OSError as error:
            raise PartnerGoneError from error
        if not word:
            raise PartnerGoneError
        return word

    def close(self) -> None:
        """Close the baton, which ends the other side's wait."""
        self._socket.close()


def settled(call: Call, synchronize: Call, plan: Plan) -> Settled:
    """Warm up alone until steady; choose the number of calls per sample and measure their duration."""
    with collector_off():
        calls, warmup = settle(call, synchronize, plan)
    last = median(each.wall_s for each in warmup.samples[-SPAN:])
    return Settled(calls=calls, call_s=last / calls, steady=warmup.steady)


def play(call: Call, synchronize: Call, turns: Turns, baton: Baton, *, get_ready: Call = lambda: None) -> Taken:
    """Warm up in turns until both sides are steady, then take this side's samples.

    get_ready: called at the start of a turn, not timed.
    """
    samples: list[Sample] = []
    blocked_s = blocked_cpu_s = 0.0
    with collector_off():
        warmup, steady = _warm_up(call, synchronize, turns, baton, get_ready)
        for side, run in groupby(turns.order):
            if side == turns.me:
                get_ready()
                samples += [take(call, turns.calls, synchronize) for _ in run]
                baton.hand_over()
            else:
                start, cpu = perf_counter(), process_time()
                baton.wait()
                blocked_s += perf_counter() - start
                blocked_cpu_s += process_time() - cpu
    return Taken(
        samples=tuple(samples),
        warmup=tuple(warmup.samples),
        steady=steady,
        blocked_s=blocked_s,
        blocked_cpu_s=blocked_cpu_s,
    )


STEADY, UNSTEADY, GO_ON = b"s", b"u", b"g"


def _warm_up(call: Call, synchronize: Call, turns: Turns, baton: Baton, get_ready: Call) -> tuple[Warmup, bool]:
    """Take warm-up turns: the first side reports whether it is steady, the other decides whether to continue."""
    warmup = Warmup(turns.warmup, turns.warmup_s)
    begins = turns.order[0] == turns.me
    while True:
        other_is_steady = begins or baton.wait() == STEADY
        get_ready()
        warmup.samples.append(take(call, turns.calls, synchronize))
        if begins:
            baton.hand_over(STEADY if warmup.steady else UNSTEADY)
            word = baton.wait()
        else:
            is_enough = other_is_steady and warmup.steady
            word = STEADY if is_enough else UNSTEADY if warmup.exhausted else GO_ON
            baton.hand_over(word)
        if word != GO_ON:
            return warmup, word == STEADY


def turn_facts() -> Iterator[tuple[str, Any]]:
    """Yield the facts that must be equal on both sides for comparable times."""
    from cnnperf.machine.fingerprint import usable_cores

    yield "cores", usable_cores()
    if hasattr(os, "sched_getaffinity"):
        yield "affinity", sorted(os.sched_getaffinity(0))
    yield "niceness", os.nice(0)
