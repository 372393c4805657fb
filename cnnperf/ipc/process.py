"""Worker processes: spawned fresh, read without polling, and never left running."""

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
"""Signals that end a command early; the command line handles both as Ctrl-C."""

WAITING: dict[Waiting, dict[str, str]] = {
    "spin": {},
    "brief": {"GOMP_SPINCOUNT": "3000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}
"""Spin counts of GNU OpenMP (bundled with torch's Linux wheels) before a waiting thread yields its core: its default of
300,000 iterations (some milliseconds), 3,000 iterations (some tens of microseconds), or none.
Source: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html."""
ALLOCATORS: dict[Allocator, dict[str, str]] = {
    # Freed memory is kept for the next step. By default the C library returns a random share of it, which causes
    # between zero and thousands of page faults per step, different in each process of the same code.
    "keep": {
        "MALLOC_MMAP_THRESHOLD_": str(2**25),  # The largest value that every glibc version accepts.
        "MALLOC_TRIM_THRESHOLD_": str(2**32),
    },
    "system": {},
}
"""glibc's settings for freed memory. Source: mallopt(3)."""
NOT_INHERITED = ("OMP_", "GOMP_", "KMP_", "MKL_", "MALLOC_", "PYTHONWARNINGS")
"""Prefixes of variables that change threads or memory, or make warnings errors; a worker does not inherit them from the
user's shell."""
LOG_ENCODING = {"PYTHONIOENCODING": "utf-8:backslashreplace"}
"""A worker's log is UTF-8 whatever the locale; text that it cannot encode ends no measurement."""
TUNABLES, OF_ALLOCATOR = "GLIBC_TUNABLES", "glibc.malloc."
"""Variable of `name=value` entries, separated by colons, and the prefix of those that override the MALLOC_ variables;
a worker inherits only the other entries. Source: https://www.gnu.org/software/libc/manual/html_node/Tunables.html."""
STILL_INHERITED = (*THREAD_VARIABLES, "KMP_DUPLICATE_LIB_OK")
"""Variables that a worker inherits nevertheless: the threads unless it is given a number, and the permission to start
with two OpenMP libraries."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Settings to start a process: by default a worker of this interpreter, in this folder.

    Every measuring process has the same settings of threads and memory: those of `threads`, `waiting` and `allocator`.
    Variables of the user's shell for OpenMP, MKL and the C library's allocator are not inherited.
    """

    command: tuple[str, ...] = (sys.executable, "-m", "cnnperf.workers.task")
    environment: Mapping[str, str] = field(default_factory=dict)
    """Further variables, which override all others."""
    cwd: Path | None = None
    threads: int | None = None
    waiting: Waiting = DEFAULT_WAITING
    allocator: Allocator = DEFAULT_ALLOCATOR
    pass_fds: tuple[int, ...] = ()
    """File descriptors that the process inherits; their numbers are in the command."""
    core: int | None = None
    """The only core that the process may use; None: all that this process may use."""

    @classmethod
    def of(cls, task: Task, **others: Any) -> Launch:
        """Return the settings to start a task's process."""
        waiting, allocator = task.waiting or DEFAULT_WAITING, task.allocator or DEFAULT_ALLOCATOR
        return cls(threads=task.threads, waiting=waiting, allocator=allocator, **others)

    def variables(self) -> dict[str, str]:
        """Return the environment of the process."""
        # The C library, OpenMP and NumPy's libraries read these once, at load time; setting them later has no effect.
        threads = {} if self.threads is None else dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name in STILL_INHERITED or not name.startswith((*NOT_INHERITED, TUNABLES))
        }
        entries = os.environ.get(TUNABLES, "").split(":")
        if others := ":".join(entry for entry in entries if not entry.startswith(OF_ALLOCATOR)):
            inherited[TUNABLES] = others
        return {
            **inherited,
            **LOG_ENCODING,
            **threads,
            **WAITING[self.waiting],
            **ALLOCATORS[self.allocator],
            **self.environment,
        }


@contextmanager
def bound_to(core: int | None) -> Iterator[None]:
    """Bind this thread to a core for the block, so that a process started in it begins there and stays."""
    if core is None:
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Defer SIGINT and SIGTERM to the end of the block, so that no interrupt leaves a process without owner.

    Only the main thread receives signals in Python; in other threads the block runs unchanged.
    """
    held: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    try:
        with ExitStack() as restored:
            for watched in INTERRUPTS if in_main_thread else ():
                handler = signal.getsignal(watched)
                if callable(handler):  # An ignored signal stays ignored, because children inherit this.
                    restored.callback(signal.signal, watched, handler)
                    signal.signal(watched, lambda arrived, _: held.append(arrived))
            yield
    finally:
        for number in held:
            signal.raise_signal(number)


class WorkerProcess:
    """A worker in its own process group; it receives requests and answers in JSON lines.

    Standard output and error go to `log`; messages to the parent use a separate pipe, whose descriptor is the last
    word of the worker's command. With a `request`, the worker receives nothing else; without one, requests are sent by
    `send`. Entering the `with` block starts the worker; leaving the block kills the remaining processes of the group.
    """

    _process: subprocess.Popen[bytes]
    pipe: int
    end: int | None

    def __init__(self, request: Message | None, *, log: Path, launch: Launch | None = None) -> None:
        self.log = log
        self._request = request
        self._launch = launch or Launch()

    def _start(self) -> None:
        launch, (reader, writer) = self._launch, os.pipe()
        with tempfile.TemporaryFile() as file, open(self.log, "wb") as output:
            if self._request is not None:
                file.write(encode(self._request))
                file.seek(0)
            try:
                with bound_to(launch.core):
                    self._process = subprocess.Popen(
                        [*launch.command, str(writer)],
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
        # Without a pidfd (outside Linux) only the end of the pipe shows that the worker has ended.
        self.end = os.pidfd_open(self._process.pid) if hasattr(os, "pidfd_open") else None

    def messages(self, patience: Callable[[], float | None]) -> Iterator[Message]:
        """Yield the worker's messages until it ends, blocking in between.

        `patience()` is asked before each wait for the seconds it may last (None: for ever); raises TimeoutError when
        they pass without a message, MalformedError for a line that is no message.
        """
        for _, message in listen([self], patience):
            if message is None:
                return
            yield message

    def send(self, message: Message) -> None:
        """Send a message to the worker. Raises BrokenPipeError if the worker has ended."""
        assert self._process.stdin is not None, "a worker with a request takes no further messages"
        self._process.stdin.write(encode(message))
        self._process.stdin.flush()

    def wait(self, limit_s: float | None = None) -> None:
        """Wait for the worker's end. limit_s: seconds; None waits for ever. Raises TimeoutError beyond it."""
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None

    @property
    def ending(self) -> str:
        """How the worker ended, as text."""
        if self.signal == "SIGKILL":
            return "was killed (SIGKILL); the system does that when memory runs out"
        return f"crashed ({self.signal})" if self.signal else f"ended with exit status {self.returncode}"

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while the worker runs."""
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
            if started:  # An interrupt occurred, and no other code knows of the process.
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
    pass without a message, MalformedError for a line that is no message.
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
            readable = [key.fd for key in ready]
            for worker in dict.fromkeys(key.data for key in ready):
                # A grandchild may keep the pipe open after the worker's end; pending messages are read first.
                chunk = os.read(worker.pipe, 65536) if worker.pipe in readable else b""
                *lines, buffers[worker] = (buffers[worker] + chunk).split(b"\n")
                yield from ((worker, decode(line)) for line in lines)
                if chunk:
                    continue
                if worker.pipe in selector.get_map():
                    selector.unregister(worker.pipe)
                if worker.end is None:
                    worker.wait(patience())
                elif worker.end not in readable:  # A worker may close its pipe and work on; its time limit still holds.
                    continue
                else:
                    selector.unregister(worker.end)
                    worker.wait()
                del buffers[worker]
                yield worker, None


def tail(log: Path, lines: int = 12) -> tuple[str, ...]:
    """Return the last lines of a log, for the record of a task that failed."""
    try:
        return tuple(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ()
