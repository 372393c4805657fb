"""Two engines in turns: a fresh pair of processes each time, each of which gives one ratio."""

from __future__ import annotations

import math
import random
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cnnperf.bench import Bench
from cnnperf.duet.schedule import Conditions, order_of
from cnnperf.duet.turns import LETTERS, Taken, Turns
from cnnperf.errors import StageError
from cnnperf.ipc.process import Launch, WorkerProcess, interrupts_held, listen, tail
from cnnperf.record import Measurement, Record
from cnnperf.task import Choice, Frozen, Scalar, Task

PATIENCE_S = 300.0
"""A side that is silent for this time has hung."""
TURN_S = 3.0
"""How long the samples of one batch size may take in a pair of processes."""
FEWEST, MOST = 12, 30
"""Pairs of samples in a pair of processes: fewer are none, and more tell little that further processes do not."""
WARMUP_S = 5.0
"""A side that is not steady by then is timed as it is."""


def speedups(
    bench: Bench, baseline: Choice, candidate: Choice, batch_sizes: Sequence[int], pairs: int
) -> Iterator[Measurement]:
    """Yield the seconds a call of both sides of each pair, then how many times faster the candidate is, a value a pair.

    For each batch size; one whose calls are too long to take turns is left out. Raises StageError if a side ends or
    hangs.
    """
    dice = random.Random(bench.task.key)
    conditions: dict[int, Conditions] = {}
    played: dict[int, list[Played]] = {size: [] for size in batch_sizes}
    with tempfile.TemporaryDirectory(prefix="cnnperf-pairs-") as folder:
        for number in range(pairs):
            with Pair(bench, (baseline, candidate), Path(folder), dice) as pair:
                for size in dice.sample(list(played), len(played)):
                    pair.ask("open", [{"batch_size": size}] * 2)
                    if size not in conditions:
                        settled = pair.ask("settle", [{}])[0]
                        conditions[size] = _conditions(settled["calls"], settled["call_s"])
                    if conditions[size].pairs:
                        played[size].append(pair.play(conditions[size]))
            bench.progress(pair=number + 1, of=pairs)
    for size, of_size in played.items():
        if of_size:
            tags: dict[str, Scalar] = {"engine": str(candidate), "batch_size": size, "baseline": str(baseline)}
            yield from measured(of_size, conditions[size], tags)


def measured(played: Sequence[Played], on: Conditions, tags: Mapping[str, Scalar]) -> Iterator[Measurement]:
    """Yield the results of the pairs of processes at one batch size: their samples, and the speed-up."""
    for number, each in enumerate(played):
        for side, taken in zip(("baseline", "candidate"), each.taken, strict=True):
            yield Measurement(
                metric="infer.pair_seconds",
                unit="s",
                better=None,
                values=tuple(sample.wall_s / on.calls for sample in taken.samples),
                tags={**tags, "pair": number, "side": side},
                remarks={"calls": on.calls},
            )
    unsteady = sum(not each.steady for each in played)
    yield Measurement(
        metric="infer.speedup",
        unit="1",
        better="higher",
        values=tuple(each.ratio for each in played),
        tags=tags,
        remarks={"calls": on.calls, "pairs": on.pairs, **({"unsteady_pairs": unsteady} if unsteady else {})},
    )


def _conditions(calls: int, call_s: float) -> Conditions:
    fit = 2 * int(TURN_S / (4 * calls * call_s))
    pairs = min(MOST, fit) if fit >= FEWEST else FEWEST if FEWEST * 2 * call_s <= 2 * TURN_S else 0
    return Conditions(calls, call_s, pairs, min(10, pairs // 4))


@dataclass(frozen=True, slots=True)
class Played:
    """What a pair of processes measured of one batch size."""

    taken: tuple[Taken, Taken]
    """The baseline's and the candidate's: sample by sample neighbours in time."""

    @property
    def ratio(self) -> float:
        """The baseline's time over the candidate's: the median over the samples."""
        one, other = (each.samples for each in self.taken)
        return math.exp(median(math.log(a.wall_s / b.wall_s) for a, b in zip(one, other, strict=True)))

    @property
    def steady(self) -> bool:
        """Whether both were when it began to count."""
        return all(each.steady for each in self.taken)


class Pair:
    """Two engines in two processes that live at once; none outlives the `with` block."""

    def __init__(self, bench: Bench, engines: tuple[Choice, Choice], folder: Path, dice: random.Random) -> None:
        self._bench = bench
        self._engines = engines
        self._folder = folder
        self._dice = dice
        self._stack = ExitStack()
        self._deadline = math.inf

    def __enter__(self) -> Pair:
        with ExitStack() as stack:
            ends = [stack.enter_context(end) for end in socket.socketpair()]
            started = {index: self._start(index, ends[index], stack) for index in self._dice.sample((0, 1), 2)}
            for end in ends:
                end.close()
            self._workers = [started[0], started[1]]
            self._heard = listen(self._workers, lambda: max(0.0, self._deadline - time.monotonic()))
            self._answers("hello", 2)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, verb: str, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Tell the first side, or both, what to do, and return what they answer."""
        for worker, request in zip(self._workers, requests, strict=False):
            worker.send(**{"do": verb, "with": request})
        return self._answers(verb, len(requests))

    def play(self, on: Conditions) -> Played:
        """Let the two take turns."""
        order = order_of(on.pairs, self._dice)
        on_turn = {"order": order, "calls": on.calls, "warmup": on.warmup, "warmup_s": WARMUP_S}
        turns = [Turns.model_validate({"me": me, **on_turn}).model_dump(mode="json") for me in LETTERS]
        one, other = (Taken.model_validate(answer) for answer in self.ask("play", turns))
        return Played((one, other))

    def _start(self, index: int, end: socket.socket, stack: ExitStack) -> WorkerProcess:
        arm = Arm(
            task=self._bench.task,
            run=self._bench.run,
            folder=self._bench.dataset.folder,
            needs=tuple(self._bench.needs.values()),
            engine=self._engines[index],
        )
        command = (*Launch().command[:-1], "cnnperf.workers.paired_engine")
        launch = Launch.of(self._bench.task, command=command, pass_fds=(end.fileno(),))
        with interrupts_held():
            worker = WorkerProcess(str(end.fileno()), None, log=self._log(index), launch=launch)
            stack.enter_context(worker)
        worker.send(**arm.model_dump(mode="json", by_alias=True))
        return worker

    def _answers(self, verb: str, count: int) -> list[dict[str, Any]]:
        self._deadline = time.monotonic() + PATIENCE_S
        answers: dict[int, dict[str, Any]] = {}
        while len(answers) < count:
            try:
                worker, message = next(self._heard)
            except TimeoutError:
                raise StageError(f"a side of the pair said nothing for {PATIENCE_S:g} s and was ended") from None
            index = self._workers.index(worker)
            if message is None:
                last = (tail(self._log(index), 1) or ("",))[0]
                raise StageError(f"{self._engines[index]}, in turns: the process {worker.ending}: {last}")
            if "error" in message:
                raise StageError(f"{self._engines[index]}, in turns: {message['error']}")
            answers[index] = message[verb]
        return [answers[index] for index in range(count)]

    def _log(self, index: int) -> Path:
        return self._folder / f"{index}.log"


class Arm(Frozen):
    """One side: the engine to load, and where its task finds its artifacts."""

    task: Task
    run: Path
    folder: Path
    """Where the images lie as arrays."""
    needs: tuple[Record, ...]
    engine: Choice
