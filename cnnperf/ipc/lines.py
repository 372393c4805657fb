"""Messages of a worker, cut into lines whose length and number are bounded."""

from __future__ import annotations

import time

LONGEST_MESSAGE = 2**20
"""Bytes of the longest line of a worker that only reports; a message of progress has some hundred."""
LONGEST_ANSWER = 2**26
"""Bytes of the longest line of a worker whose answer is a message: all tasks of a suite, all samples of a side."""
LINES_PER_S = 1000
"""Lines that are read in one second; a worker reports once a second, a download some hundred times."""
PAUSE_S = 0.01
"""Pause between two reads of a pipe that is flooded, so that reading takes no core from what is measured."""


class Lines:
    """The lines of one worker's pipe; lines that are too long or too many are dropped and counted."""

    def __init__(self, longest: int) -> None:
        self._dropped = 0
        self._longest = longest
        self._begun = bytearray()
        self._is_too_long = False
        self._second = -1
        self._in_second = self._bytes_in_second = 0

    def feed(self, chunk: bytes) -> tuple[bytes, ...]:
        """Take the next bytes of the pipe, and return the lines that they complete."""
        if (second := int(time.monotonic())) != self._second:
            self._second, self._in_second, self._bytes_in_second = second, 0, 0
        self._bytes_in_second += len(chunk)
        first, *others = chunk.split(b"\n")
        self._extend(first)
        lines: list[bytes] = []
        for other in others:
            self._in_second += 1
            if self._is_too_long or self._in_second > LINES_PER_S:
                self._dropped += 1
            else:
                lines.append(bytes(self._begun))
            self._begun.clear()
            self._is_too_long = False
            self._extend(other)
        return tuple(lines)

    @property
    def is_flooded(self) -> bool:
        """Whether too many lines, or more bytes than the longest line has, were said in this second."""
        is_much = self._in_second > LINES_PER_S or self._bytes_in_second > self._longest
        return is_much and self._second == int(time.monotonic())

    @property
    def loss(self) -> str | None:
        """The number of dropped lines, as a sentence; None if none was dropped."""
        if not (count := self._dropped + self._is_too_long):
            return None
        return (
            f"{count:,} messages of the process were dropped (longer than {self._longest / 2**20:g} MiB, or more than "
            f"{LINES_PER_S:,} in a second)"
        )

    def _extend(self, part: bytes) -> None:
        if self._is_too_long or len(self._begun) + len(part) > self._longest:
            self._begun.clear()
            self._is_too_long = True
        else:
            self._begun += part
