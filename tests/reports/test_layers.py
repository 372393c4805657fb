"""The printed profile: it fits the terminal, its columns add up, and its numbers are those of layers.csv."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest

from cnnperf.record import Record
from cnnperf.reports._layers import write
from cnnperf.tables.layers import LayerProfile, profiles

UNITS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0}


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "LINES", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def profile(profiled: Record) -> LayerProfile:
    """Return the profile of the record."""
    [found] = profiles({"run": (profiled,)})
    return found


def written(profile: LayerProfile, out: io.StringIO | None = None, **options: object) -> str:
    """Return what is printed, to a pipe unless a terminal is given."""
    out = out or io.StringIO()
    write(profile, out, **options)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


def seconds_of(line: str) -> list[float]:
    """Return the times in a line."""
    return [float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+) (µs|ms|s)\b", line)]


def test_golden(profile: LayerProfile, golden: Callable[[str, str], None]) -> None:
    """The text written to a pipe, with every column, equals the golden file."""
    golden("profile.txt", written(profile))


def test_the_title_counts_threads(profiled: Record) -> None:
    """One thread is in the singular, and an unknown number of threads is omitted."""
    for threads, words in ((1, " · 1 thread · "), (4, " · 4 threads · "), (None, ") · trained weights")):
        machine = profiled.machine.model_copy(update={"threads": threads})
        task = profiled.task.model_copy(update={"threads": None})
        [found] = profiles({"run": (profiled.model_copy(update={"machine": machine, "task": task}),)})
        assert words in written(found).splitlines()[0]


def test_golden_of_a_narrow_terminal(
    profile: LayerProfile, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text written to a terminal of 80 columns equals the golden file."""
    monkeypatch.setenv("COLUMNS", "80")
    golden("profile-80.txt", written(profile, Terminal()))


def test_columns_add_up(profile: LayerProfile) -> None:
    """Each printed time is one of layers.csv, and a column's times sum to its total, to the printed digits."""
    lines = [line for line in written(profile).splitlines() if line.startswith(("block.", "(", "total"))]
    *layers, total = map(seconds_of, lines)
    raw = {v for row in profile.rows for n in ("seconds", "forward_s", "backward_s") if (v := row[n]) is not None}
    for times in layers:
        assert all(any(value == pytest.approx(r, rel=5e-3) for r in raw) for value in times)
    # In a line: all, and what of it is forward and backward.
    assert sum(times[0] for times in layers) == pytest.approx(total[0], rel=5e-3)
    assert total[0] == pytest.approx(total[1] + total[2] + 0.0002, rel=5e-3)
    assert total[0] == pytest.approx(profile.total("seconds"), rel=5e-3)


def test_subtotals_keep_the_total(profile: LayerProfile) -> None:
    """Folding changes no total, and a block's line is the sum of its layers."""
    whole, folded = written(profile).splitlines(), written(profile, depth=1).splitlines()
    [block] = [line for line in folded if line.startswith("block ")]
    assert seconds_of(block) == pytest.approx([0.0065, 0.0025, 0.004])
    totals = [[line for line in lines if line.startswith("total")] for lines in (whole, folded)]
    assert list(map(seconds_of, totals[0])) == list(map(seconds_of, totals[1]))


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_it_fits_the_terminal(profile: LayerProfile, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Lines fit the terminal, no name is cut, and hidden columns are named."""
    monkeypatch.setenv("COLUMNS", str(width))
    text = written(profile, Terminal())
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for row in profile.rows:
        assert row["layer"] in text
    assert ("Columns hidden (terminal too narrow): " in " ".join(text.split())) == (width < 200)


def test_times_give_way_last(profile: LayerProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 60 columns forward and backward times are shown, MACs are hidden."""
    monkeypatch.setenv("COLUMNS", "60")
    head = written(profile, Terminal()).splitlines()[1:3]
    assert {"layer", "all", "forward", "backward"} <= set(" ".join(head).split())
    assert "MACs" not in " ".join(head)


def test_a_column_sorts(profile: LayerProfile) -> None:
    """Numbers are sorted from the largest, text from A, and missing values come last."""
    for column, layers in (
        ("saved_bytes", ["block.relu", "block.conv"]),
        ("seconds", ["block.conv", "block.relu"]),
        ("type", ["block.conv", "block.relu"]),
        ("forward_uncounted", ["block.relu", "block.conv"]),
    ):
        lines = [line.split()[0] for line in written(profile, by=column).splitlines() if line.startswith("block.")]
        assert lines == layers
