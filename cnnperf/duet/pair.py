"""The processes of a duet's two arms, and what the parent says to them.

Nothing here imports torch. The parent is blocked while they work; a worker that is silent for too long has hung.
"""

from __future__ import annotations

import math
import socket
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from cnnperf.duet.sides import ARMS, Arm, Contest
from cnnperf.duet.turns import PROTOCOL, Opened, Opening
from cnnperf.errors import UsageError
from cnnperf.ipc.process import WorkerProcess, interrupts_held, listen, tail
from cnnperf.record import Machine
from cnnperf.task import Task


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
        task: Task,
        *,
        order: Sequence[int] = (0, 1),
        patience: Patience | None = None,
    ) -> None:
        """Start nothing yet.

        task: names the threads, how they wait, and the allocator. order: of the arms' starts. scratch: takes logs,
        weights and reference outputs.
        """
        self.patience = patience or Patience()
        self._arms = arms
        self._scratch = scratch
        self._task = task
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
        """Have both sides prepare a contest, or the baseline alone where it leads; returns their answers.

        Raises Fault.
        """
        requests = {}
        for index in (0,) if leads else (0, 1):
            arm, task = self._arms[index], contest.tasks[index]
            # A revision may not know these fields; the parent starts both workers in the environment that they name.
            document = task.model_dump(mode="json", exclude={"suite", "waiting", "allocator"})
            document |= {"settings": contest.chosen[index]}
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
        launch = arm.launch(self._task, baton.fileno())
        worker = WorkerProcess(str(baton.fileno()), None, log=self._log(index), launch=launch)
        try:
            with interrupts_held():
                return stack.enter_context(worker)
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
            lacks = "has no cnnperf" if "No module named 'cnnperf'" in last else "has a cnnperf without the duet"
            return UsageError(f"--{ARMS[index]}: {arm.name} {lacks} ({last}); install this version there")
        return UsageError(
            f"--{ARMS[index]}: {arm.name}: its worker {worker.ending} before it was ready"
            + (f": {last}" if last else "")
        )

    def _check_protocol(self, index: int, hello: Mapping[str, Any]) -> None:
        if hello["protocol"] != PROTOCOL:
            raise UsageError(
                f"--{ARMS[index]}: {self._arms[index].name} has version {hello['protocol']} of the duet's protocol, "
                f"and this cnnperf has {PROTOCOL}; compare revisions on the same side of that change"
            )

    def _refuse_unlike(self) -> None:
        one, other = (self.hellos[index]["facts"] for index in (0, 1))
        differences = [f"{key} ({one.get(key)} against {other.get(key)})" for key in one if one[key] != other.get(key)]
        if differences:
            raise UsageError(f"the sides differ in {', '.join(differences)}; run both under the same conditions")

    def _refuse_foreign(self, index: int, contest: Contest, opened: Opened) -> None:
        """Raise Fault where the code of a revision, or of this tree, is to be measured and other code would be."""
        arm, name = self._arms[index], contest.tasks[index].cell.model.name
        if opened.strays:
            raise Fault(
                f"{self._called(index)}: {opened.strays[0]} was imported, which belongs to this tree, so the revision "
                "would not be measured; run this in the folder that it is imported from, or keep it in src"
            )
        # In an environment of its own there may be another version of what is installed, and that is what differs.
        if any(each.python != sys.executable for each in self._arms) or not arm.path or opened.source is None:
            return
        if any(opened.source.resolve().is_relative_to(place.resolve()) for place in arm.path):
            return
        why = "is not part of the compared tree" if ":" in name else "is cnnperf's own, and the same on both sides"
        raise Fault(
            f"{self._called(index)}: {name} comes from {opened.source} and {why}; give a model of the repository's, "
            "as pkg.module:callable, that can be imported from its root, its src or the current folder"
        )

    def _called(self, index: int) -> str:
        name = self._arms[index].name
        return ARMS[index] if name == ARMS[index] else f"{ARMS[index]} ({name})"

    def _log(self, index: int) -> Path:
        return self._scratch / f"{ARMS[index]}.log"
