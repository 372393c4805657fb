"""Columns computed from a task's repeats, in the same way for every table."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cnnperf.record import Record
from cnnperf.tables.facts import FACTS, fact, reduced, row_of
from cnnperf.tables.repeats import Repeats
from cnnperf.tables.table import Row, column, row_type


@row_type
class Trained(Row):
    """A row with every kind of column."""

    model: str = fact("network", shown=2)
    budget: str | None = fact()
    steps: int = reduced(lambda r: len(r.records), unit="count", meaning="records")
    note: str = column()
    origin: str = ""


def test_a_fact_is_described_once() -> None:
    """A column of a fact has the fact's meaning, and the table's title and priority."""
    model, *_ = Trained.columns()
    assert (model.name, model.title, model.shown, model.meaning) == (
        "model",
        "network",
        2,
        FACTS["model"].meaning,
    )


def test_a_row_is_computed_from_repeats(trained: Callable[..., Record]) -> None:
    """`row_of` computes each column from the repeats unless its value is given."""
    repeats = Repeats("run", (trained("nin"), trained("nin", repeat=1)))
    row = row_of(Trained, repeats, note="x", origin="here")
    assert (row.model, row.steps, row.note, row.origin) == ("nin", 2, "x", "here")
    assert row_of(Trained, repeats, note="x", budget="other").budget == "other"
    assert row.budget == repeats.budget != "other"
    with pytest.raises(TypeError):
        row_of(Trained, repeats)


@pytest.mark.parametrize("name", FACTS)
def test_every_fact_has_a_value(trained: Callable[..., Record], name: str) -> None:
    """The value of each fact is a text, a number or None."""
    found = FACTS[name].value(Repeats("run", (trained(),)))
    assert found is None or isinstance(found, str | int | float)
