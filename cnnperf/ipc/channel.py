"""The child's end of the connection to its parent: the single request on stdin, and the pipe for messages."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress

from cnnperf.ipc.family import set_of_process
from cnnperf.ipc.messages import Message, Progressed, decode, encode

PROGRESS_INTERVAL_S = 1.0
SET_PARENT_DEATH_SIGNAL = 1
"""Option of prctl(2): PR_SET_PDEATHSIG."""


def single_request() -> Message:
    """Return the request of a worker that receives only one. Raises MalformedError."""
    return decode(sys.stdin.read())


class Line:
    """The pipe to the parent. If the parent has ended, the worker exits, because nobody needs its result."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._pipe = os.fdopen(descriptor, "wb")
        self._last = float("-inf")
        _end_with_parent(descriptor)

    def say(self, message: Message) -> None:
        """Send one message."""
        try:
            self._pipe.write(encode(message))
            self._pipe.flush()
        except BrokenPipeError:
            os._exit(1)

    def progress(self, **numbers: float) -> None:
        """Send numbers for the screen, at most once a second."""
        now = time.monotonic()
        if now - self._last >= PROGRESS_INTERVAL_S:
            self._last = now
            self.say(Progressed(numbers=numbers))


def _end_with_parent(pipe: int) -> None:
    """Make this process end with its parent.

    On Linux the kernel kills it, also where other software never lets Python run. The end of the pipe tells of a parent
    that had ended before, and everywhere else of any; the thread sleeps in the kernel until then.
    """
    set_of_process(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    # Without a thread, where the system allows no more of them, the next message fails.
    with suppress(RuntimeError):
        threading.Thread(target=_exit_at_end_of, args=(pipe,), name="cnnperf-parent", daemon=True).start()


def _exit_at_end_of(pipe: int) -> None:
    poll = select.poll()
    poll.register(pipe, 0)  # That nobody reads any more is always reported.
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll()):
        os._exit(1)
