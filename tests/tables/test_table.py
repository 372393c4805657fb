"""Rows are frozen dataclasses whose declared fields are the columns; tables can be sorted."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, field

import pytest
from rich.console import Console
from rich.table import Table as RichTable

from cnnperf.errors import UsageError
from cnnperf.reports._fit import fit
from cnnperf.tables.engine_row import EngineRow
from cnnperf.tables.leaderboard_row import LeaderboardRow
from cnnperf.tables.profiles import ProfileRow
from cnnperf.tables.table import Row, Table, column, row_type


@row_type
class Runner(Row):
    """A row with two columns and a field that is no column."""

    name: str = column("who", meaning="its name")
    time_s: float | None = column(unit="s", better="lower", default=None)
    laps: tuple[float, ...] = field(default=())


def test_a_declared_field_is_a_column_of_its_name() -> None:
    """The columns are in the order of the class, without other fields."""
    columns = Runner.columns()
    assert [(each.name, each.title, each.unit) for each in columns] == [("name", "who", None), ("time_s", "", "s")]
    assert columns[0].meaning == "its name"
    assert Runner.columns() == columns


def test_a_value_is_found_by_the_name_of_its_column() -> None:
    """A row gives the value of each column by name, None by default, and KeyError for other names."""
    row = Runner(name="a", laps=(1.0,))
    assert (row["name"], row["time_s"]) == ("a", None)
    for name in ("laps", "row_label", "other"):
        with pytest.raises(KeyError):
            row[name]


def test_a_row_does_not_change_and_takes_no_more() -> None:
    """A row is frozen, has slots, and requires the columns without a default."""
    row = Runner(name="a")
    with pytest.raises(FrozenInstanceError):
        row.name = "b"
    assert not hasattr(row, "__dict__")
    with pytest.raises(TypeError):
        Runner()
    with pytest.raises(TypeError):
        Runner(name="a", other=1)


def test_a_table_is_sorted_by_any_column() -> None:
    """A sorted table has the best row first and missing values last."""
    rows = tuple(Runner(name=name, time_s=time_s) for name, time_s in (("a", 2.0), ("b", None), ("c", 1.0)))
    table = Table("t", Runner.columns(), rows)
    assert [row.name for row in table.sorted_by("time_s").rows] == ["c", "a", "b"]
    with pytest.raises(UsageError, match="unknown column 'tmie_s'; did you mean 'time_s'"):
        table.sorted_by("tmie_s")


def test_a_frame_has_the_columns_and_nothing_else() -> None:
    """A frame has only the columns, with missing values as NA."""
    frame = Table("t", Runner.columns(), (Runner(name="a", time_s=2.0, laps=(1.0,)), Runner(name="b"))).frame()
    assert list(frame.columns) == ["name", "time_s"]
    assert frame["time_s"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("row", "hidden", "kept"),
    [
        (
            LeaderboardRow,
            "test_images peak_bytes batch_size repeats best_validation_accuracy test_set peak_above_start_bytes params "
            "target_accuracy time_to_target_s data weak_scaling strong_scaling images_per_s test_accuracy_flip backend "
            "processes status",
            "rank model test_accuracy",
        ),
        (
            ProfileRow,
            "overhead optimizer_s parameters weights peak_at saved_bytes peak_above_start_bytes backward_s forward_s "
            "status mfu macs",
            "model step_s",
        ),
        (
            EngineRow,
            "layers_share peak_bytes total_images_per_s file_bytes top1_agreement latency_p99_s latency_p90_s pareto "
            "accuracy_drop test_accuracy speedup_pairing scenario best images_per_s status",
            "model engine batch_size latency_s speedup parity",
        ),
    ],
)
def test_a_terminal_that_narrows_hides_the_least_important_column_first(row: type[Row], hidden: str, kept: str) -> None:
    """Details are hidden first, then what explains a result; names, the result and its validity are never hidden."""
    readable = [column for column in row.columns() if column.shown is not None]
    columns = fit(Console(width=1), readable, lambda fitting: RichTable(*(column.name for column in fitting)))
    assert [" ".join(column.name for column in some) for some in columns] == [kept, hidden]
