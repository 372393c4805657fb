"""The console format: it fits any width, needs no colour, and prints only numbers of the CSV."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cnnperf.reports.console import write
from cnnperf.tables.report import report_of
from cnnperf.tables.table import Report, Row

SCALES = {"%": 0.01, "µs": 1e-6, "ms": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def written(report: Report, out: io.StringIO | None = None) -> str:
    """Return what the format writes, to a pipe unless a terminal is given."""
    out = out or io.StringIO()
    write(report, out)
    return out.getvalue()


def without_styles(text: str) -> str:
    """Return a text without escape codes."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def table_lines(text: str) -> list[str]:
    """Return the lines of the tables' bodies, without the remarks on rows that did not end well."""
    return [
        line
        for body in re.findall(r"^ *[─━].*\n((?:.+\n)*)", text, flags=re.MULTILINE)
        for line in body.splitlines()
        if ": " not in line
    ]


def test_golden(report: Report, golden: Callable[[str, str], None]) -> None:
    """The text written to a pipe, for a report with every kind of row, equals the golden file."""
    golden("leaderboard.txt", written(report))


def numbers_of(rows: Iterable[Row]) -> list[float]:
    """Return every number in the rows."""
    return [row[c.name] for row in rows for c in row.columns() if isinstance(row[c.name], int | float)]


