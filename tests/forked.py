"""Processes forked from the tests' own: real ones that need not import torch again.

Importing torch and its first optimizer takes a process some four seconds of a core, and a copy of this one nothing.
A copy has no start of its own: all that the C library, OpenMP or the interpreter read at the start is as in the tests.
A test of the start uses new processes (`processes`).
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from sysconfig import get_path
from types import SimpleNamespace
from typing import IO, Any, NoReturn

import pytest
from processes import LIMIT_S, environment, kill, started

from cnnperf.machine import disturbance

PLACES = {get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
INSTALLED = tuple(PLACES | {str(Path(place).resolve()) for place in PLACES})
"""Where modules lie that are the same for every version of the code."""


@contextmanager
def workers_forked() -> Iterator[None]:
    """Fork this process for each worker that computes in one thread; start every other worker as a new process."""
    import torch

    import cnnperf.workers.subjects  # noqa: F401 - every copy needs it

    torch.optim.SGD([torch.zeros(1, requires_grad=True)])  # It imports more.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # A copy lacks the threads of OpenMP that this process has, and would wait for them.
    try:
        with pytest.MonkeyPatch.context() as patch:
            stand_in = SimpleNamespace(Popen=_process, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)
            patch.setattr("cnnperf.ipc.process.subprocess", stand_in)
            yield
    finally:
        torch.set_num_threads(threads)


def _process(command: Sequence[str], *, env: Mapping[str, str], **options: Any) -> Any:
    words = [word for word in command if word != "-P"]
    if words[:2] == [sys.executable, "-m"] and env.get("OMP_NUM_THREADS", "1") == "1":
        return Worker(words[2:], env=env, **options)
    return subprocess.Popen(command, env=env, **options)


class Copy:
    """A fork of this process that runs a function, with the methods of `subprocess.Popen` that the tests use."""

    def __init__(
        self,
        run: Callable[[], object],
        files: tuple[int, int, int],
        *,
        kept: Sequence[int] = (),
        env: Mapping[str, str],
        cwd: Path | None = None,
    ) -> None:
        """Fork this process and run the function in the copy.

        files: standard input, output and error. kept: further descriptors that stay open. Where PYTHONPATH or
        the folder names a place that this process does not import from, what is not installed is imported again.
        """
        self.returncode: int | None = None
        born, bearing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # No other thread holds what a copy needs.
            self.pid = os.fork()
        if not self.pid:
            _live(run, files, kept, env, cwd)
        os.close(bearing)
        # The pipe ends when the copy leads a group of its own, and can be killed by it as a new process can.
        led, _, _ = select.select([born], [], [], LIMIT_S)
        os.close(born)
        if not led:
            os.kill(self.pid, signal.SIGKILL)
            raise TimeoutError("a copy of this process did not begin")

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the copy, and return its exit status, negative for a signal."""
        assert timeout is None, "the end of a copy is waited for by its pidfd"
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit status if the copy has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the copy."""
        os.kill(self.pid, number)


class Worker(Copy):
    """A fork of this process that runs a module, with the methods of `subprocess.Popen` that `WorkerProcess` uses."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        stdin: IO[bytes] | int,
        stdout: int,
        pass_fds: Sequence[int],
        env: Mapping[str, str],
        cwd: Path | None,
        **_: Any,
    ) -> None:
        self.stdin: IO[bytes] | None = None
        if isinstance(stdin, int):
            source, writer = os.pipe()
            self.stdin = os.fdopen(writer, "wb")
        else:
            source = os.dup(stdin.fileno())

        def run() -> None:
            sys.argv = ["-m", *words[1:]]
            runpy.run_module(words[0], run_name="__main__")

        super().__init__(run, (source, stdout, stdout), kept=pass_fds, env=env, cwd=cwd)
        os.close(source)


