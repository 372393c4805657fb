"""The child's end of the line to its parent."""

from __future__ import annotations

import json
import os
import time
from typing import Any

PROGRESS_INTERVAL_S = 1.0


class Line:
    """The pipe to the parent. A parent that is gone ends the worker: nobody is left to want its result."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._pipe = os.fdopen(descriptor, "w", encoding="utf-8")
        self._last = float("-inf")

    def say(self, **message: Any) -> None:
        """Send one message."""
        try:
            print(json.dumps(message), file=self._pipe, flush=True)
        except BrokenPipeError:
            os._exit(1)

    def progress(self, **numbers: float) -> None:
        """Send numbers for the screen, at most once a second."""
        now = time.monotonic()
        if now - self._last >= PROGRESS_INTERVAL_S:
            self._last = now
            self.say(progress=numbers)