def test_every_number_in_the_tables_is_one_of_the_csvs(report: Report) -> None:
    """Each printed number, scaled back, agrees with a raw number to its last digit."""
    rows = report.tables[0].rows
    halves = [(row["test_accuracy_high"] - row["test_accuracy_low"]) / 2 for row in rows if row["rank"]]
    text = written(report)
    for row in rows:
        text = re.sub(re.escape(row["model"]) + r"(?!:)", "", text)
    found = re.findall(
        r"(?<![\w/])±?(\d[\d,]*(?:\.\d+)?)(?: ?([%kMG]i?B?|[mµ]?s)(?!\w))?", "\n".join(table_lines(text))
    )
    figures = [(float(n.replace(",", "")), SCALES.get(unit, 1), n) for n, unit in found]
    assert len(figures) > 30
    for figure, scale, words in figures:
        decimals = len(words.partition(".")[2])
        candidates = [*(v / scale for v in numbers_of(rows)), *(v / 0.01 for v in halves)]
        assert any(abs(value - figure) <= 0.5 * 10**-decimals + 1e-9 for value in candidates), (words, scale)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_narrow_terminal_drops_columns_and_never_a_name_or_a_digit(
    report: Report, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """Lines fit the terminal, no name is cut, and the hidden columns are named."""
    monkeypatch.setenv("COLUMNS", str(width))
    lines = without_styles(written(report, Terminal())).splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(line.strip() for line in lines)
    for row in report.tables[0].rows:
        assert row["model"] in text or width < 60
    assert "…" not in text
    assert "Columns hidden (terminal too narrow): " in text


def test_width_is_given_to_the_most_important_columns(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 90 columns accuracy and speed are shown beside a long name, the batch size is hidden."""
    monkeypatch.setenv("COLUMNS", "90")
    text = without_styles(written(report, Terminal()))
    first, *_ = text.split("\n\n")
    assert "test accuracy" in first
    assert "images/s" in first
    assert "batch" not in first
    assert re.search(r"Columns hidden \(terminal too narrow\):[^;]*batch", text)


def test_colour_is_for_terminals_that_want_it(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gets no escape codes, NO_COLOR no colour; the stars are printed in each case."""
    monkeypatch.setenv("COLUMNS", "300")
    coloured = written(report, Terminal())
    assert "\x1b[1;32m" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", written(report, Terminal()))
    assert "\x1b" not in written(report)
    assert written(report).count(" *") == without_styles(coloured).count(" *") >= 2


def test_generated_images_are_called_so_above_their_table(report: Report) -> None:
    """Generated images are named in the table's title and explained beneath it."""
    title, why = re.findall(r"^.*data=synthetic.*$", written(report), flags=re.MULTILINE)
    assert title.startswith("mnist · data=synthetic · cpu")
    assert why == ("!! data=synthetic: these are not the images of mnist (no connection to the download address)")


Spread = tuple[float, float | None, float | None]


def marked(
    report: Report, column: str, values: list[Spread], repeats: int = 4, runs: Sequence[str] = ("a", "a", "a", "a")
) -> list[bool]:
    """Return which rows are starred when a column holds these values and spreads, in these runs."""
    from cnnperf.reports._readable import best

    (found,) = [c for c in report.tables[0].columns if c.name == column]
    low, high = found.spread or ("test_accuracy_low", "test_accuracy_high")
    first = report.tables[0].rows[0]
    rows = [
        replace(first, **{column: value, low: least, high: most}, repeats=repeats, run=run)
        for (value, least, most), run in zip(values, runs, strict=False)
    ]
    return best(found, rows)


def test_in_a_time_column_all_within_the_spread_of_the_best_are_marked(report: Report) -> None:
    """A value is starred if it lies within the spread of the best one, or if its own spread reaches it."""
    assert marked(report, "images_per_s", [(100, 90, 110), (95, 94, 96), (80, 79, 81)]) == [True, True, False]
    assert marked(report, "images_per_s", [(100, 90, 110), (80, 70, 91), (80, 70, 89)]) == [True, True, False]


def test_what_may_be_the_best_by_chance_is_not_marked(report: Report) -> None:
    """No row is starred without spreads, with three repeats, if it is alone, or if all rows overlap."""
    assert marked(report, "images_per_s", [(100, None, None), (99, None, None)]) == [False, False]
    assert marked(report, "images_per_s", [(100, 99, 101), (50, None, None)]) == [False, False]
    assert marked(report, "images_per_s", [(100, 99, 101), (50, 49, 51)], repeats=3) == [False, False]
    assert marked(report, "images_per_s", [(100, 99, 101)]) == [False]
    assert marked(report, "images_per_s", [(100, 90, 110), (95, 90, 99)]) == [False, False]


def test_a_time_is_compared_with_those_of_its_own_run_alone(report: Report) -> None:
    """The fastest row of each run is starred, where it has a rival; counts are compared across runs."""
    values: list[Spread] = [(100, 99, 101), (90, 89, 91), (50, 49, 51), (40, 39, 41)]
    two, four = ("a", "a", "b", "b"), ("a", "b", "c", "d")
    assert marked(report, "images_per_s", values, runs=two) == [True, False, True, False]
    assert marked(report, "images_per_s", values, runs=four) == [False] * 4
    assert marked(report, "params", values, runs=two) == [False, False, False, True]


def test_rows_of_several_runs_say_of_which(report: Report) -> None:
    """The column `run` is shown where rows are of several runs, and hidden for one run."""
    board = report.tables[0]
    again = tuple(replace(row, run="other/run") for row in board.rows)
    assert "other/run" in written(replace(report, tables=(replace(board, rows=(*board.rows, *again)),)))
    assert board.rows[0]["run"] not in written(report)


def test_profiles_of_several_repeats_say_of_which() -> None:
    """The columns `repeat` and `run` are shown only where the rows differ in them."""
    from cnnperf.reports._readable import visible
    from cnnperf.tables.table import Row, Table, column, row_type

    @row_type
    class Profile(Row):
        repeat: int = column()
        step_s: float = column(shown=0)
        run: str = column()

    rows = tuple(Profile(repeat=repeat, step_s=0.1, run=run) for repeat, run in ((0, "a"), (1, "a"), (0, "b")))
    for number, names in ((1, ["step_s"]), (2, ["repeat", "step_s"]), (3, ["run", "repeat", "step_s"])):
        assert [each.name for each in visible(Table("profiles", Profile.columns(), rows[:number]))] == names


def test_a_time_to_target_is_known_to_its_resolution(report: Report) -> None:
    """The interval of a time to target starts at the earliest possible time; overlapping rows get no star."""
    from cnnperf.reports._readable import best, cell_text

    (column,) = [c for c in report.tables[0].columns if c.name == "time_to_target_s"]
    first = report.tables[0].rows[0]
    for resolution, stars in ((1.0, [True, False]), (6.0, [False, False]), (0.0, [True, False])):
        name = "time_to_target"
        rows = [
            replace(
                first,
                repeats=4,
                earliest_target_s=s - 1 - resolution,
                **{f"{name}_s": s, f"{name}_min_s": s - 1, f"{name}_max_s": s + 1},
            )
            for s in (30.0, 35.0)
        ]
        assert best(column, rows) == stars
    assert cell_text(column, replace(rows[0], earliest_target_s=22.5)) == "30.0 s [22.5 s–31.0 s]"


def test_a_drop_in_accuracy_is_in_points() -> None:
    """A drop in accuracy is printed in points with its sign, and so are the ends of its interval."""
    from cnnperf.reports._readable import cell_text

    table = report_of(sorted((Path(__file__).parents[1] / "golden" / "smoke").iterdir())).table("engines")
    assert table
    [column] = [column for column in table.columns if column.name == "accuracy_drop"]
    assert {cell_text(column, row) for row in table.rows if row["accuracy_drop"] is not None} == {
        "+0.0 points [-3.7…+3.7]"
    }


def test_counts_are_exact_and_memory_is_not(report: Report) -> None:
    """The best count is starred without a spread, the best memory or accuracy is not."""
    for column, is_exact in (("params", True), ("peak_above_start_bytes", False), ("best_validation_accuracy", False)):
        least_is_best = column != "best_validation_accuracy"
        values: list[Spread] = [(1, None, None), (2, None, None)]
        assert marked(report, column, values if least_is_best else values[::-1]) == [is_exact, False], column


def test_the_head_of_a_time_column_says_how_many_repeats(report: Report) -> None:
    """The head of a time column has n=1 for one process, and a range where rows have unlike repeats."""
    cpu, _, synthetic = (replace(report, tables=(group,)) for group in report.tables[0].groups())
    assert re.search(r"\bn=1 *$", written(synthetic), flags=re.MULTILINE) or " n=1 " in written(synthetic)
    assert "n=1–3" in written(cpu)


def test_failures_are_listed_with_their_reason(report: Report) -> None:
    """Each timeout, failure and skip has a line with its reason."""
    text = written(report)
    assert "lenet: timeout: took longer than 60 s" in text
    assert "nin: ok 1/2: non-finite loss at step 3 | lr 0.1" in text
    assert "lenet: skipped: no CUDA device: torch was built without CUDA" in text


def test_nothing_trained_is_said(report: Report) -> None:
    """A report without rows is written as one sentence."""
    assert written(Report((replace(report.tables[0], rows=()),))) == "Nothing was trained in these runs.\n"
