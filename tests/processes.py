"""Real processes for the tests: every wait has a limit, and no process outlives its test."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

LIMIT_S = 240.0
"""Seconds after which a process counts as hung; a busy machine needs a small part of them."""
POLL_S = 0.02
HERE = Path(__file__).parent


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with more variables; the modules of this folder can be imported in it."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **variables}


@contextmanager
def started(
    command: Sequence[object],
    *,
    limit_s: float = LIMIT_S,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    **pipes: Any,
) -> Iterator[subprocess.Popen[str]]:
    """Start a process in a group of its own, and kill it with its descendants at the end of the block.

    After `limit_s` the process is killed too, which ends every wait for it or for its output, and fails the test.
    """
    words = [str(word) for word in command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes}
    process = subprocess.Popen(
        words, cwd=cwd, env=environment() if env is None else env, text=True, start_new_session=True, **pipes
    )
    hung = threading.Event()
    timer = threading.Timer(limit_s, lambda: (hung.set(), kill(process)))
    timer.daemon = True
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        kill(process)
        process.wait(timeout=LIMIT_S)
        for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
            with suppress(BrokenPipeError):
                pipe.close()
        if hung.is_set():
            raise AssertionError(f"{' '.join(words)} did not end within {limit_s:g} s; killed")


def completed(
    *command: object,
    limit_s: float = LIMIT_S,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a process to its end, within the limit, and return its output.

    check: whether an exit status other than 0 fails the test.
    """
    with started(command, limit_s=limit_s, cwd=cwd, env=env) as process:
        out, err = process.communicate()
    assert not check or process.returncode == 0, err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process, what it has started, and what is left of its group."""
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for each in family:
        with suppress(psutil.NoSuchProcess):
            each.kill()


def until(is_true: Callable[[], Any], *, limit_s: float = LIMIT_S, poll_s: float = POLL_S) -> Any:
    """Call a function until its value is true, and return that value; fail after the time limit."""
    deadline = time.monotonic() + limit_s
    while not (answer := is_true()):
        assert time.monotonic() < deadline, f"nothing within {limit_s:g} s"
        time.sleep(poll_s)
    return answer


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return all descendants of a process."""
    return psutil.Process(process.pid).children(recursive=True)


def has_ended(process: psutil.Process | int, *, within_s: float = 20.0) -> bool:
    """Tell whether a process ends within the time limit; a zombie counts as ended."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            found = psutil.Process(process) if isinstance(process, int) else process
            if not found.is_running() or found.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(POLL_S)
    return False


@contextmanager
def interruptible() -> Iterator[None]:
    """Handle SIGINT like a foreground job, even where it is ignored as under `nohup`; child processes inherit this."""
    previous = signal.getsignal(signal.SIGINT)
    if previous is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
