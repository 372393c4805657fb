"""Shards: parts of a suite's cells, each for one of several machines."""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cnnperf.errors import UsageError, shorten
from cnnperf.ipc.messages import Ready
from cnnperf.record import Record


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """One part of a suite's cells. All tasks of a cell are in it, because later stages read files of earlier ones."""

    number: int
    """Number of the part, from 1."""
    count: int
    """Number of parts."""

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `2/3`. Raises UsageError."""
        found = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", text)
        if not found or int(found[1]) > int(found[2]):
            raise UsageError(f"`shard`: got {shorten(text, 30)!r}; give i/n with i from 1 to n, such as 1/3")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, tasks: Sequence[Ready]) -> tuple[Ready, ...]:
        """Return this part's tasks, in the given order. Raises UsageError if there are fewer cells than parts.

        The cells, longest planned duration first, each go to the part with the least work so far (Graham, 1969:
        longest processing time). The durations are nominal, so that every machine divides a suite equally.
        """
        planned: dict[str, float] = defaultdict(float)
        for ready in tasks:
            planned[ready.task.cell.id] += ready.nominal_s
        if self.count > len(planned):
            raise UsageError(
                f"`shard`: {self}, but the suite has only {len(planned)} cells; give at most as many parts"
            )
        parts = [(0.0, number) for number in range(1, self.count + 1)]
        mine: set[str] = set()
        for cell in sorted(planned, key=lambda cell: (-planned[cell], cell)):
            work, number = parts[0]
            heapq.heapreplace(parts, (work + planned[cell], number))
            if number == self.number:
                mine.add(cell)
        return tuple(ready for ready in tasks if ready.task.cell.id in mine)


def missing_shards(records: Iterable[Record]) -> tuple[str, ...]:
    """Name the shards of which there is no record, by suite: `cifar 2/3`."""
    found: dict[tuple[str, int], set[int]] = defaultdict(set)
    for record in records:
        if record.shard:
            shard = Shard.parse(record.shard)
            found[record.task.suite, shard.count].add(shard.number)
    return tuple(
        f"{suite} {Shard(number, count)}"
        for (suite, count), numbers in found.items()
        for number in range(1, count + 1)
        if number not in numbers
    )
