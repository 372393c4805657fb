"""The room of formats: what each can write is asked of its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnperf import registry
from cnnperf.errors import RunError, UsageError
from cnnperf.reports import (
    REPORT,
    VERDICTS,
    default_format,
    formats,
    keep_in_run,
    keep_tables,
    show,
    takes_folder,
    writer,
)
from cnnperf.tables.table import Report, Row, Table, column, row_type


@row_type
class Named(Row):
    """A row with one column."""

    name: str = column()


REPORTED = Report((Table("one", Named.columns(), (Named(name="a"),)), Table("other", Named.columns(), ())))


def test_every_file_is_a_format_and_some_write_verdicts() -> None:
    """By their functions."""
    assert formats() == registry.names("reports")
    assert set(formats(VERDICTS)) < set(formats())
    for verb in (REPORT, VERDICTS):
        assert all(callable(writer(name, verb)) for name in formats(verb))
        assert default_format(verb) in formats(verb)


def test_a_format_that_cannot_write_it_is_a_sentence() -> None:
    """With those that can."""
    wrong = next(name for name in formats() if name not in formats(VERDICTS))
    with pytest.raises(
        UsageError, match=rf"^`format`: unknown format '{wrong}'.*\(known: {', '.join(formats(VERDICTS))}\)"
    ):
        writer(wrong, VERDICTS)


def test_a_run_folder_gets_each_table_in_a_file(tmp_path: Path) -> None:
    """In every format that says so."""
    files = keep_tables(REPORTED, tmp_path)
    kept = registry.having("reports", "IN_RUN_FOLDER")
    assert kept
    assert all(takes_folder(name) for name in kept)
    assert set(files) == {"one", "other"}
    assert set(files.values()) <= set(tmp_path.iterdir())


def test_tables_that_cannot_be_written_name_the_cure(tmp_path: Path) -> None:
    """What was measured is not lost."""
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match=r"tables cannot be written \(.*; the records are kept; .* cnnperf report "):
        keep_in_run(REPORTED, tmp_path / "run")


def test_only_one_format_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    """And it is what is shown."""
    assert registry.having("reports", "IS_DEFAULT") == (default_format(),)
    show(REPORTED)
    assert "Nothing was trained" in capsys.readouterr().out
