"""A worker process: spawned fresh, listened to without polling, and never left behind."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cnnperf.ipc.messages import Message, decode, encode
from cnnperf.task import DEFAULT_ALLOCATOR, DEFAULT_WAITING, THREAD_VARIABLES, Allocator, Task, Waiting

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
"""What ends a command early; the command line handles both as Ctrl-C."""

WAITING: dict[Waiting, dict[str, str]] = {
    "spin": {},
    "brief": {"GOMP_SPINCOUNT": "3000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}
"""How threads of GNU's OpenMP, which torch's wheels for Linux carry, wait for work: its own default of 300,000 rounds,
which are some milliseconds, before a thread gives its core away; 3,000 rounds, some tens of microseconds; none at all.
Source: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html."""
ALLOCATORS: dict[Allocator, dict[str, str]] = {
    # Freed memory is kept for the next step. How much of it the C library gives back by default is chance: between
    # none and thousands of page faults a step, which differ from process to process of the same code.
    "keep": {
        "MALLOC_MMAP_THRESHOLD_": str(2**25),  # The most that every glibc takes.
        "MALLOC_TRIM_THRESHOLD_": str(2**32),
    },
    "system": {},
}
"""What glibc does with freed memory. Source: mallopt(3)."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How a process is started: by default a worker of this interpreter, in this folder.

    Every process that measures is started in the same environment, whatever the user's shell has: `threads`, `waiting`
    and `allocator` replace the shell's variables of the same purpose.
    """

    command: tuple[str, ...] = (sys.executable, "-m", "cnnperf.workers.task")
    environment: Mapping[str, str] = field(default_factory=dict)
    """Further variables, which win over all others."""
    cwd: Path | None = None
    threads: int | None = None
    waiting: Waiting = DEFAULT_WAITING
    allocator: Allocator = DEFAULT_ALLOCATOR
    pass_fds: tuple[int, ...] = ()
    """Descriptors that it inherits; their numbers stand in the command."""

    @classmethod
    def of(cls, task: Task, **others: Any) -> Launch:
        """Return how a process of a task is started."""
        waiting, allocator = task.waiting or DEFAULT_WAITING, task.allocator or DEFAULT_ALLOCATOR
        return cls(threads=task.threads, waiting=waiting, allocator=allocator, **others)

    def variables(self) -> dict[str, str]:
        """Return the environment of the process."""
        # Read once, when the C library, OpenMP or NumPy's libraries load: too late to set from inside.
        threads = {} if self.threads is None else dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        replaced = {name for variables in (*WAITING.values(), *ALLOCATORS.values()) for name in variables}
        inherited = {name: value for name, value in os.environ.items() if name not in replaced}
        return {**inherited, **threads, **WAITING[self.waiting], **ALLOCATORS[self.allocator], **self.environment}


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Deliver SIGINT and SIGTERM at the end of the block, so that no interrupt separates a process from its owner.

    Only the main thread receives signals in Python; in other threads the block runs as it is.
    """
    held: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    try:
        with ExitStack() as restored:
            for watched in INTERRUPTS if in_main_thread else ():
                handler = signal.getsignal(watched)
                if callable(handler):  # A signal that is ignored stays so, for children inherit that.
                    restored.callback(signal.signal, watched, handler)
                    signal.signal(watched, lambda arrived, _: held.append(arrived))
            yield
    finally:
        for number in held:
            signal.raise_signal(number)


