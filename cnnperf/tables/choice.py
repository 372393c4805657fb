"""From the table of engines to a choice: the network, engine and batch size that satisfy bounds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cnnperf.errors import UsageError, names_listed, shorten
from cnnperf.record import Record, read, run_folders
from cnnperf.stats import Interval
from cnnperf.tables.engine_ranks import PAIRED
from cnnperf.tables.engine_row import EngineRow
from cnnperf.tables.engines import ENGINE_GROUP, engine_table
from cnnperf.tables.table import DOUBT, Table
from cnnperf.units import scaled

CellState = Literal["chosen", "beaten", "by middle", "misses", "not judged"]
"""Standing of a cell: chosen; satisfies every bound too; satisfies some bound by its value only, not by its whole
interval; misses a bound; or is not judged, whatever its figures are."""


def _around(*ends: float | None) -> Interval | None:
    known = [end for end in ends if end is not None]
    return Interval(min(known), max(known)) if known else None


@dataclass(frozen=True, slots=True)
class BoundedColumn:
    """A column of the table of engines that can be bounded."""

    name: str
    argument: str
    """Argument of `choose` with the bound."""
    better: Literal["lower", "higher"]
    interval: Callable[[EngineRow], Interval | None]
    """Interval whose worse end decides."""

    @property
    def title(self) -> str:
        """Return the name that readers see."""
        return _COLUMNS[self.name].title

    def words(self, value: float) -> str:
        """Return a value in readable form."""
        return scaled(value, _COLUMNS[self.name].unit)

    def distance(self, difference: float) -> str:
        """Return a difference of two values in readable form."""
        is_share = _COLUMNS[self.name].unit == "fraction"
        return f"{100 * difference:.1f} points" if is_share else self.words(difference)

    def bound(self, limit: float) -> str:
        """Return a bound in readable form."""
        return f"{'≤' if self.better == 'lower' else '≥'} {self.words(limit)}"


_COLUMNS = {column.name: column for column in EngineRow.columns()}
BOUNDED = (
    BoundedColumn(
        "latency_s",
        "max_latency",
        "lower",
        lambda row: _around(row.latency_q25_s, row.latency_q75_s, row.latency_min_s, row.latency_max_s),
    ),
    BoundedColumn(
        "test_accuracy",
        "min_accuracy",
        "higher",
        lambda row: _around(row.test_accuracy_low, row.test_accuracy_high, row.test_accuracy),
    ),
    BoundedColumn("peak_bytes", "max_memory", "lower", lambda row: _around(*row.evidence.peaks)),
    BoundedColumn("file_bytes", "max_size", "lower", lambda row: _around(row.file_bytes)),
)

_NOTES = (
    "A bound is satisfied where the worse end of the interval satisfies it. Interval of a latency: quartiles of all "
    "calls, and the range of the repeats; of an accuracy: 95 %, of the test images; of memory: the range of the "
    "repeats. A size is exact.",
    f"Not judged: cells that did not end well, whose parity is not ok, that are flagged ({DOUBT}), or that lack a "
    "bounded figure.",
    "separate: the ratio of two speeds measured in processes that did not take turns, which easily differ by 20 %.",
)
_ONCE = "With n=1, variation between processes is unknown."


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a cell with its interval, and the bound on it if there is one."""

    column: BoundedColumn
    value: float
    interval: Interval
    limit: float | None

    @property
    def miss(self) -> float:
        """Return by how much the worse end of the interval misses the bound, relative to it; 0 if it satisfies it."""
        return self._excess(self._worse_end) / (self.limit or 1.0)

    @property
    def is_held_by_middle(self) -> bool:
        """Return whether the value itself satisfies the bound."""
        return not self._excess(self.value)

    @property
    def words(self) -> str:
        """Return the figure in words, with its interval and its bound."""
        low, high = map(self.column.words, self.interval)
        ends = f" [{low}–{high}]" if self.interval.low != self.interval.high else ""
        bound = "" if self.limit is None else f" {self.column.bound(self.limit)}"
        return f"{self.column.title} {self.column.words(self.value)}{ends}{bound}"

    @property
    def miss_in_words(self) -> str:
        """Return the figure in words, and by how much the worse end of its interval misses the bound."""
        return f"{self.words}, missed by {self.column.distance(self._excess(self._worse_end))}"

    @property
    def _worse_end(self) -> float:
        return self.interval.high if self.column.better == "lower" else self.interval.low

    def _excess(self, value: float) -> float:
        if self.limit is None:
            return 0.0
        return max(0.0, value - self.limit if self.column.better == "lower" else self.limit - value)


