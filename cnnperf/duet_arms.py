"""The two arms of a duet: where their code comes from, what they are asked to measure, and their processes.

Nothing here imports torch. The parent is blocked while they work; a worker that is silent for too long has hung.
"""

from __future__ import annotations

import math
import os
import socket
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field

from cnnperf.baton import PROTOCOL, Opened, Opening
from cnnperf.errors import UsageError
from cnnperf.preflight import Ready
from cnnperf.process import Launch, WorkerProcess, listen, tail
from cnnperf.record import Machine
from cnnperf.task import Frozen, Task

ARMS = ("baseline", "candidate")
QUIET = {
    # Threads that wait for each other by spinning would take the core from the other arm.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Freed memory is kept. How much of it the C library gives back is left to chance, process by process: none or a
    # thousand page faults in a training step of LeNet, and with them 20 % of its time.
    "MALLOC_MMAP_THRESHOLD_": str(2**25),  # The most that every glibc takes.
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}
"""The environment of both arms, so that a process differs less from the next."""


class Arm(Frozen):
    """One of the two things that are compared: where its code comes from, and what is changed on purpose."""

    name: str
    """What messages call it: a revision, an interpreter, `this tree`."""
    python: str = sys.executable
    path: tuple[Path, ...] = ()
    """Folders that come first on the module path."""
    cwd: Path | None = None
    tree: Path | None = None
    """The worktree of a revision …"""
    repository: Path | None = None
    """… and the tree that it is of."""
    isolated: bool = False
    """Whether the working directory is kept off the module path, so that what is installed counts."""
    environment: dict[str, str] = Field(default={})
    slowdown: float = 0.0
    """Makes each call longer by this share of its own duration: what the gate is tested with."""
    slowdown_by: Literal["spin", "sleep"] = "spin"

    def launch(self, threads: int | None, baton: int) -> Launch:
        """Return how its worker is started; `baton` is the descriptor that it inherits."""
        places = [*map(str, self.path), *filter(None, [os.environ.get("PYTHONPATH")])]
        path = {"PYTHONPATH": os.pathsep.join(places)} if self.path else {}
        return Launch(
            command=(self.python, *(["-P"] if self.isolated else []), "-m", "cnnperf.duet_worker"),
            environment={**QUIET, **path, **self.environment},
            cwd=self.cwd,
            threads=threads,
            pass_fds=(baton,),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """One metric of one cell, for both arms; equal to itself alone."""

    metric: str
    """A key of stages._subjects.SUBJECTS."""
    tasks: tuple[Task, Task]
    """The cell's training as preflight left it, for the baseline and for the candidate."""
    folder: Path
    """Where the images lie as arrays."""
    chosen: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})
    """What the suite sets for the baseline and for the candidate; all else is each arm's own recipe."""

    @property
    def cell(self) -> str:
        """The cell's id."""
        return self.tasks[0].cell.id

    @property
    def key(self) -> str:
        """Name it for a reader."""
        return f"{self.cell} {self.metric}"


UNTIMED = (
    "seconds",
    "steps",
    "samples",
    "epochs",
    "target_accuracy",
    "stop_at_target",
    "validation_images",
    "test_images",
    "test_flip",
    "test_curve",
    "normalize_eval",
    "train_accuracy",
)
"""Settings of a training that neither a step of it nor a forward pass has anything to do with."""


def contests(
    baseline: Sequence[Ready],
    candidate: Sequence[Ready] | None = None,
    metrics: Sequence[str] = ("infer.forward", "train.step"),
) -> tuple[Contest, ...]:
    """Return what is compared: every metric of every cell whose task can run here.

    candidate: the same tasks with other settings; the baseline's if they have the same.
    """
    return tuple(
        Contest(metric, (one.task, other.task), one.folder, (one.chosen, other.chosen))
        for one, other in zip(baseline, candidate or baseline, strict=True)
        if not one.skip and one.folder is not None
        for metric in metrics
    )


