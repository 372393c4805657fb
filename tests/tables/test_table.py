"""Rows are frozen dataclasses whose declared fields are the columns, and tables sort and divide them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, field

import pytest

from cnnperf.errors import UsageError
from cnnperf.tables.table import Row, Table, column, row_type


@row_type
class Runner(Row):
    """A row of two columns and of something that no column says."""

    name: str = column("who", meaning="its name")
    time_s: float | None = column(unit="s", better="lower", default=None)
    laps: tuple[float, ...] = field(default=())


def test_a_declared_field_is_a_column_of_its_name() -> None:
    """In the order of the class; other fields are none."""
    columns = Runner.columns()
    assert [(each.name, each.title, each.unit) for each in columns] == [("name", "who", None), ("time_s", "", "s")]
    assert columns[0].meaning == "its name"
    assert Runner.columns() == columns


def test_a_value_is_found_by_the_name_of_its_column() -> None:
    """What is not measured is None; what is no column is not found."""
    row = Runner(name="a", laps=(1.0,))
    assert (row["name"], row["time_s"]) == ("a", None)
    for name in ("laps", "row_label", "other"):
        with pytest.raises(KeyError):
            row[name]


def test_a_row_does_not_change_and_takes_no_more() -> None:
    """It is frozen, and has slots; a column without a default must be given."""
    row = Runner(name="a")
    with pytest.raises(FrozenInstanceError):
        row.name = "b"
    assert not hasattr(row, "__dict__")
    with pytest.raises(TypeError):
        Runner()
    with pytest.raises(TypeError):
        Runner(name="a", other=1)


def test_a_table_is_sorted_by_any_column() -> None:
    """The best first, by the direction of the column; what lacks it last."""
    rows = tuple(Runner(name=name, time_s=time_s) for name, time_s in (("a", 2.0), ("b", None), ("c", 1.0)))
    table = Table("t", Runner.columns(), rows)
    assert [row.name for row in table.sorted_by("time_s").rows] == ["c", "a", "b"]
    with pytest.raises(UsageError, match="unknown column 'tmie_s'; did you mean 'time_s'"):
        table.sorted_by("tmie_s")


def test_a_frame_has_the_columns_and_nothing_else() -> None:
    """Numbers that do not count are floats, absent where they were not measured."""
    frame = Table("t", Runner.columns(), (Runner(name="a", time_s=2.0, laps=(1.0,)), Runner(name="b"))).frame()
    assert list(frame.columns) == ["name", "time_s"]
    assert frame["time_s"].isna().tolist() == [False, True]
