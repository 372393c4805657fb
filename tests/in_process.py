"""The program without separate processes, for tests of its results and not of its processes.

A process that imports torch costs seconds. The command line and the workers that serve one request run here in the
tests' own process; a test of signals, crashes, memory or a fresh environment uses real ones (`processes`).
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from processes import environment

from cnnperf.cli import app as cli
from cnnperf.errors import CnnperfWarning
from cnnperf.ipc.messages import Message, Progressed, decode, encode
from cnnperf.ipc.process import Launch


def called(*words: object, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `cnnperf WORDS` and its workers in this process, and return the result that a real process would give."""
    out, err = io.StringIO(), io.StringIO()
    arguments = ["cnnperf", *map(str, words)]
    code: Any = 0
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), workers_here():
        # Any other warning is an error here as everywhere in the tests.
        warnings.simplefilter("always", CnnperfWarning)
        patch.setattr(sys, "argv", arguments)
        patch.setattr(sys, "excepthook", sys.excepthook)  # Typer sets its own.
        for name, value in {"PYTHONPATH": environment()["PYTHONPATH"], **variables}.items():
            patch.setenv(name, value)
        if cwd:
            patch.chdir(cwd)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                cli.main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@contextmanager
def workers_here() -> Iterator[None]:
    """Make preflight and the runner use workers in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnnperf.running.preflight.WorkerProcess", Worker)
        patch.setattr("cnnperf.running.runner.WorkerProcess", Worker)
        yield


class Worker:
    """A worker that serves one request in this process, with the interface of `WorkerProcess`.

    Threads and environment are those of its launch while it works, and its output goes to its log.
    """

    signal = None
    loss = None

    def __init__(self, request: Message, *, log: Path, launch: Launch | None = None, **_: Any) -> None:
        self.returncode = 0
        self._request = request
        self._log = log
        self._launch = launch or Launch()
        self._said: list[Message] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @property
    def ending(self) -> str:
        """Return a description of the worker's end."""
        return f"ended with exit status {self.returncode}"

    def messages(self, _: Callable[[], float | None]) -> Iterator[Message]:
        """Serve the request, then yield the messages that were sent meanwhile."""
        self._work()
        yield from self._said

    def say(self, message: Message) -> None:
        """Keep a message in the form in which it leaves a pipe."""
        self._said.append(decode(encode(message)))

    def progress(self, **numbers: float) -> None:
        """Keep progress numbers as a message."""
        self.say(Progressed(numbers=numbers))

    def _work(self) -> None:
        import torch

        worker = importlib.import_module(self._launch.command[-1])
        threads, random = torch.get_num_threads(), torch.get_rng_state()
        with pytest.MonkeyPatch.context() as patch, open(self._log, "w", encoding="utf-8") as log:
            patch.setattr(worker, "Line", lambda _: self)
            patch.setattr(sys, "path", [*sys.path])  # A worker adds the folder of its networks.
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(encode(self._request))))
            patch.setattr(os, "environ", {**os.environ, **self._launch.variables()})
            torch.set_num_threads(self._launch.threads or threads)
            try:
                with redirect_stdout(log), redirect_stderr(log):
                    worker.main(-1)
            except Exception:
                traceback.print_exc(file=log)
                self.returncode = 1
            finally:
                torch.set_num_threads(threads)
                torch.set_rng_state(random)
