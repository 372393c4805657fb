"""The result of measuring one network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cnnperf.measuring.measured import Measured
from cnnperf.record import Record
from cnnperf.tables.table import Report, Row, Table, column, row_type


@row_type
class Judged(Row):
    """What the exit status asks of an engine."""

    parity: str = column()


@pytest.mark.parametrize(
    ("status", "parity", "code"),
    [("ok", "ok", 0), ("skipped", "ok", 0), ("ok", "undecided", 3), ("failed", "undecided", 1), ("timeout", "ok", 1)],
)
def test_the_exit_status(trained: Callable[..., Record], status: str, parity: str, code: int) -> None:
    """A failure comes before what is undecided."""
    report = Report((Table("engines", Judged.columns(), (Judged(parity=parity),)),))
    assert Measured(Path("run"), (trained(status=status),), report).exit_code == code
