"""The registered formats: the file of each defines what it can write."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnperf import record, registry
from cnnperf.errors import RunError, UsageError
from cnnperf.record import Record
from cnnperf.regression.verdict import Comparison, Verdict
from cnnperf.reports import (
    REPORT,
    SELECTION,
    VERDICTS,
    default_format,
    formats,
    keep_in_run,
    keep_tables,
    show,
    takes_folder,
    writer,
)
from cnnperf.tables.report import report_of
from cnnperf.tables.table import Report, Row, Table, column, row_type


@row_type
class Named(Row):
    """A row with one column."""

    name: str = column()


REPORTED = Report((Table("one", Named.columns(), (Named(name="a"),)), Table("other", Named.columns(), ())))


def test_every_file_is_a_format_and_some_write_verdicts() -> None:
    """Every file is a format with a writer for reports; some also have one for verdicts or a choice."""
    assert formats() == registry.names("reports")
    assert set(formats(VERDICTS)) < set(formats())
    for verb in (REPORT, VERDICTS, SELECTION):
        assert all(callable(writer(name, verb)) for name in formats(verb))
        assert default_format(verb) in formats(verb)


def test_a_format_that_cannot_write_it_is_a_sentence() -> None:
    """The error for a format that cannot write verdicts names those that can."""
    wrong = next(name for name in formats() if name not in formats(VERDICTS))
    with pytest.raises(
        UsageError, match=rf"^`format`: unknown format '{wrong}'.*\(known: {', '.join(formats(VERDICTS))}\)"
    ):
        writer(wrong, VERDICTS)


def test_a_run_folder_gets_each_table_in_a_file(tmp_path: Path) -> None:
    """A run folder gets each table as a file, in the formats marked for it."""
    files = keep_tables(REPORTED, tmp_path)
    kept = registry.having("reports", "IN_RUN_FOLDER")
    assert kept
    assert all(takes_folder(name) for name in kept)
    assert set(files) == {"one", "other"}
    assert set(files.values()) <= set(tmp_path.iterdir())


def test_tables_that_cannot_be_written_name_the_cure(tmp_path: Path) -> None:
    """The error for tables that cannot be written names the command that writes them later."""
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match=r"tables cannot be written \(.*; the records are kept; .* cnnperf report "):
        keep_in_run(REPORTED, tmp_path / "run")


def test_only_one_format_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    """One format is the default, and `show` uses it."""
    assert registry.having("reports", "IS_DEFAULT") == (default_format(),)
    show(REPORTED)
    assert "Nothing was trained" in capsys.readouterr().out


HOSTILE = "evil\x1b[31m\x9b\u202e\ud800"
FOR_TOOLS = ("bmf", "github", "junit", "pytest_benchmark")


@pytest.mark.parametrize("name", FOR_TOOLS)
@pytest.mark.filterwarnings("ignore:.* left out; write to a folder")
def test_no_control_character_reaches_another_tool(name: str, tmp_path: Path, trained: Callable[..., Record]) -> None:
    """Characters that a terminal obeys are written as codes: other tools print names as they get them."""
    parameters = record.single("train.parameters", "count", 7, "lower")
    hostile = trained(HOSTILE[:-1], measured=[parameters])
    record.append(
        tmp_path, hostile.model_copy(update={"machine": hostile.machine.model_copy(update={"host": HOSTILE[:-1]})})
    )
    out = io.StringIO()
    writer(name)(report_of([tmp_path]), out)
    assert "evil" in out.getvalue()
    assert not [each for each in out.getvalue() if not (each.isprintable() or each == "\n")]


@pytest.mark.parametrize("name", [name for name in FOR_TOOLS if name in formats(VERDICTS)])
def test_no_control_character_of_a_verdict_reaches_another_tool(name: str) -> None:
    """The same holds for verdicts, whose text may come from files of others; half a character is no UTF-8."""
    verdict = Verdict(
        cell=HOSTILE,
        metric=f"m[{HOSTILE}]",
        outcome="worse",
        unit="s",
        baseline=1,
        candidate=2,
        change=1,
        remark=HOSTILE,
    )
    out = io.StringIO()
    writer(name, VERDICTS)(Comparison(verdicts=(verdict,), notes=(HOSTILE,)), out)
    assert out.getvalue().encode()
    assert not [each for each in out.getvalue() if not (each.isprintable() or each == "\n")]
