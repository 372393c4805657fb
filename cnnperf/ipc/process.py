"""Worker processes: spawned fresh, read without polling, and never left running."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from cnnperf.ipc.family import Family, adopting
from cnnperf.ipc.lines import LONGEST_MESSAGE, PAUSE_S, Lines
from cnnperf.ipc.log import Log
from cnnperf.ipc.messages import Message, decode, encode
from cnnperf.registry import FOLDER_OF_NETWORKS
from cnnperf.task import DEFAULT_ALLOCATOR, DEFAULT_WAITING, THREAD_VARIABLES, Allocator, Task, Waiting

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""Signals that end a command early; the command line handles all as Ctrl-C."""
PYTHON = (sys.executable, "-P", "-m")
"""Start of a worker's command. Without `-P` the working directory comes first on the module path, and its files would
run in place of modules of that name."""
CHUNK_BYTES = 2**16
"""Most bytes that are read from a pipe at once: what a pipe of Linux holds."""
LAST_CHUNKS = 16
"""Most chunks that are read from a pipe after the worker's end."""

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

    command: tuple[str, ...] = (*PYTHON, "cnnperf.workers.task")
    environment: Mapping[str, str] = field(default_factory=dict)
    """Further variables, which override all others."""
    cwd: Path | None = None
    threads: int | None = None
    waiting: Waiting = DEFAULT_WAITING
    allocator: Allocator = DEFAULT_ALLOCATOR
    pass_fds: tuple[int, ...] = ()
    """File descriptors that the process inherits; their numbers are in the command."""
    is_foreign: bool = False
    """Whether the process finds cnnperf and the networks by its own module path, not where this process does."""
    cores: tuple[int, ...] | None = None
    """The only cores that the process may use; None: all that this process may use."""

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
            if name in STILL_INHERITED or not name.startswith((*NOT_INHERITED, TUNABLES, FOLDER_OF_NETWORKS))
        }
        entries = os.environ.get(TUNABLES, "").split(":")
        if others := ":".join(entry for entry in entries if not entry.startswith(OF_ALLOCATOR)):
            inherited[TUNABLES] = others
        places = {} if self.is_foreign else _places(self.cwd)
        settings = {**LOG_ENCODING, **threads, **WAITING[self.waiting], **ALLOCATORS[self.allocator]}
        return {**inherited, **places, **settings, **self.environment}


def _places(cwd: Path | None) -> dict[str, str]:
    """Return the variables by which a worker finds the networks of its folder, and the cnnperf of this process."""
    found: dict[str, str] = {}
    with suppress(OSError):  # This process's folder may have been deleted.
        found[FOLDER_OF_NETWORKS] = str((cwd or Path.cwd()).resolve())
    root = Path(__file__).parents[2]
    if sys.path and Path(sys.path[0]).resolve() == root:  # `python -m cnnperf` in a checkout, for example.
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return found


