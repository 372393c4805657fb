"""From records to what was timed repeatedly: the seconds of each call or step, with every sample of all repeats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from cnnperf.record import Measurement, Record
from cnnperf.tables.repeats import Repeats, alike
from cnnperf.task import Scalar


@dataclass(frozen=True, slots=True)
class RepeatedTiming:
    """A call or a step of a cell that was timed more than once in a process."""

    repeats: Repeats
    """The task's repeats that ended well."""
    metric: str
    tags: Mapping[str, Scalar]
    of_repeats: tuple[tuple[float, ...], ...]
    """Seconds of each sample, by repeat."""
    calls: tuple[int, ...]
    """The calls in a sample, whose mean it is, of each repeat; empty where the records do not tell."""

    @property
    def seconds(self) -> tuple[float, ...]:
        """The samples of all repeats."""
        return tuple(chain(*self.of_repeats))

    @property
    def facts(self) -> dict[str, Any]:
        """The facts that tell timings of one cell and metric apart, the most telling first."""
        task = self.repeats.task
        machine = self.repeats.machine
        return {
            "budget": self.repeats.budget,
            "threads": task.threads,
            "waiting": task.waiting,
            "allocator": task.allocator,
            "host": machine.host,
            "run": self.repeats.run,
            **task.settings,
        }


def timings(records: Mapping[str, Sequence[Record]]) -> Iterator[RepeatedTiming]:
    """Yield what the tasks of runs timed more than once, in order; layers, whose hooks cost time, are left out."""
    for run, of_run in records.items():
        for repeats in alike(run, (r for r in of_run if r.status == "ok"), of_run):
            yield from _timings(repeats)


def _timings(repeats: Repeats) -> Iterator[RepeatedTiming]:
    found: dict[tuple[str, tuple[tuple[str, Scalar], ...]], list[Measurement]] = {}
    for record in repeats.records:
        for m in filter(_is_timed, record.measurements):
            found.setdefault((m.metric, tuple(m.tags.items())), []).append(m)
    for (metric, tags), measured in found.items():
        samples = tuple(m.values for m in measured)
        yield RepeatedTiming(repeats, metric, dict(tags), samples, tuple(_calls(measured)))


def _is_timed(m: Measurement) -> bool:
    return m.unit == "s" and m.better == "lower" and len(m.values) > 1 and not m.is_point and "layer" not in m.tags


def _calls(measured: Iterable[Measurement]) -> Iterator[int]:
    return (calls for m in measured if isinstance(calls := m.remarks.get("calls"), int))
