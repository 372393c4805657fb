"""The descendants of a worker, which are ended with it, also those in sessions of their own.

On Linux, a process whose parent has ended becomes a child of its nearest ancestor that is a subreaper. This process is
one while a worker exists; it knows the worker's descendants by a mark in their environment, because it may have
children of other origin. Source: PR_SET_CHILD_SUBREAPER in prctl(2).
"""

from __future__ import annotations

import atexit
import ctypes
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil

MARKS = "CNNPERF_WORKERS"
"""Variable with a mark for each worker that a process descends from, separated by colons."""
SET_SUBREAPER, GET_SUBREAPER = 36, 37
GONE_S = 5.0
"""Seconds within which a killed process is gone, unless the kernel holds it."""
ROUNDS = 10
"""How often processes are sought again after some were killed, because they may have started others meanwhile."""
SWEEP = """
import os, signal, sys, time

mark = sys.argv[1].encode()
sys.stdin.read()
found = True
while found:
    found = False
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                variables = file.read().split(b"\\0")
            if any(each.startswith(b"CNNPERF_WORKERS=") and mark in each for each in variables):
                os.kill(int(name), signal.SIGKILL)
                found = True
        except OSError:
            pass
    time.sleep(0.05 * found)
"""
"""A program that waits for the end of its input, then kills all processes with a mark until none is left."""


class Family:
    """The descendants of one worker."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(8)

    def variables(self) -> dict[str, str]:
        """Return the environment variable that marks the worker and all that it starts."""
        return {MARKS: ":".join(filter(None, (os.environ.get(MARKS), _sweeper.mark, self._mark)))}

    def members(self, worker: int, *, has_ended: bool = True) -> Sequence[psutil.Process]:
        """Return the worker's descendants that run.

        worker: its process id, which is that of its session too. has_ended: whether another process may have this id.
        """
        found: dict[int, psutil.Process] = {}
        if not has_ended:
            with suppress(psutil.Error):
                found = {each.pid: each for each in psutil.Process(worker).children(recursive=True)}
        with suppress(psutil.Error):
            for each in psutil.Process().children(recursive=True):
                if each.pid not in (worker, *found) and self._has(each, worker):
                    found[each.pid] = each
        return tuple(found.values())

    def end(self, worker: int, known: Sequence[psutil.Process]) -> None:
        """Kill the descendants of a worker that has ended, and wait until they are gone. known: some of them."""
        members = known
        for _ in range(ROUNDS):
            for each in members:
                with suppress(psutil.Error):
                    each.kill()
            psutil.wait_procs(members, timeout=GONE_S)
            if not (members := self.members(worker)):
                return

    def _has(self, process: psutil.Process, worker: int) -> bool:
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == worker:
                return True
            return self._mark in process.environ().get(MARKS, "").split(":")
        return False


class _Sweeper:
    """A small process that ends what is left of all workers once this process was killed and cannot do it itself."""

    def __init__(self) -> None:
        self.mark = ""
        """Mark of all workers of this process; empty before the first, and in a worker, whose parent has one."""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process unless it exists; it waits in the kernel for the end of this one."""
        if self.mark or MARKS in os.environ or sys.platform != "linux":
            return
        self.mark = secrets.token_hex(8)
        # Where the system allows no more processes or files, the workers do without.
        with suppress(OSError):
            self._process = subprocess.Popen(
                (sys.executable, "-I", "-S", "-c", SWEEP, self.mark),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
            atexit.register(self._end)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


_sweeper = _Sweeper()


class _Adoption:
    """How many workers exist whose orphans become children of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._before = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make this process a subreaper for the block."""
        with self._lock:
            if not self._count:
                _sweeper.start()
                self._before = _is_subreaper()
                set_of_process(SET_SUBREAPER, 1)
            self._count += 1
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1
                if not self._count:
                    set_of_process(SET_SUBREAPER, self._before)


adopting = _Adoption().held
"""Make this process a subreaper for the block; does nothing outside Linux."""


def set_of_process(option: int, argument: int) -> None:
    """Set an attribute of this process by prctl(2); does nothing outside Linux."""
    if sys.platform == "linux":
        nothing = ctypes.c_ulong(0)
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(argument), nothing, nothing, nothing)


def _is_subreaper() -> int:
    value, nothing = ctypes.c_int(0), ctypes.c_ulong(0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(GET_SUBREAPER, ctypes.byref(value), nothing, nothing, nothing)
    return value.value
