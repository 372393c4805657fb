"""A report as all formats receive it: tables of raw SI values, with columns that describe these."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, dataclass_transform

from cnnperf import registry
from cnnperf.errors import UsageError
from cnnperf.machine.disturbance import is_disturbing
from cnnperf.units import printable

if TYPE_CHECKING:
    from pandas import DataFrame

    from cnnperf.record import Record

Value = str | int | float | None

DOUBT = "†"
"""Mark of a value that is not reliable; a footnote gives the reason."""

DISTURBED = "disturbed"
"""Column that says in words what disturbed a row, `no` if nothing did; empty where that was not measured."""

LEAST_REPEATS = 4
"""Fewest repeats by whose ranges rows are compared: two equal rows have disjoint ones in 2 of 70 cases, 2 / C(8, 4)."""

MARKED = (
    "Marked: the best of a column and all whose interval overlaps its own. No value is marked if one has no interval "
    "or all overlap. Counts are exact; the interval of a time or speed is the range of its repeats, from "
    f"{LEAST_REPEATS} on, and only rows of one run are compared by it."
)
"""Meaning of a mark, in the notes of every table with marks."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its stable name, its unit, its direction, and how readers see it."""

    name: str
    title: str = ""
    """Title for readers; by default the name."""
    unit: str | None = None
    """As in Measurement; None for text, `(unit)` if the row's column `unit` holds it, `1 or (unit)` if only of some."""
    in_percent: bool = False
    """Whether readers see it in percent although it is no fraction: a ratio that is mostly near or below 1."""
    in_points: bool = False
    """Whether readers see it in percentage points, with its sign: a difference between fractions."""
    better: Literal["lower", "higher"] | None = None
    interval: tuple[str, str] | None = None
    """Columns that are printed beside it: its lower and upper end."""
    spread: tuple[str, str] | None = None
    """Columns with the lower and upper end by which two rows are compared; without them only counts are compared."""
    earliest: str | None = None
    """Field of the row that replaces both lower ends: the least possible value, where a time may be too long."""
    least_repeats: int = 1
    """Fewest repeats with which two rows are compared: `LEAST_REPEATS` where the spread is the range of repeats."""
    within: tuple[str, ...] = ()
    """Columns, besides its table's group, that must be equal in the rows that it compares.

    For such a spread these are `run` and `sitting`: tasks of one sitting alternate, tasks of two are measured at
    different times.
    """
    proof: str | None = None
    """Column without whose value a row's extent is unknown: the figure that proves the comparison."""
    doubts: tuple[str, ...] = ()
    """Columns with reasons why a row's value is not reliable, in words; such a value has no extent."""
    flags: tuple[str, ...] = ()
    """Columns with further reasons for the mark of doubt, in words; such a value is compared all the same."""
    shown: int | None = None
    """Whether readers see it: 0 always; 2 is hidden before 1 where space is short; None only in files."""
    meaning: str = ""
    """Description of its values: the entry in the data dictionary, `results/README.md`."""
    source: str = ""
    """Metrics or fields of the record from which its values are computed."""

    @property
    def read_as(self) -> str | None:
        """Return the unit in which readers see it: `fraction` for a ratio in percent, `points` for a difference."""
        return "fraction" if self.in_percent else "points" if self.in_points else self.unit


T = TypeVar("T")

COLUMN = "column"
"""Key in the metadata of a row's field; its value makes the column from the field's name."""


def declared_column(make: Callable[[str], Column], **given: Any) -> Any:
    """Declare a field of a row as the column that `make` returns for its name. given: as for `dataclasses.field`."""
    return field(metadata={COLUMN: make}, **given)


def column(title: str = "", *, default: Any = ..., **described: Any) -> Any:
    """Declare a column: a field of a row. described: fields of Column except the name, which is the field's."""
    make = cast("Callable[[str], Column]", partial(Column, title=title, **described))
    return declared_column(make, **({} if default is ... else {"default": default}))


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(column, field))
def row_type(kind: type[T]) -> type[T]:
    """Make a class the type of a table's rows: a frozen dataclass with slots."""
    return dataclass(frozen=True, slots=True, kw_only=True)(kind)


