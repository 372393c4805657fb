"""Building blocks of the page's plots: axes, series, lines, bars and hovers in Vega-Lite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnnperf.machine.disturbance import UNDISTURBED
from cnnperf.reports._readable import head_words
from cnnperf.tables.table import DISTURBED, DOUBT, Column, Row, Table

Spec = dict[str, Any]

COLOURS = 8
"""Number of series colours in the page's style (`--series-0` and up); shapes and dashes distinguish more series."""
DASHES = ([1, 0], [7, 3], [2, 2], [8, 2, 2, 2])
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down")
BAR_PIXELS = 16
"""Height of a bar in pixels."""


Drawn = Mapping[str, Any]
"""A row's values for a plot by column name, without unmeasured ones."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One plot, and the rows of a table that it shows."""

    name: str
    title: str
    description: str
    """Description of the plot for screen readers."""
    data: str
    """Key of the rows; charts of the same rows share them."""
    table: str
    rows: tuple[Drawn, ...]
    spec: Spec
    more: Mapping[str, tuple[str, tuple[Drawn, ...]]] = field(default_factory=dict)
    """Further rows of the plot, with the name of their table."""
    reading: str = field(kw_only=True)
    """How to read the plot, in one to three sentences."""


def picked(rows: Iterable[Row], *columns: str) -> tuple[Drawn, ...]:
    """Return rows with only these columns, without unmeasured values."""
    return tuple({name: row[name] for name in columns if row[name] is not None} for row in rows)


def curve_marks(across: Column, up: Column, colour: Spec) -> Spec:
    """Return lines with points over two columns; a click in the legend picks series."""
    number = len(colour["scale"]["domain"])
    return {
        "height": 240,
        "params": [{"name": "picked", "select": {"type": "point", "fields": [colour["field"]]}, "bind": "legend"}],
        "mark": {"type": "line", "point": {"size": 26}},
        "encoding": {
            "x": axis(across.name, head_words(across), across.unit),
            "y": axis(up.name, head_words(up), up.unit) | {"scale": {"zero": False}},
            "color": colour,
            "strokeDash": _told_apart(colour, [DASHES[i // COLOURS % len(DASHES)] for i in range(number)]),
            "shape": series_shapes(colour),
            "opacity": {"condition": {"param": "picked", "value": 1}, "value": 0.12},
        },
    }


def error_bar(place: Mapping[str, Spec], along: str, low: str, high: str) -> Spec:
    """Return a line between two columns, parallel to the axis `along` (`x` or `y`), where a row has both."""
    ends = {along: place[along] | {"field": low}, f"{along}2": {"field": high}}
    return {
        "transform": [{"filter": f"isValid(datum.{low}) && isValid(datum.{high})"}],
        "mark": {"type": "rule", "aria": False, "color": "var(--muted)"},
        "encoding": {**place, **ends},
    }


def marks_of_doubt(rows: Sequence[Row], place: Mapping[str, Spec]) -> list[Spec]:
    """Return the layer with a mark beside each disturbed point; nothing if no row is disturbed."""
    if not any(row.is_disturbed for row in rows):
        return []
    return [
        {
            "transform": [{"filter": f"isValid(datum.{DISTURBED}) && datum.{DISTURBED} !== '{UNDISTURBED}'"}],
            "mark": {"type": "text", "text": DOUBT, "dx": 10, "dy": -6, "aria": False, "color": "var(--text)"},
            "encoding": dict(place),
        }
    ]


def with_marks_of_doubt(spec: Spec, rows: Sequence[Row], *chosen: Spec) -> Spec:
    """Return lines with points over two columns, with a mark beside each disturbed point that these transforms keep."""
    marks = marks_of_doubt(rows, {axis: spec["encoding"][axis] for axis in ("x", "y")})
    if not marks:
        return spec
    height = {"height": spec["height"]}
    lines = {name: part for name, part in spec.items() if name not in height}
    return {**height, "layer": [lines, *(mark | {"transform": [*mark["transform"], *chosen]} for mark in marks)]}


def bars(by: str, rows: Sequence[Row], length: Mapping[str, str], height: int = BAR_PIXELS) -> Spec:
    return {
        "height": height * len({row[by] for row in rows}),
        "mark": {"type": "bar"},
        "encoding": {
            "y": {"field": by, "type": "nominal", "title": None, "sort": None, "axis": names_within(220)},
            "x": axis(length["field"], length["title"], length["unit"]),
        },
    }


def names_within(pixels: int) -> Spec:
    """Return an axis of names that leaves nearly half of the plot's width to the data, however narrow it is."""
    return {"labelLimit": {"expr": f"min({pixels}, 0.55 * containerSize()[0])"}}


def axis(name: str, title: str, unit: str | None) -> Spec:
    if unit == "fraction":
        drawn: Spec = {"format": ".1~%"}
    else:
        drawn = {"labelExpr": _label(unit), "tickCount": 6}
    return {"field": name, "type": "quantitative", "title": title, "axis": drawn}


def log_axis(name: str, title: str, unit: str | None, **scale: Any) -> Spec:
    """Return a logarithmic axis with labels at 1, 2 and 5."""
    digit = "round(datum.value / pow(10, floor(log(datum.value) / LN10 + 1e-9)))"
    drawn = {"labelExpr": f"indexof([1, 2, 5], {digit}) < 0 ? '' : {_label(unit)}"}
    return axis(name, title, unit) | {"axis": drawn, "scale": {"type": "log", **scale}}


def _label(unit: str | None) -> str:
    """Return the expression that formats a tick as the page does: 0.5 and 20 k for pure numbers, 500 ms for seconds.

    Ticks are decimal, so bytes on an axis are decimal too, to avoid ticks such as 97.7 KiB.
    """
    return f"scaled(datum.value, '{'B' if unit == 'bytes' else unit or ''}')"


def series_colours(name: str, values: Iterable[str], *, title: str | None = "", labels: str | None = None) -> Spec:
    """Return a colour for each value, the same as in other charts of these values."""
    domain = list(dict.fromkeys(values))
    colour: Spec = {"field": name, "type": "nominal", "scale": {"domain": domain}}
    colour["scale"]["range"] = [f"var(--series-{index % COLOURS})" for index, _ in enumerate(domain)]
    colour |= {} if title == "" else {"title": title}
    return colour | ({"legend": {"labelExpr": labels}} if labels else {})


def series_shapes(colour: Spec) -> Spec:
    """Return a shape for each of the same series, in the same legend."""
    return _told_apart(colour, [SHAPES[i % len(SHAPES)] for i, _ in enumerate(colour["scale"]["domain"])])


def _told_apart(colour: Spec, by: Sequence[Any]) -> Spec:
    """Return an encoding of the same series by shapes or dashes, one per series, in the same legend."""
    shared: Spec = {key: colour[key] for key in ("title", "legend") if key in colour}
    scale = {"domain": colour["scale"]["domain"], "range": list(by)}
    return {"field": colour["field"], "type": "nominal", "scale": scale, **shared}


def tips(table: Table[Any], *names: str) -> list[Spec]:
    """Return a hover's lines: text as it is, numbers as in the tables, nothing for what is absent."""
    columns = {column.name: column for column in table.columns}
    return [_tip(columns[name]) for name in names]


def _tip(column: Column) -> Spec:
    tip: Spec = {"field": column.name, "title": head_words(column)}
    if column.unit is None:
        return tip | {"type": "nominal"}
    return tip | {"type": "quantitative", "formatType": "told", "format": column.read_as}