@dataclass(frozen=True, slots=True)
class Margin:
    """By how much the chosen cell beats another."""

    accuracy: float | None
    """Test accuracy less the other's; None if either has none."""
    is_apart: bool
    """Whether the intervals of both accuracies are disjoint."""
    speed: float
    """Ratio of images/s to the other's."""
    interval: Interval | None
    """95 % interval of that ratio; None unless the two took turns."""

    @property
    def words(self) -> str:
        """Return the differences in words."""
        basis = f"paired [{self.interval.low:.3g}–{self.interval.high:.3g}]" if self.interval else "separate"
        speed = f"images/s × {self.speed:.3g} ({basis})"
        if self.accuracy is None:
            return speed
        return f"test accuracy {100 * self.accuracy:+.1f} points ({'apart' if self.is_apart else 'overlap'}), {speed}"


@dataclass(frozen=True, slots=True)
class Standing:
    """A cell, engine and batch size beside the bounds."""

    row: EngineRow
    figures: tuple[Figure, ...]
    state: CellState
    doubt: str | None = None
    """Why it is not judged."""
    margin: Margin | None = None
    """By how much the chosen one beats it."""

    @property
    def miss(self) -> float:
        """Return the largest relative miss of its figures."""
        return max(figure.miss for figure in self.figures)

    @property
    def words(self) -> str:
        """Return in words why it stands where it does."""
        if self.margin:
            return self.margin.words
        if self.doubt:
            return self.doubt
        missed = [figure for figure in self.figures if figure.miss]
        if self.state == "misses":
            return "; ".join(figure.miss_in_words for figure in missed)
        return "; ".join(figure.words for figure in missed or self.figures)