class Row:
    """One row, in SI units: a field declared by `column` is a column; None means not measured.

    Further fields hold facts without a column: what compared rows have in common, and where they are from.
    """

    __slots__ = ()

    def __post_init__(self) -> None:
        """Make the control characters in its texts visible, whoever prints them."""
        for each in fields(cast("Any", self)):
            value = getattr(self, each.name)
            if isinstance(value, str) and not value.isprintable():
                object.__setattr__(self, each.name, printable(value))

    @classmethod
    def columns(cls) -> tuple[Column, ...]:
        """Return the columns, in order."""
        return tuple(_columns(cast("Hashable", cls)).values())

    def __getitem__(self, name: str) -> Any:
        """Return the value of a column by its name. Raises KeyError if there is no such column."""
        if name not in _columns(cast("Hashable", type(self))):
            raise KeyError(name)
        return getattr(self, name)

    def trait(self, name: str) -> Any:
        """Return the value by which rows are grouped in a column; a kind of row may choose another than the column's.

        Raises KeyError if there is no such column.
        """
        return self[name]

    def repeats_of(self, name: str) -> int | None:
        """Return the number of repeats behind a column's value. Raises KeyError for a row without repeats."""
        return cast("int | None", self["repeats"])

    @property
    def is_disturbed(self) -> bool:
        """Whether its measurements are known to have been disturbed; it is then never marked or ranked."""
        return is_disturbing(getattr(self, DISTURBED, None))

    @property
    def is_sound(self) -> bool:
        """Whether it may be compared with others."""
        return True

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of its task, in which rows of one label may differ; empty for a row without a task."""
        return {}

    @property
    def budget_label(self) -> str | None:
        """Words for its budget in the title of its group. Raises KeyError for a row without one."""
        return cast("str | None", self["budget"])

    @property
    def row_label(self) -> str:
        """Words that distinguish it from the other rows of its group."""
        return ""


R = TypeVar("R", bound=Row)
K = TypeVar("K")
V = TypeVar("V")


def grouped(rows: Iterable[V], key: Callable[[V], K]) -> dict[K, list[V]]:
    """Return rows, or records, by a key, in the order in which each first appears."""
    groups: dict[K, list[V]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


@cache
def _columns(kind: Hashable) -> Mapping[str, Column]:
    return {f.name: f.metadata[COLUMN](f.name) for f in fields(cast("Any", kind)) if COLUMN in f.metadata}


@dataclass(frozen=True, slots=True)
class Table(Generic[R]):
    """Rows, and the columns that all of them have."""

    name: str
    columns: tuple[Column, ...]
    rows: tuple[R, ...]
    group: tuple[str, ...] = ()
    """Columns that must be equal in rows that are compared; empty if no rows are compared."""
    notes: tuple[str, ...] = ()
    """Notes that are needed to read this table alone."""

    def frame(self) -> DataFrame:
        """Return the rows as a DataFrame with nullable types; whole numbers are integers only where they count."""
        import pandas as pd

        names = [column.name for column in self.columns]
        frame = pd.DataFrame([[row[name] for name in names] for row in self.rows], columns=names)
        continuous = [column.name for column in self.columns if column.unit not in (None, "count", "bytes")]
        return frame.convert_dtypes().astype(dict.fromkeys(continuous, "Float64"))

    def sorted_by(self, name: str) -> Table[R]:
        """Return the table sorted by one column, the best first, then disturbed values, and rows without a value last.

        Raises UsageError if there is no such column.
        """
        columns = {column.name: column for column in self.columns}
        if name not in columns:
            raise UsageError(f"`by`: {registry.unknown('column', name, columns)}")
        present = [row for row in self.rows if row[name] is not None]
        present.sort(key=lambda row: row[name], reverse=columns[name].better == "higher")
        if DISTURBED in columns[name].doubts:
            present.sort(key=lambda row: row.is_disturbed)
        return replace(self, rows=(*present, *(row for row in self.rows if row[name] is None)))

    def groups(self) -> tuple[Table[R], ...]:
        """Divide the rows into the groups that are compared, in the order in which each first appears."""
        groups = grouped(self.rows, lambda row: tuple(row.trait(name) for name in self.group))
        return tuple(replace(self, rows=tuple(rows)) for rows in groups.values())


@dataclass(frozen=True, slots=True)
class Report:
    """A report as all formats receive it: the tables, and notes on the meaning of their numbers."""

    tables: tuple[Table[Any], ...]
    notes: tuple[str, ...] = ()
    folders: Mapping[str, Path] = field(default_factory=dict)
    """The run folder of each run, which holds the artifacts that the tables name."""
    records: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    """The records of each run, for formats that write samples."""

    def table(self, name: str) -> Table[Any] | None:
        """Return the table of this name if there are rows in it."""
        return next((table for table in self.tables if table.name == name and table.rows), None)

    def groups(self) -> tuple[Table[Any], ...]:
        """Return the groups that readers see: those of the tables whose rows are compared."""
        return tuple(group for table in self.tables if table.group for group in table.groups())