class Fault(Exception):  # noqa: N818 - an outcome, not an error of this program
    """Why a contest could not be measured, in a sentence."""

    def __init__(self, sentence: str, *, absent: int | None = None) -> None:
        super().__init__(sentence)
        self.absent = absent
        """The arm (0 or 1) that does not have the thing at all; None where it is something else."""


class Patience(NamedTuple):
    """After how many seconds of silence a worker counts as hung."""

    start_s: float = 120.0
    open_s: float = 300.0
    warmup_s: float = 60.0
    """A warm-up that is not steady by then is ended."""
    play_s: float = 60.0
    """Beyond the warm-up and ten times the planned length of a turn."""


class Workers:
    """The workers of both arms, started together and live at once; neither outlives the `with` block."""

    def __init__(
        self,
        arms: tuple[Arm, Arm],
        scratch: Path,
        threads: int | None,
        *,
        order: Sequence[int] = (0, 1),
        patience: Patience | None = None,
    ) -> None:
        """`order` is that in which they are started; `scratch` takes their logs, weights and reference outputs."""
        self.patience = patience or Patience()
        self._arms = arms
        self._scratch = scratch
        self._threads = threads
        self._order = order
        self._stack = ExitStack()
        self._deadline = math.inf
        self.hellos: dict[int, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            batons = [stack.enter_context(end) for end in socket.socketpair()]
            started = {index: self._start(index, batons[index], stack) for index in self._order}
            # Only the workers may hold the baton's ends, or neither would see the other's end.
            for baton in batons:
                baton.close()
            self._workers = [started[0], started[1]]
            self._heard = listen(self._workers, lambda: max(0.0, self._deadline - time.monotonic()))
            self.hellos = self._answers("hello", (0, 1), self.patience.start_s)
            for index, hello in self.hellos.items():
                self._check_protocol(index, hello)
            self._refuse_unlike()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def machines(self) -> tuple[Machine, Machine]:
        """The machine and the software as both arms see them."""
        one, other = (Machine.model_validate(self.hellos[index]["machine"]) for index in (0, 1))
        return one, other

    def open(self, contest: Contest, store: Path, *, leads: bool = False) -> list[Opened]:
        """Have both arms make a contest ready, or the baseline alone where it leads; returns what each came to.

        Raises Fault.
        """
        requests = {}
        for index in (0,) if leads else (0, 1):
            arm, task = self._arms[index], contest.tasks[index]
            document = task.model_dump(mode="json") | {"settings": contest.chosen[index]}
            opening = Opening(
                task=document,
                metric=contest.metric,
                folder=contest.folder.resolve(),
                store=store,
                leads=leads,
                tree=arm.tree,
                repository=arm.repository,
                slowdown=arm.slowdown,
                slowdown_by=arm.slowdown_by,
            )
            requests[index] = opening.model_dump(mode="json")
        answers = self.ask("open", requests, self.patience.open_s)
        opened = [Opened.model_validate(answers[index]) for index in sorted(answers)]
        for index, each in enumerate(opened):
            self._refuse_foreign(index, contest, each)
        return opened

    def ask(self, verb: str, requests: Mapping[int, dict[str, Any]], patience_s: float) -> dict[int, dict[str, Any]]:
        """Tell the arms, by number, what to do, and return what they answer. Raises Fault."""
        for index, request in requests.items():
            with suppress(BrokenPipeError):  # Its end, and how it came, is what is heard next.
                self._workers[index].send(**{"do": verb, "with": request})
        return self._answers(verb, requests, patience_s)

    def _start(self, index: int, baton: socket.socket, stack: ExitStack) -> WorkerProcess:
        arm = self._arms[index]
        launch = arm.launch(self._threads, baton.fileno())
        try:
            return stack.enter_context(WorkerProcess(str(baton.fileno()), None, log=self._log(index), launch=launch))
        except OSError as error:
            raise UsageError(
                f"--{ARMS[index]}: {arm.python} cannot be run ({error.strerror}); give a Python interpreter"
            ) from error

    def _answers(self, verb: str, asked: Collection[int], patience_s: float) -> dict[int, Any]:
        self._deadline = time.monotonic() + patience_s
        answers: dict[int, Any] = {}
        while len(answers) < len(asked):
            try:
                worker, message = next(self._heard)
            except TimeoutError:
                silent = " and ".join(self._called(index) for index in asked if index not in answers)
                verb = "were" if len(asked) - len(answers) > 1 else "was"
                raise Fault(f"{silent} said nothing for {patience_s:g} s and {verb} ended") from None
            index = self._workers.index(worker)
            if message is None:
                raise self._ended(index, worker, verb)
            if "error" in message:
                raise Fault(f"{self._called(index)}: {message['error']}")
            if "absent" in message.get(verb, {}):
                raise Fault(f"{self._called(index)}: {message[verb]['absent']}", absent=index)
            answers[index] = message[verb]
        return answers

    def _ended(self, index: int, worker: WorkerProcess, verb: str) -> Exception:
        words = tail(self._log(index), 3)
        last = words[-1].strip() if words else ""
        if verb != "hello":
            return Fault(f"{self._called(index)}: the process {worker.ending}" + (f": {last}" if last else ""))
        arm = self._arms[index]
        if "No module named" in last and "cnnperf" in last:
            lacks = "has no cnnperf" if "No module named 'cnnperf'" in last else "has a cnnperf that knows no duet"
            return UsageError(f"--{ARMS[index]}: {arm.name} {lacks} ({last}); install this version there")
        return UsageError(
            f"--{ARMS[index]}: {arm.name}: its worker {worker.ending} before it was ready"
            + (f": {last}" if last else "")
        )

    def _check_protocol(self, index: int, hello: Mapping[str, Any]) -> None:
        if hello["protocol"] != PROTOCOL:
            raise UsageError(
                f"--{ARMS[index]}: {self._arms[index].name} speaks version {hello['protocol']} of the duet's protocol, "
                f"and this cnnperf version {PROTOCOL}; compare revisions on the same side of that change"
            )

    def _refuse_unlike(self) -> None:
        one, other = (self.hellos[index]["facts"] for index in (0, 1))
        differences = [f"{key} ({one.get(key)} against {other.get(key)})" for key in one if one[key] != other.get(key)]
        if differences:
            raise UsageError(f"the arms differ in {', '.join(differences)}; run both under the same conditions")

    def _refuse_foreign(self, index: int, contest: Contest, opened: Opened) -> None:
        """Raise Fault where the code of a revision, or of this tree, is to be measured and other code would be."""
        arm, name = self._arms[index], contest.tasks[index].cell.model.name
        if opened.strays:
            raise Fault(
                f"{self._called(index)}: {opened.strays[0]} was imported, which is this tree's, so that the revision's "
                "would not be measured; run this in the folder that it is imported from, or keep it in src"
            )
        # In an environment of its own there may be another version of what is installed, and that is what differs.
        if any(each.python != sys.executable for each in self._arms) or not arm.path or opened.source is None:
            return
        if any(opened.source.resolve().is_relative_to(place.resolve()) for place in arm.path):
            return
        why = "is no part of what is compared" if ":" in name else "is cnnperf's own, and the same on both sides"
        raise Fault(
            f"{self._called(index)}: {name} comes from {opened.source} and {why}; give a model of the repository's, "
            "as pkg.module:callable, that can be imported in its root, its src or the folder that you are in"
        )

    def _called(self, index: int) -> str:
        name = self._arms[index].name
        return ARMS[index] if name == ARMS[index] else f"{ARMS[index]} ({name})"

    def _log(self, index: int) -> Path:
        return self._scratch / f"{ARMS[index]}.log"