@contextmanager
def bound_to(cores: Collection[int] | None) -> Iterator[None]:
    """Bind this thread to cores for the block, so that a process started in it begins there and stays."""
    if cores is None:
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Defer interrupts to the end of the block, so that none leaves a process without owner.

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
    """A worker in its own session; it receives requests and answers in JSON lines.

    Standard output and error go to `log` through a pipe that is read with the messages, so that its size is bounded and
    a silent worker costs nothing; messages to the parent use a separate pipe, whose descriptor is the last word of the
    worker's command. With a `request`, the worker receives nothing else; without one, requests are sent by `send`.
    Entering the `with` block starts the worker; leaving the block kills it with all its descendants.
    """

    _process: subprocess.Popen[bytes]
    pipe: int
    output: int
    end: int | None

    def __init__(
        self, request: Message | None, *, log: Path, launch: Launch | None = None, longest_line: int = LONGEST_MESSAGE
    ) -> None:
        """Name a worker without starting it. longest_line: bytes of a message; a longer one is dropped."""
        self.log = log
        self._lines = Lines(longest_line)
        self._request = request
        self._launch = launch or Launch()
        self._family = Family()
        self._stack = ExitStack()

    def _start(self) -> None:
        launch = self._launch
        with ExitStack() as stack:
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            output, printer = os.pipe()
            stack.callback(os.close, output)
            self._log = stack.enter_context(Log(self.log))
            stack.enter_context(adopting())
            with tempfile.TemporaryFile(buffering=0) as file, ExitStack() as of_child:
                of_child.callback(os.close, writer)
                of_child.callback(os.close, printer)
                if self._request is not None:
                    _put(file, encode(self._request))
                with bound_to(launch.cores):
                    self._process = subprocess.Popen(
                        [*launch.command, str(writer)],
                        stdin=subprocess.PIPE if self._request is None else file,
                        stdout=printer,
                        stderr=subprocess.STDOUT,
                        pass_fds=(writer, *launch.pass_fds),
                        env={**launch.variables(), **self._family.variables()},
                        cwd=launch.cwd,
                        start_new_session=True,
                    )
            stack.callback(self._end)
            self.pipe, self.output = reader, output
            # Without a pidfd (outside Linux) only the end of the pipe shows that the worker has ended.
            self.end = os.pidfd_open(self._process.pid) if hasattr(os, "pidfd_open") else None
            if self.end is not None:
                stack.callback(os.close, self.end)
            self._stack = stack.pop_all()

    def messages(self, patience: Callable[[], float | None]) -> Iterator[Message]:
        """Yield the worker's messages until it ends, blocking in between.

        `patience()` is asked before each wait for the seconds it may last (None: for ever); raises TimeoutError when
        they pass, MalformedError for a line that is no message. Both leave the worker as it is.
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

    def take_lines(self) -> tuple[bytes, ...] | None:
        """Return the lines that have come, each once it is complete; None at the end of the pipe."""
        said = os.read(self.pipe, CHUNK_BYTES)
        lines = self._lines.feed(said)
        if self._lines.is_flooded:
            time.sleep(PAUSE_S)
        return lines if said else None

    def take_output(self) -> bool:
        """Move what the worker has printed to its log, and return whether more can come."""
        chunk = os.read(self.output, CHUNK_BYTES)
        self._log.write(chunk)
        return bool(chunk)

    def last_lines(self) -> Iterator[bytes]:
        """Yield the lines that a worker has left in its pipe at its end."""
        for chunk in _left_in(self.pipe):
            yield from self._lines.feed(chunk)

    def wait(self, limit_s: float | None = None) -> None:
        """Wait for the worker's end, and complete its log. limit_s: seconds; None waits for ever.

        Raises TimeoutError beyond the limit.
        """
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        self._complete_log()

    def kill(self) -> None:
        """Kill the worker alone, if it still runs; leaving the block ends its descendants too."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    @property
    def loss(self) -> str | None:
        """The number of dropped messages, as a sentence; None if none was dropped."""
        return self._lines.loss

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
        if code is None or code >= 0:
            return None
        try:
            return signal.Signals(-code).name
        except ValueError:  # A real-time signal may have no name.
            return f"signal {-code}"

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
        with interrupts_held():
            self._stack.close()

    def _end(self) -> None:
        """End the worker and its descendants at once, and wait for them."""
        known = self._family.members(self._process.pid, has_ended=self._process.returncode is not None)
        with suppress(ProcessLookupError, PermissionError):  # macOS permits nothing to a group that has ended.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._family.end(self._process.pid, known)
        self._complete_log()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def _complete_log(self) -> None:
        if self._log.is_complete:
            return
        for chunk in _left_in(self.output):
            self._log.write(chunk)
        self._log.close()


def _put(file: IO[bytes], content: bytes) -> None:
    """Write a temporary file, for its start to be read next. Raises OSError, which names the folder of such files."""
    left = memoryview(content)
    try:
        while left:
            left = left[file.write(left) :]
        file.seek(0)
    except OSError as error:
        raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from error


def _left_in(pipe: int) -> Iterator[bytes]:
    """Yield what lies in a pipe, without waiting for its end, because a descendant may keep it open and write on."""
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        for _ in range(LAST_CHUNKS):
            if not (chunk := os.read(pipe, CHUNK_BYTES)):
                return
            yield chunk


def listen(
    workers: Sequence[WorkerProcess], patience: Callable[[], float | None]
) -> Iterator[tuple[WorkerProcess, Message | None]]:
    """Yield each child's messages until the last child has ended, blocking in between; None marks a child's end.

    `patience()` is asked before each wait for the seconds it may last (None: for ever); raises TimeoutError when they
    pass, whatever the children say, MalformedError for a line that is no message.
    """
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            for source in filter(None, (worker.pipe, worker.output, worker.end)):
                selector.register(source, selectors.EVENT_READ, worker)
        running, was_late = set(workers), False
        while running:
            limit = patience()
            is_late = limit is not None and limit <= 0
            ready = {(key.data, key.fd) for key, _ in selector.select(limit)}
            if not ready or (is_late and was_late):  # What has come in time is heard once more.
                raise TimeoutError
            was_late = is_late
            for worker in workers:
                for message in _heard(worker, {fd for of, fd in ready if of is worker}, selector, patience):
                    if message is None:
                        running.discard(worker)
                    yield worker, message


def _heard(
    worker: WorkerProcess, ready: Set[int], selector: selectors.BaseSelector, patience: Callable[[], float | None]
) -> Iterator[Message | None]:
    """Yield what a worker says through those of its descriptors that are ready; None if it has ended."""
    if worker.output in ready and not worker.take_output():
        selector.unregister(worker.output)
    lines: Iterable[bytes] | None = ()
    has_ended = worker.end in ready
    if has_ended:  # A descendant may keep the pipe open.
        lines = worker.last_lines()
    elif worker.pipe in ready and (lines := worker.take_lines()) is None:
        selector.unregister(worker.pipe)  # A worker may close it and work on; its time limit still holds.
        has_ended = worker.end is None
    yield from map(decode, lines or ())
    if has_ended:
        worker.wait(patience() if worker.end is None else None)
        for source in filter(None, (worker.pipe, worker.output, worker.end)):
            if source in selector.get_map():
                selector.unregister(source)
        yield None
