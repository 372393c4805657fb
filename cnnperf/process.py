"""A worker process: spawned fresh, listened to without polling, and never left behind."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class WorkerProcess:
    """One `python -m cnnperf.worker` in a process group of its own, given a request and heard line by line.

    Its standard output and error go to `log`; what it tells its parent comes over a pipe of its own, as JSON lines.
    Leaving the `with` block kills whatever is left of the group.
    """

    def __init__(self, mode: str, request: str, *, log: Path, threads: int | None = None) -> None:
        reader, writer = os.pipe()
        environment = dict(os.environ)
        if threads is not None:
            # Read once, when torch's or NumPy's libraries load: too late to set from inside.
            environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
        with tempfile.TemporaryFile() as stdin, open(log, "wb") as output:
            stdin.write(request.encode())
            stdin.seek(0)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cnnperf.worker", mode, str(writer)],
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(writer,),
                env=environment,
                start_new_session=True,
            )
        os.close(writer)
        self._pipe = reader
        # Without a pidfd (outside Linux) the pipe's end is the only sign of the worker's.
        self._end = os.pidfd_open(self._process.pid) if hasattr(os, "pidfd_open") else None

    def messages(self, patience: Callable[[], float | None]) -> Iterator[dict[str, Any]]:
        """Yield what the worker says until it ends, blocking in between.

        `patience()` is asked before each wait for the seconds it may last (None: for ever); raises TimeoutError when
        they have passed without a word.
        """
        with selectors.DefaultSelector() as selector:
            for source in filter(None, (self._pipe, self._end)):
                selector.register(source, selectors.EVENT_READ)
            buffer = b""
            while True:
                ready = [key.fd for key, _ in selector.select(patience())]
                if not ready:
                    raise TimeoutError
                if self._pipe in ready:
                    chunk = os.read(self._pipe, 65536)
                    if not chunk:
                        break
                    *lines, buffer = (buffer + chunk).split(b"\n")
                    yield from map(json.loads, lines)
                else:
                    break  # A grandchild may hold the pipe open; the worker itself is gone.
        self._process.wait()

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
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        os.close(self._pipe)
        if self._end is not None:
            os.close(self._end)


def tail(log: Path, lines: int = 12) -> tuple[str, ...]:
    """Return the last lines of a log, for the record of a task that failed."""
    try:
        return tuple(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ()