@contextmanager
def command(*words: object, out: Path, err: Path | int, **variables: str) -> Iterator[Copy]:
    """Run `cnnperf WORDS` in a copy of this process, and kill it with its descendants at the end of the block.

    out: file of what it prints; err: file, or descriptor of a terminal, of its messages.
    """

    def run() -> None:
        from cnnperf.cli import app

        sys.argv = ["cnnperf", *map(str, words)]
        app.main()

    with open(os.devnull) as nothing, open(out, "w") as printed, open(err, "w") as messages:
        files = nothing.fileno(), printed.fileno(), messages.fileno()
        process = Copy(run, files, env=environment(**variables))
    with limited(process, f"cnnperf {' '.join(map(str, words))}"):
        yield process


@contextmanager
def anew(*words: object, out: Path, err: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run `cnnperf WORDS` like `command`, but in a new process whose workers are new processes too."""
    line = [sys.executable, "-m", "cnnperf", *words]
    with (
        open(out, "w") as printed,
        open(err, "w") as messages,
        started(line, env=environment(**variables), stdout=printed, stderr=messages) as process,
    ):
        yield process


def called_in(folder: Path, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `cnnperf WORDS` with the package in a folder, from that folder; command and workers share one copy.

    Returns what `in_process.called` returns. Fails with the copy's traceback if the call raises.
    """
    with tempfile.TemporaryDirectory() as place:
        result, fault = Path(place, "result"), Path(place, "fault")

        def run() -> None:
            from in_process import called

            result.write_bytes(pickle.dumps(called(*words, cwd=folder)))

        env = {**os.environ, "PYTHONPATH": str(folder), **variables}
        with open(os.devnull, "r+") as nothing, open(fault, "w") as messages:
            files = nothing.fileno(), nothing.fileno(), messages.fileno()
            with limited(Copy(run, files, env=env, cwd=folder), f"cnnperf {' '.join(map(str, words))}") as copy:
                assert copy.wait() == 0, fault.read_text()
        found: subprocess.CompletedProcess[str] = pickle.loads(result.read_bytes())
    return found


@contextmanager
def limited(process: Copy, name: str, *, limit_s: float = LIMIT_S) -> Iterator[Copy]:
    """Kill a copy and its descendants at the end of the block.

    It is killed after `limit_s` too, which ends every wait for it, and fails the test.
    """
    hung = threading.Event()
    timer = threading.Timer(limit_s, lambda: (hung.set(), kill(process)))  # type: ignore[arg-type]
    timer.daemon = True
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        kill(process)  # type: ignore[arg-type]
        process.wait()
        if hung.is_set():
            raise AssertionError(f"{name} did not end within {limit_s:g} s; killed")


def _live(
    run: Callable[[], object],
    files: tuple[int, int, int],
    kept: Sequence[int],
    env: Mapping[str, str],
    cwd: Path | None,
) -> NoReturn:
    """Turn the fork into a separate process with only these open files, this environment and default signals."""
    code = 1
    try:
        os.setsid()
        for number, of in enumerate(files):
            os.dup2(of, number)
        first = 3
        for number in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
            os.closerange(first, number)
            first = number + 1
        disturbance._run_delay_descriptor.cache_clear()  # One that this process has read is closed, and its parent's.
        # A copy of a copy must not close them when it drops those of its parent.
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, 1, closefd=False) for n, mode in enumerate("rww"))
        faulthandler.disable()
        warnings.simplefilter("default")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _move(env, cwd)
        run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        finally:
            os._exit(code)


def _move(env: Mapping[str, str], cwd: Path | None) -> None:
    """Switch to an environment and a folder; where either has its own code, import again all that is not installed."""
    os.environ.clear()
    os.environ.update(env)
    places = [*filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    if cwd is not None:
        os.chdir(cwd)
        places.insert(0, str(cwd))
    if set(places) <= set(sys.path):
        return
    sys.path[:0] = places
    for name, module in list(sys.modules.items()):
        file = vars(module).get("__file__")
        if name.partition(".")[0] == "cnnperf" or (file and name != "__main__" and not file.startswith(INSTALLED)):
            del sys.modules[name]
