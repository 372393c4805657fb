"""Messages between the two sides of a duet, and the baton that its workers pass.

The two arms may be two versions of cnnperf, so this is a protocol: a change of it counts `PROTOCOL` up.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Literal

from cnnperf.task import Frozen
from cnnperf.timing.sampling import Call, Sample, Warmup, collector_off, take

PROTOCOL = 3
"""Version of what is said in this file."""

Letter = Literal["A", "B"]
LETTERS: tuple[Letter, Letter] = ("A", "B")
"""The baseline's and the candidate's."""


class Opening(Frozen):
    """A request to prepare one metric of one cell."""

    task: dict[str, Any]
    """Of the stage `train`; its settings are those that the suite chooses, and the arm adds its own recipe's."""
    metric: str
    folder: Path
    """Where the images lie as arrays."""
    store: Path
    """Where weights and reference outputs lie, the same for both arms."""
    leads: bool = False
    """Whether to leave them there rather than to find them."""
    tree: Path | None = None
    """The worktree of the revision that is measured …"""
    repository: Path | None = None
    """… and the tree that it is of, none of whose code may be measured in its place; None where it is no revision."""
    slowdown: float = 0.0
    """After each call wait for so much of the time it took: what the gate is tested with."""
    slowdown_by: Literal["spin", "sleep"] = "spin"


class Opened(Frozen):
    """The answer of a side that has prepared a metric."""

    outputs: dict[str, float]
    """What it computed, for the arms to be compared by."""
    settings: dict[str, Any]
    """All that the training stands on, the recipe that this arm's model recommends filled in."""
    source: Path | None
    """The file that the model was imported from; None where it has none."""
    strays: tuple[Path, ...] = ()
    """Files of the repository's present tree that were imported although a revision of it is measured."""


class Turns(Frozen):
    """Who works when."""

    me: Letter
    order: str
    """A letter a sample: `ABBABAAB…`."""
    calls: int
    warmup: int
    """Pairs at least, before anything counts."""
    warmup_s: float


class Taken(Frozen):
    """The samples of one side."""

    samples: tuple[Sample, ...]
    warmup: tuple[Sample, ...]
    steady: bool
    """Whether both arms were when it began to count."""
    blocked_s: float
    """How long it waited for the other from the first turn to the last …"""
    blocked_cpu_s: float
    """… and the CPU time that it used meanwhile, all threads."""


class PartnerGoneError(Exception):
    """The other worker has ended."""


class Baton:
    """One byte that says whose turn it is; a side that waits for it is blocked."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)

    def hand_over(self, word: bytes = b".") -> None:
        """Let the other go on."""
        try:
            self._socket.sendall(word)
        except OSError as error:
            raise PartnerGoneError from error

    def wait(self) -> bytes:
        """Return what the other says as it hands over."""
        try:
            word = self._socket.recv(1)
        except OSError as error:
            raise PartnerGoneError from error
        if not word:
            raise PartnerGoneError
        return word

    def close(self) -> None:
        """Let go of it, which the other sees."""
        self._socket.close()


def play(call: Call, synchronize: Call, turns: Turns, baton: Baton, *, get_ready: Call = lambda: None) -> Taken:
    """Warm up in turns until both arms are steady, then take the samples that are mine.

    `get_ready` is called as a turn begins, and is not timed.
    """
    samples: list[Sample] = []
    blocked_s = blocked_cpu_s = 0.0
    with collector_off():
        warmup, steady = _warm_up(call, synchronize, turns, baton, get_ready)
        for letter, run in groupby(turns.order):
            if letter == turns.me:
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
    """Take turns that do not count: who begins says whether it is steady, the other whether that is enough."""
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


def facts() -> Iterator[tuple[str, Any]]:
    """Yield what must be equal in both arms for their times to be comparable."""
    from cnnperf.machine.fingerprint import usable_cores

    yield "cores", usable_cores()
    if hasattr(os, "sched_getaffinity"):
        yield "affinity", sorted(os.sched_getaffinity(0))
    yield "niceness", os.nice(0)
