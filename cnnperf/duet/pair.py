"""A pair of processes that take turns: start, requests and answers.

This module does not import torch. The parent is blocked while the processes work; a process that is silent for too long
counts as hung.
"""

from __future__ import annotations

import math
import os
import random
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

from cnnperf.ipc.lines import LONGEST_ANSWER
from cnnperf.ipc.log import tail
from cnnperf.ipc.messages import Absent, Failed, FromSide, MalformedError, Settle, Settled, Taken, ToSide, Turns
from cnnperf.ipc.process import Launch, WorkerProcess, interrupts_held, listen
from cnnperf.sides import SIDES, Both, Side
from cnnperf.task import Task

A = TypeVar("A", bound=FromSide)
G = TypeVar("G", bound=FromSide)


class Fault(Exception):  # noqa: N818 - an outcome, not an error of this program
    """The reason why a pair could not measure something, in a sentence."""

    def __init__(self, sentence: str, *, absent: Side | None = None) -> None:
        super().__init__(sentence)
        self.absent = absent
        """The side that does not have the requested metric; None for other faults."""


class NotReady(Fault):
    """A side's process could not be started or ended before it was ready."""

    def __init__(self, sentence: str, side: Side, ending: str, last_line: str = "") -> None:
        super().__init__(sentence)
        self.side = side
        self.ending = ending
        """How the process ended, as text."""
        self.last_line = last_line
        """The last line of its log; empty if there is none."""


class Patience(NamedTuple):
    """Seconds of silence after which a process counts as hung."""

    start_s: float = 120.0
    open_s: float = 300.0
    warmup_s: float = 60.0
    """Maximum warm-up time."""
    play_s: float = 60.0
    """Additional time beyond the warm-up and ten times the planned length of a turn."""


@dataclass(frozen=True, slots=True)
class Player:
    """One side of a pair: its name and the settings to start its process."""

    name: str
    """Name of the side in messages."""
    launch: Callable[[int], Launch]
    """Receives the file descriptor of the baton, which the process inherits."""
    first: ToSide | None = None


def core_for_both(task: Task) -> int | None:
    """Draw the core that both sides share if each computes in one thread on the CPU; else None.

    Two processes that take turns tend to stay on two cores, and the cores of a virtual machine differ in speed. On such
    a machine, with two identical sides and 26 cell-metrics, the median standard deviation of replicates was 8 % with
    a core each, and 2 % with one core for both.
    """
    if task.threads != 1 or task.cell.device.name != "cpu" or not hasattr(os, "sched_getaffinity"):
        return None
    return random.choice(sorted(os.sched_getaffinity(0)))