class WorkerProcess:
    """A worker in a process group of its own, given a request and heard line by line.

    Its standard output and error go to `log`; what it tells its parent comes over a pipe of its own, as JSON lines.
    With a request, that is all it is told; without one it is told more by `send`. Entering the `with` block starts it;
    leaving the block kills whatever is left of the group.
    """

    _process: subprocess.Popen[bytes]
    pipe: int
    end: int | None

    def __init__(self, mode: str, request: str | None, *, log: Path, launch: Launch | None = None) -> None:
        self.log = log
        self._mode = mode
        self._request = request
        self._launch = launch or Launch()

    def _start(self) -> None:
        launch, (reader, writer) = self._launch, os.pipe()
        with tempfile.TemporaryFile() as file, open(self.log, "wb") as output:
            file.write((self._request or "").encode())
            file.seek(0)
            try:
                self._process = subprocess.Popen(
                    [*launch.command, self._mode, str(writer)],
                    stdin=subprocess.PIPE if self._request is None else file,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(writer, *launch.pass_fds),
                    env=launch.variables(),
                    cwd=launch.cwd,
                    start_new_session=True,
                )
            except BaseException:
                os.close(reader)
                raise
            finally:
                os.close(writer)
        self.pipe = reader
        # Without a pidfd (outside Linux) the pipe's end is the only sign of the worker's.
        self.end = os.pidfd_open(self._process.pid) if hasattr(os, "pidfd_open") else None

    def messages(self, patience: Callable[[], float | None]) -> Iterator[Message]:
        """Yield what the worker says until it ends, blocking in between.

        `patience()` is asked before each wait for the seconds it may last (None: for ever); raises TimeoutError when
        they have passed without a word, MalformedError for a line that is no message.
        """
        for _, message in listen([self], patience):
            if message is None:
                return
            yield message

    def send(self, message: Message) -> None:
        """Tell the worker something. Raises BrokenPipeError if it is gone."""
        assert self._process.stdin is not None, "a worker with a request is told nothing else"
        self._process.stdin.write(encode(message))
        self._process.stdin.flush()

    def wait(self) -> None:
        """Wait for the worker's end."""
        self._process.wait()

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        if self.signal == "SIGKILL":
            return "was killed (SIGKILL); the system does that when memory runs out"
        return f"crashed ({self.signal})" if self.signal else f"ended with exit status {self.returncode}"

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    @property
    def signal(self) -> str | None:
        """The name of the signal that ended the worker, if one did."""
        code = self._process.returncode
        return signal.Signals(-code).name if code is not None and code < 0 else None

    def kill(self) -> None:
        """End the whole group at once and wait for it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        started = False
        try:
            with interrupts_held():
                self._start()
                started = True
        except BaseException:
            if started:  # An interrupt came meanwhile, and nobody else knows of the process.
                self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self.kill()
        os.close(self.pipe)
        if self.end is not None:
            os.close(self.end)
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()


def listen(
    workers: Sequence[WorkerProcess], patience: Callable[[], float | None]
) -> Iterator[tuple[WorkerProcess, Message | None]]:
    """Yield each child's messages until the last child has ended, blocking in between; None marks a child's end.

    `patience()` is asked before each wait for the seconds it may last (None: for ever); raises TimeoutError when they
    have passed without a word, MalformedError for a line that is no message.
    """
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            for source in filter(None, (worker.pipe, worker.end)):
                selector.register(source, selectors.EVENT_READ, worker)
        buffers = dict.fromkeys(workers, b"")
        while buffers:
            ready = [key for key, _ in selector.select(patience())]
            if not ready:
                raise TimeoutError
            for worker in dict.fromkeys(key.data for key in ready):
                # A grandchild may hold the pipe open after the worker's end; what is in the pipe comes first.
                chunk = os.read(worker.pipe, 65536) if worker.pipe in [key.fd for key in ready] else b""
                *lines, buffers[worker] = (buffers[worker] + chunk).split(b"\n")
                yield from ((worker, decode(line)) for line in lines)
                if not chunk:
                    for source in filter(None, (worker.pipe, worker.end)):
                        selector.unregister(source)
                    del buffers[worker]
                    worker.wait()
                    yield worker, None


def tail(log: Path, lines: int = 12) -> tuple[str, ...]:
    """Return the last lines of a log, for the record of a task that failed."""
    try:
        return tuple(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ()
