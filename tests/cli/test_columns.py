"""`cnnperf columns`: the data dictionary on a terminal."""

from __future__ import annotations

import pytest
from in_process import called

from cnnperf.tables.dictionary import DICTIONARY


def in_one_line(text: str) -> str:
    """Return a text with single spaces and no line ends."""
    return " ".join(text.split())


@pytest.mark.parametrize("table", DICTIONARY)
def test_a_table_is_described_a_line_per_column(table: str) -> None:
    """A pipe gets one line per column with name, unit, direction and meaning, and no other table."""
    done = called("columns", table)
    assert done.returncode == 0, done.stderr
    described, lines = DICTIONARY[table], done.stdout.splitlines()
    assert in_one_line(done.stdout).startswith(f"{table}.csv {described.row} column unit better meaning")
    for column in (*described.columns, *described.patterns):
        words = (column.name, column.unit or "–", column.better or "–", column.meaning)
        assert in_one_line(" ".join(words)) in map(in_one_line, lines)
    assert [name for name in DICTIONARY if f"{name}.csv" in lines] == [table]


@pytest.mark.parametrize("width", [40, 80])
def test_all_tables_are_described_at_any_width(width: int) -> None:
    """Without a name all tables are described; lines fit the width, and a meaning is folded, not cut."""
    done = called("columns", COLUMNS=str(width))
    lines = done.stdout.splitlines()
    assert [name for line in lines if (name := line.removesuffix(".csv")) in DICTIONARY] == list(DICTIONARY)
    assert max(map(len, lines)) <= width
    columns = [column for table in DICTIONARY.values() for column in (*table.columns, *table.patterns)]
    # Rich's mark of a text that was cut is in some meanings too.
    assert done.stdout.count("…") == sum(column.meaning.count("…") for column in columns)
    if width == 80:
        assert [column.name for column in columns if column.name not in done.stdout] == []


def test_an_unknown_table_is_one_sentence() -> None:
    """An unknown table ends in exit status 2 and one sentence with the nearest name."""
    done = called("columns", "engine")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("cnnperf: TABLE: unknown table 'engine'; did you mean 'engines'? (known: leaderboard")
    assert done.stderr.count("\n") == 1
