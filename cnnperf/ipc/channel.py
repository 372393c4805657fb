"""The child's end of the connection to its parent: the single request on stdin, and the pipe for messages."""

from __future__ import annotations

import os
import sys
import time

from cnnperf.ipc.messages import Message, Progressed, decode, encode

PROGRESS_INTERVAL_S = 1.0


def single_request() -> Message:
    """Return the request of a worker that receives only one. Raises MalformedError."""
    return decode(sys.stdin.read())


class Line:
    """The pipe to the parent. If the parent has ended, the worker exits, because nobody needs its result."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._pipe = os.fdopen(descriptor, "wb")
        self._last = float("-inf")

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