@dataclass(frozen=True, slots=True)
class Selection:
    """The engines of a dataset's networks on a device beside bounds."""

    table: Table[EngineRow]
    """Rows of the table of engines that were considered."""
    limits: Mapping[str, float]
    """Bound by column."""
    batch_size: int | None
    """Batch size asked for; None for any."""
    standings: tuple[Standing, ...]
    """The chosen one, those that satisfy every bound too, and the others, the nearest first; last those not judged."""
    is_brief: bool = False
    """Whether readers are spared the notes."""

    @property
    def chosen(self) -> Standing | None:
        """Return the chosen one; None if none satisfies every bound."""
        return self.standings[0] if self.standings[0].state == "chosen" else None

    @property
    def nearest(self) -> Standing | None:
        """Return what comes nearest where nothing satisfies every bound; None if nothing could be judged."""
        return self.standings[0] if self.standings[0].state in ("by middle", "misses") else None

    @property
    def exit_code(self) -> Literal[0, 1]:
        """0 if anything satisfies every bound, else 1."""
        return 0 if self.chosen else 1

    @property
    def bounds(self) -> str:
        """Return the bounds in words."""
        words = [f"{each.title} {each.bound(self.limits[each.name])}" for each in BOUNDED if each.name in self.limits]
        return ", ".join(words if self.batch_size is None else [*words, f"batch {self.batch_size}"])

    @property
    def summary(self) -> str:
        """Return the answer in one sentence, with the exit status."""
        if self.chosen:
            beaten = sum(standing.state == "beaten" for standing in self.standings)
            beats = f", and beats {beaten} more that do" if beaten else ""
            return f"{self.name(self.chosen)} satisfies every bound with its intervals{beats} → exit 0"
        judged = sum(standing.state != "not judged" for standing in self.standings)
        nearest = ""
        if self.nearest:
            how = "by its middle only" if self.nearest.state == "by middle" else "nearest"
            nearest = f"; {how}: {self.name(self.nearest)}: {self.nearest.words}"
        return f"none of {judged} judged satisfies every bound with its intervals{nearest} → exit 1"

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what must be known to read it."""
        if self.is_brief:
            return ()
        return (*_NOTES, _ONCE) if any(row.repeats == 1 for row in self.table.rows) else _NOTES

    def name(self, standing: Standing) -> str:
        """Name a network with its engine and batch size, and with its run if there are several."""
        row, runs = standing.row, {row.run for row in self.table.rows}
        return f"{row.run} {row.row_label}" if len(runs) > 1 else row.row_label


def choose(
    runs: Iterable[str | Path],
    *,
    max_latency: str | None = None,
    min_accuracy: str | float | None = None,
    max_memory: str | None = None,
    max_size: str | None = None,
    batch: str | int | None = None,
    only: str | None = None,
    by: str | None = None,
) -> Selection:
    """Choose the network, engine and batch size that satisfy bounds, among the engines that runs have timed.

    max_latency: of a call, with a unit, `2ms`; min_accuracy: a fraction; max_memory, max_size: with a unit, `50MB`.
    batch: the only batch size; None: any. only: a glob over the cells. by: column of the table of engines that decides
    among those that satisfy the bounds, the best value first; None: the test accuracy, and images/s among those whose
    interval overlaps that of the most accurate one.

    Raises UsageError for a bound that cannot be read, or if the runs hold no such engines or several datasets or
    devices, StoreError for a folder without records.
    """
    given = {
        "max_latency": None if max_latency is None else _seconds(max_latency, "max_latency"),
        "min_accuracy": None if min_accuracy is None else _share(str(min_accuracy), "min_accuracy"),
        "max_memory": None if max_memory is None else _bytes(max_memory, "max_memory"),
        "max_size": None if max_size is None else _bytes(max_size, "max_size"),
    }
    limits = {each.name: limit for each in BOUNDED if (limit := given[each.argument]) is not None}
    if not limits:
        raise UsageError(f"no bound is given; give one or more of {', '.join(f'`{name}`' for name in given)}")
    size = None if batch is None else _whole(str(batch), "batch")
    records = {name: read(folder) for name, folder in run_folders(runs).items()}
    table = _of_batch(_of_one_group(engine_table(records if only is None else _of_cells(records, only))), size)
    table = table if by is None else table.sorted_by(by)
    standings = [_judged(row, limits) for row in table.rows]
    return Selection(table, limits, size, _ordered(standings, is_sorted=by is not None))


def _seconds(text: str, argument: str) -> float:
    import pandas as pd

    seconds = math.nan
    if not re.fullmatch(r"[-+.\d\s]*", text):  # A bare number would be nanoseconds.
        with suppress(ValueError, OverflowError):
            seconds = float(pd.Timedelta(text).total_seconds())
    if not 0 < seconds < math.inf:
        raise _wrong(argument, text, "is no duration; give a number with its unit, such as 2ms")
    return seconds


def _share(text: str, argument: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise _wrong(argument, text, "is no share of images; give 0.7 for 70 %")
    return share


def _bytes(text: str, argument: str) -> float:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    size = 0
    if not re.fullmatch(r"[-+.\d\s]*", text):  # Of a bare number nobody knows whether bytes or megabytes are meant.
        with suppress(ValidationError, OverflowError):
            size = int(TypeAdapter(ByteSize).validate_python(text))
    if size < 1:
        raise _wrong(argument, text, "is no size; give a number with its unit, such as 50MB")
    return size


def _whole(text: str, argument: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,8}", text):
        raise _wrong(argument, text, "is no batch size; give a whole number from 1")
    return int(text)


def _wrong(argument: str, text: str, words: str) -> UsageError:
    return UsageError(f"`{argument}`: {shorten(text, 60)!r} {words}")


def _of_cells(records: Mapping[str, Sequence[Record]], only: str) -> dict[str, list[Record]]:
    found = {run: [r for r in of_run if r.task.cell.matches(only)] for run, of_run in records.items()}
    if not any(found.values()):
        cells = names_listed(dict.fromkeys(r.task.cell.id for of_run in records.values() for r in of_run), 250)
        raise UsageError(f"`only`: nothing matches {shorten(only, 60)!r}; give a glob over these cells: {cells}")
    return found


def _of_one_group(table: Table[EngineRow]) -> Table[EngineRow]:
    """Return the rows of the only group in which anything was timed. Raises UsageError if there is none, or several."""
    groups = [group for group in table.groups() if any(row.latency_s for row in group.rows)]
    if not groups:
        raise UsageError("no engine was timed in these runs; give runs of the stage infer, as of the suite engines")
    for name in ENGINE_GROUP:
        values = dict.fromkeys(str(group.rows[0].trait(name)) for group in groups)
        if len(values) > 1:
            is_cell = name in ("dataset", "device")
            cure = f"choose one with `only`, such as {min(values)!r}" if is_cell else "give runs that are alike"
            raise UsageError(f"the engines are of unlike {name.replace('_', ' ')} ({names_listed(values)}); {cure}")
    return groups[0]


def _of_batch(table: Table[EngineRow], size: int | None) -> Table[EngineRow]:
    """Return the rows of a batch size, and those that failed before any. Raises UsageError if none was timed at it."""
    sizes = sorted({row.batch_size for row in table.rows if row.batch_size is not None})
    if size is None:
        return table
    if size not in sizes:
        raise UsageError(f"`batch`: no engine was timed at {size}; give one of {names_listed(sizes)}")
    return replace(table, rows=tuple(row for row in table.rows if row.batch_size in (size, None)))


def _judged(row: EngineRow, limits: Mapping[str, float]) -> Standing:
    figures = tuple(
        Figure(column, value, column.interval(row) or Interval(value, value), limits.get(column.name))
        for column in BOUNDED
        if (value := row[column.name]) is not None
    )
    doubt = _doubt(row, limits)
    if doubt:
        return Standing(row, figures, "not judged", doubt)
    if not any(figure.miss for figure in figures):
        return Standing(row, figures, "beaten")
    return Standing(row, figures, "by middle" if all(each.is_held_by_middle for each in figures) else "misses")


def _doubt(row: EngineRow, limits: Mapping[str, float]) -> str | None:
    """Return why a row is not judged; None if it is."""
    if row.status != "ok":
        return f"{row.status}: {row.reason}" if row.reason else row.status
    if row.parity != "ok":
        return f"parity {row.parity or 'unknown'}"
    if row.is_disturbed:
        return f"{DOUBT} disturbed: {row.disturbed}"
    if row.speedup_flags:
        return f"{DOUBT} speed-up: {row.speedup_flags}"
    lacking = [_COLUMNS[name].title for name in limits if row[name] is None]
    return f"not measured: {', '.join(lacking)}" if lacking else None


def _ordered(standings: Sequence[Standing], *, is_sorted: bool) -> tuple[Standing, ...]:
    """Return the chosen one, those that it beats, and the others, the nearest first."""
    satisfying = [each for each in standings if each.state == "beaten"]
    if not is_sorted:
        satisfying.sort(key=lambda each: (-(each.row.test_accuracy or 0.0), -(each.row.images_per_s or 0.0)))
    rest = sorted(
        (each for each in standings if each.state != "beaten"),
        key=lambda each: (_STATES.index(each.state), 0.0 if each.doubt else each.miss, -(each.row.images_per_s or 0.0)),
    )
    if not satisfying:
        return tuple(rest)
    winner = satisfying[0] if is_sorted else _winner(satisfying)
    beaten = (replace(each, margin=_margin(winner.row, each.row)) for each in satisfying if each is not winner)
    return (replace(winner, state="chosen"), *beaten, *rest)


_STATES: Sequence[CellState] = ("by middle", "misses", "not judged")


def _winner(satisfying: Sequence[Standing]) -> Standing:
    """Return the fastest of those whose accuracy may be that of the most accurate one, which is the first."""
    leader = _accuracy(satisfying[0].row)
    tied = [each for each in satisfying if leader is None or _overlaps(leader, _accuracy(each.row))]
    return max(tied, key=lambda each: each.row.images_per_s or 0.0)


def _accuracy(row: EngineRow) -> Interval | None:
    return _around(row.test_accuracy_low, row.test_accuracy_high, row.test_accuracy)


def _overlaps(one: Interval | None, other: Interval | None) -> bool:
    return one is not None and other is not None and one.overlaps(other)


def _margin(winner: EngineRow, other: EngineRow) -> Margin:
    shares = winner.test_accuracy, other.test_accuracy
    interval = _paired(winner, other)
    one, another = (winner.images_per_s, other.images_per_s) if interval is None else (winner.speedup, other.speedup)
    return Margin(
        accuracy=None if shares[0] is None or shares[1] is None else shares[0] - shares[1],
        is_apart=not _overlaps(_accuracy(winner), _accuracy(other)),
        speed=(one or math.nan) / (another or math.nan),
        interval=interval,
    )


def _paired(winner: EngineRow, other: EngineRow) -> Interval | None:
    """Return the interval of the ratio of two speeds that were measured in turns: of an engine and its baseline."""
    facts = [(row.run, row.evidence.rivals, row.batch_size) for row in (winner, other)]
    if facts[0] != facts[1]:
        return None
    if other.engine == other.evidence.baseline and winner.speedup_pairing == PAIRED:
        return _around(winner.speedup_low, winner.speedup_high)
    if winner.engine == winner.evidence.baseline and other.speedup_pairing == PAIRED:
        return _around(*(1 / end for end in (other.speedup_low, other.speedup_high) if end))
    return None
