"""One self-contained page: sortable, filterable tables, and plots drawn by the included Vega-Lite."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

from cnnperf.errors import UsageError
from cnnperf.reports._readable import (
    alarm,
    best,
    doubt,
    footnotes,
    interval,
    interval_words,
    read_as,
    signed,
    title,
    visible,
)
from cnnperf.tables.table import DOUBT, Column, Report, Table
from cnnperf.units import MISSING, scaled

PAGE = Path(__file__).with_name("_page")
"""Templates, style and scripts; vega 6.4.0 and vega-lite 6.4.3 as the npm registry has them."""
LIBRARY = ("vega.min.js", "vega-lite.min.js")
SYMBOLS = {
    **dict.fromkeys(("worse", "missing", "error"), "▼"),
    "inconclusive": "?",
    "better": "▲",
    "same": "=",
    "indicative": "·",
}
"""Symbol of each verdict, in addition to its word and colour."""


def write(report: Report, out: TextIO) -> None:
    """Write the page. Raises UsageError if a required package is not installed."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        from cnnperf.reports import _sections as sections
    except ModuleNotFoundError as error:
        raise UsageError(f"the format 'html' needs {error.name}; pip install 'cnnperf[report]'") from error
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters |= {"scaled": scaled, "signed": signed, "read_as": read_as}
    environment.globals |= {"best": best, "title": title, "alarm": alarm, "visible": visible, "columns": _columns}
    environment.globals |= {
        "interval": interval,
        "interval_words": interval_words,
        "footnotes": footnotes,
        "doubt": doubt,
        "mark_of_doubt": DOUBT,
    }
    parts: dict[str, Any] = {
        "answers": sections.answers(report),
        "training": sections.training(report),
        "tradeoffs": sections.tradeoffs(report),
        "networks": sections.networks(report),
        "predictions": sections.predictions(report),
        "comparison": sections.change_charts(report),
    }
    groups = [*parts["training"], *parts["tradeoffs"], *parts["networks"]]
    charts = [*(chart for group in groups for chart in group.charts), *parts["comparison"]]
    page = environment.get_template("page.html").render(
        report=report,
        tables={table.name: table for table in report.tables if table.rows or table.notes},
        **parts,
        drawn={"specs": {c.name: {"data": [c.data, *c.more], "spec": c.spec} for c in charts}, "rows": _rows(charts)},
        assets={file: (PAGE / file).read_text(encoding="utf-8") for file in ("page.css", "page.js", *LIBRARY)},
        symbols=SYMBOLS,
        missing=MISSING,
    )
    out.write(page)


def _rows(charts: list[Any]) -> dict[str, Any]:
    """Return the rows of the plots, each set and its keys stored once, with the name of its table."""
    found: dict[str, Any] = {}
    for chart in charts:
        for name, (table, rows) in {chart.data: (chart.table, chart.rows), **chart.more}.items():
            columns = list(dict.fromkeys(key for row in rows for key in row))
            found[name] = {
                "table": table,
                "columns": columns,
                "rows": [[row.get(key) for key in columns] for row in rows],
            }
    return found


def _columns(table: Table[Any]) -> list[Column]:
    """Return the columns of the page: the readable ones, and the reason of a row that did not end well."""
    shown = {column.name for column in visible(table)}
    shown |= {"reason"} if any(row.reason for row in table.rows) else set()
    return sorted((column for column in table.columns if column.name in shown), key=lambda c: c.name != "run")