class Pair(Generic[G]):
    """Two processes, started together; neither outlives the `with` block."""

    greetings: Both[G]
    """The greeting of each process, sent when it was ready."""

    def __init__(
        self,
        players: Both[Player],
        greeting: type[G],
        scratch: Path,
        *,
        order: Sequence[Side] = SIDES,
        patience: Patience | None = None,
        core: int | None = None,
    ) -> None:
        """Create a pair without starting it.

        greeting: message type that a ready process sends. order: order of the starts. scratch: folder of the logs.
        core: the only core that both may use. Entering the `with` block raises Fault, NotReady among them.
        """
        self.patience = patience or Patience()
        self._players = players
        self._greeting = greeting
        self._scratch = scratch
        self._order = order
        self._core = core
        self._stack = ExitStack()
        self._deadline = math.inf
        self._is_ready = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            ends = Both(*(stack.enter_context(end) for end in socket.socketpair()))
            started = {side: self._start(side, ends.of(side), stack) for side in self._order}
            # Only the two processes may hold the baton's ends; otherwise neither would notice the end of the other.
            for end in ends:
                end.close()
            self._workers = Both.each(lambda side: started[side])
            self._heard = listen(self._workers, lambda: max(0.0, self._deadline - time.monotonic()))
            greetings = self._answers(SIDES, self._greeting, self.patience.start_s)
            self.greetings = Both.each(lambda side: greetings[side])
            self._is_ready = True
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def ask(self, requests: Mapping[Side, ToSide], answer: type[A], patience_s: float) -> dict[Side, A]:
        """Send a request to one or both sides, and return the answers. Raises Fault."""
        for side, request in requests.items():
            with suppress(BrokenPipeError):  # The process has ended; the next message reports how.
                self._workers.of(side).send(request)
        return self._answers(requests, answer, patience_s)

    def settle(self) -> Settled:
        """Warm up the baseline alone, and return the number of calls per sample. Raises Fault."""
        patience_s = self.patience.warmup_s + self.patience.play_s
        return self.ask({"baseline": Settle()}, Settled, patience_s)["baseline"]

    def play(self, order: tuple[Side, ...], *, calls: int, warmup: int, turn_s: float) -> Both[Taken]:
        """Let the two take samples in turns. Raises Fault.

        order: the side of each sample. calls: per sample. warmup: minimum pairs before samples count. turn_s: the
        approximate total time.
        """
        limit_s = self.patience.warmup_s
        requests = {side: Turns(me=side, order=order, calls=calls, warmup=warmup, warmup_s=limit_s) for side in SIDES}
        taken = self.ask(requests, Taken, limit_s + self.patience.play_s + 10 * turn_s)
        return Both.each(lambda side: taken[side])

    def called(self, side: Side) -> str:
        """Return a side's name for messages."""
        name = self._players.of(side).name
        return side if name == side else f"{side} ({name})"

    def _start(self, side: Side, baton: socket.socket, stack: ExitStack) -> WorkerProcess:
        player = self._players.of(side)
        launch = player.launch(baton.fileno())
        command = (*launch.command, str(baton.fileno()))
        launch = replace(launch, command=command, cores=None if self._core is None else (self._core,))
        worker = WorkerProcess(None, log=self._log(side), launch=launch, longest_line=LONGEST_ANSWER)
        try:
            with interrupts_held():
                stack.enter_context(worker)
        except OSError as error:
            ending = f"cannot be run ({error.strerror})"
            raise NotReady(f"{self.called(side)} {ending}", side, ending) from error
        if player.first is not None:
            with suppress(BrokenPipeError):
                worker.send(player.first)
        return worker

    def _answers(self, asked: Collection[Side], answer: type[A], patience_s: float) -> dict[Side, A]:
        self._deadline = time.monotonic() + patience_s
        answers: dict[Side, A] = {}
        while len(answers) < len(asked):
            try:
                worker, message = next(self._heard)
            except TimeoutError:
                silent = " and ".join(self.called(side) for side in asked if side not in answers)
                verb = "were" if len(asked) - len(answers) > 1 else "was"
                raise Fault(
                    f"{silent} said nothing for {patience_s:g} s and {verb} stopped; lower the batch size if a call "
                    "takes that long"
                ) from None
            except MalformedError as error:
                raise Fault(
                    f"a side sent a line that is no message ({error}); use the same version of cnnperf on both sides"
                ) from error
            side = SIDES[self._workers.index(worker)]
            if message is None:
                raise self._ended(side)
            if isinstance(message, Failed):
                raise Fault(f"{self.called(side)}: {message.reason}")
            if isinstance(message, Absent):
                raise Fault(f"{self.called(side)}: {message.reason}", absent=side)
            if not isinstance(message, answer):
                raise Fault(
                    f"{self.called(side)} sent {message.kind!r} instead of {answer.__name__}; use the same version of "
                    "cnnperf on both sides"
                )
            answers[side] = message
        return {side: answers[side] for side in asked}

    def _ended(self, side: Side) -> Fault:
        ending = self._workers.of(side).ending
        words = tail(self._log(side), 3)
        last = words[-1].strip() if words else ""
        sentence = f"{self.called(side)}: the process {ending}" + (f": {last}" if last else "")
        return Fault(sentence) if self._is_ready else NotReady(sentence, side, ending, last)

    def _log(self, side: Side) -> Path:
        return self._scratch / f"{side}.log"
