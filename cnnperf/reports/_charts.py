"""The page's plots as Vega-Lite: what is drawn is rows of the tables, and nothing is computed that they do not hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnnperf.table import Column, Row, Table

Spec = dict[str, Any]

COLOURS = 8
"""Of the page's style, `--series-0` and up; further series get their dashes as well."""
DASHES = ([1, 0], [7, 3], [2, 2], [8, 2, 2, 2])
SI = {"s": "s", "bytes": "B", "FLOP/s": "FLOP/s"}
"""Units that take a prefix, and how they are written behind it."""
STEP = 16
"""Pixels of a bar."""
OUTCOMES = {
    **dict.fromkeys(("worse", "missing", "error"), "var(--worse)"),
    "inconclusive": "var(--unsure)",
    "better": "var(--better)",
    **dict.fromkeys(("same", "indicative"), "var(--muted)"),
}


@dataclass(frozen=True, slots=True)
class Chart:
    """One plot, and the rows of a table that it shows."""

    name: str
    title: str
    description: str
    """What is drawn, for those who do not see it."""
    data: str
    """Which rows; charts that show the same share them."""
    table: str
    rows: tuple[Row, ...]
    spec: Spec
    more: Mapping[str, tuple[str, tuple[Row, ...]]] = field(default_factory=dict)
    """Further rows that it is drawn from, with the name of their table."""


def cut(rows: Iterable[Row], *columns: str) -> tuple[Row, ...]:
    """Return rows with these columns alone, less what was not measured."""
    return tuple({name: row[name] for name in columns if row[name] is not None} for row in rows)


def curves(name: str, title: str, table: Table, rows: Sequence[Row]) -> Iterator[Chart]:
    """Draw every curve against seconds and against samples, a line a training."""
    measured = [c for c in table.columns if c.better and any(row[c.name] is not None for row in rows)]
    kept = cut(rows, "model", "run", "repeat", "step", "samples", "seconds", "epoch", *(c.name for c in measured))
    several = len({row["run"] for row in rows}) > 1
    for column in measured:
        for against in ("seconds", "samples"):
            across = next(c for c in table.columns if c.name == against)
            words = f"{_words(column)} against {_words(across)}"
            spec = _lines(across, column, _series("model", [row["model"] for row in rows]))
            if against == "samples":  # In the same time a small network sees a hundred times as many as a large one.
                spec["encoding"]["x"] = _log(against, against, across.unit)
            spec["transform"] = [{"filter": f"isValid(datum.{column.name})"}]
            spec["encoding"]["detail"] = [{"field": key, "type": "nominal"} for key in ("run", "repeat")]
            spec["encoding"]["tooltip"] = _tips(
                table, "model", *(["run"] if several else []), "repeat", "epoch", against, column.name
            )
            yield Chart(
                f"{name}-{column.name}-{against}",
                words,
                f"{title}: {words}, a line a training.",
                name,
                table.name,
                kept,
                spec,
            )


def tradeoff(name: str, title: str, table: Table, rows: Sequence[Row]) -> Chart:
    """Draw test accuracy against latency, memory as size, and the front that nothing beats in both."""
    facts = (
        "model", "engine", "batch_size", "status", "parity", "latency_s", "images_per_s", "speedup", "test_accuracy",
        "accuracy_drop", "peak_bytes", "file_bytes", "pareto", "run",
    )  # fmt: skip
    x = _log("latency_s", "latency", "s")
    y = _axis("test_accuracy", "test accuracy", "fraction") | {"scale": {"zero": False, "padding": 16}}
    engine = _series("engine", [row["engine"] for row in rows])
    front = {"transform": [{"filter": "datum.pareto === 'yes'"}], "mark": {"type": "line", "color": "var(--muted)"}}
    front |= {"encoding": {"x": x, "y": y, "order": {"field": "latency_s", "type": "quantitative"}}}
    points = {
        "mark": {"type": "point", "filled": True, "opacity": 0.85, "stroke": "var(--page)", "strokeWidth": 1},
        "encoding": {
            "x": x,
            "y": y,
            "color": engine,
            "shape": {"field": "engine", "type": "nominal"},
            "size": {
                "field": "peak_bytes",
                "type": "quantitative",
                "title": "peak memory",
                "legend": {"format": ".2~s", "tickCount": 3},
                "scale": {"range": [60, 500], "zero": False},
            },
            "opacity": {"condition": {"test": "datum.parity === 'ok'", "value": 0.9}, "value": 0.3},
            "tooltip": _tips(table, *facts),
        },
    }
    names = front | {"mark": {"type": "text", "dy": -14, "color": "var(--text)"}}
    names |= {"encoding": {"x": x, "y": y, "text": {"field": "model", "type": "nominal"}}}
    return Chart(
        name,
        title,
        f"{title}: test accuracy against latency on a logarithmic axis, a point an engine and model, its size the peak "
        "memory; the line joins the Pareto front, pale points failed parity.",
        name,
        table.name,
        cut(rows, *facts),
        {"height": 340, "layer": [front, points, names]},
    )


def throughput(name: str, title: str, table: Table, rows: Sequence[Row]) -> Chart:
    """Draw images a second against the batch size, a line an engine."""
    across, up = Column("batch_size", "batch size", unit="count"), Column("images_per_s", "images/s", unit="images/s")
    spec = _lines(across, up, _series("engine", [row["engine"] for row in rows]))
    spec["encoding"]["x"]["scale"] = {"type": "log", "base": 2}
    spec["encoding"]["y"] = _log(up.name, "images/s", up.unit)
    spec["encoding"]["tooltip"] = _tips(table, "engine", "batch_size", "images_per_s", "latency_s", "speedup", "parity")
    kept = cut(rows, "engine", "batch_size", "images_per_s", "latency_s", "speedup", "parity")
    return Chart(name, title, f"{title}, a line an engine.", name, table.name, kept, spec)


def layer_times(name: str, title: str, table: Table, rows: Sequence[Row]) -> Chart:
    """Draw what each layer takes, forward and backward stacked, in execution order."""
    parts = ["forward_s", "backward_s", "elsewhere"]
    spec = _bars("layer", rows, {"field": "value", "title": "time", "unit": "s"})
    spec["transform"] = [
        {"calculate": "datum.forward_s == null && datum.backward_s == null ? datum.seconds : null", "as": "elsewhere"},
        {"fold": parts, "as": ["part", "value"]},
        {"filter": "datum.value != null"},
    ]
    spec["encoding"]["color"] = _series("part", parts, title=None, labels="replace(datum.label, '_s', '')")
    spec["encoding"]["tooltip"] = _tips(
        table, "layer", "type", "outputs", "forward_s", "backward_s", "seconds", "saved_bytes"
    )
    words = f"{title}: time of each layer in execution order, forward and backward stacked."
    return Chart(f"{name}-time", "Time by layer", words, name, table.name, _layer_rows(rows), spec)


def layer_memory(name: str, title: str, table: Table, rows: Sequence[Row]) -> Chart:
    """Draw what autograd keeps of each layer for backward."""
    rows = [row for row in rows if row["saved_bytes"]]
    spec = _bars("layer", rows, {"field": "saved_bytes", "title": "saved for backward", "unit": "bytes"})
    spec["encoding"]["color"] = {"value": "var(--series-2)"}
    spec["encoding"]["tooltip"] = _tips(table, "layer", "type", "outputs", "saved_bytes")
    words = f"{title}: memory that each layer keeps for backward, in execution order."
    return Chart(f"{name}-memory", "Memory saved by layer", words, f"{name}-saved", table.name, _layer_rows(rows), spec)


def roofline(name: str, title: str, table: Table, rows: Sequence[Row], machines: Table, machine: Row) -> Chart | None:
    """Draw where each layer stands below the machine's two measured ceilings; None if it was not placed."""
    flops, moved = machine["peak_flops_per_s"], machine["peak_bytes_per_s"]
    found = [row[f"{d}_flops_per_byte"] for row in rows for d in ("forward", "backward")]
    intensities = [value for value in found if value]
    if not (intensities and flops and moved):
        return None
    ends = [*intensities, flops / moved]
    low, high = math.floor(math.log10(min(ends))), math.ceil(math.log10(max(ends)) + 0.2)
    ridge = "datum.peak_flops_per_s / datum.peak_bytes_per_s"
    x = _log("x", "FLOP per byte moved", "1", domain=[10.0**low, 10.0**high])
    y = _log("y", "FLOP/s", "FLOP/s")
    ceiling = {
        "data": {"name": f"{name}-machine"},
        "transform": [
            {"calculate": f"[pow(10, {low}), {ridge}, pow(10, {high})]", "as": "x"},
            {"flatten": ["x"]},
            {"calculate": "min(datum.peak_flops_per_s, datum.x * datum.peak_bytes_per_s)", "as": "y"},
        ],
        "mark": {"type": "line", "color": "var(--text)", "strokeWidth": 1.5},
        "encoding": {"x": x, "y": y, "tooltip": _tips(machines, "peak_flops_per_s", "peak_probe", "peak_bytes_per_s")},
    }
    layers = [_placed(table, direction, x, y) for direction in ("forward", "backward")]
    peaks = cut([machine], "peak_flops_per_s", "peak_probe", "peak_bytes_per_s")
    words = (
        f"{title}: FLOP/s of each layer against its FLOP per byte, below the measured ceilings of arithmetic and memory"
    )
    return Chart(
        f"{name}-roofline",
        "Roofline",
        f"{words}, both axes logarithmic.",
        name,
        table.name,
        _layer_rows(rows),
        {"height": 300, "layer": [ceiling, *layers]},
        {f"{name}-machine": ("profiles", peaks)},
    )


def nodes(name: str, title: str, table: Table, rows: Sequence[Row]) -> Chart:
    """Draw what an engine's kernels take beside torch's layers, where a forward profile timed these."""
    sides = ["torch_seconds", "seconds"]
    spec = _bars("layers", rows, {"field": "value", "title": "time", "unit": "s"}, height=2 * STEP)
    spec["transform"] = [{"fold": sides, "as": ["by", "value"]}, {"filter": "datum.value != null"}]
    spec["encoding"]["yOffset"] = {"field": "by", "sort": sides}
    labels = "datum.label === 'seconds' ? 'this engine' : 'torch'"
    spec["encoding"]["color"] = _series("by", sides, title=None, labels=labels)
    spec["encoding"]["tooltip"] = _tips(table, "layers", "operators", *sides)
    kept = cut(rows, "layers", "operators", *sides)
    words = f"{title}: time of the same layers in torch and in the engine, in execution order."
    return Chart(name, title, words, name, table.name, kept, spec)


def changes(name: str, table: Table, rows: Sequence[Row], unit: str) -> Chart:
    """Draw the change of each metric with its interval, coloured by verdict; the mark's shape says it too."""
    subject = {"calculate": "datum.cell + '  ' + datum.metric", "as": "subject"}
    y = {"field": "subject", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 420}}
    x = {"field": "change", "type": "quantitative", "title": f"change ({unit})", "axis": {"format": "+.1%"}}
    points = {
        "mark": {"type": "point", "filled": True, "size": 70},
        "encoding": {
            "x": x,
            "y": y,
            "color": {
                "field": "outcome",
                "type": "nominal",
                "title": "verdict",
                "scale": {"domain": list(OUTCOMES), "range": list(OUTCOMES.values())},
            },
            "shape": {
                "field": "outcome",
                "type": "nominal",
                "scale": {
                    "domain": list(OUTCOMES),
                    "range": ["triangle-down", "cross", "cross", "diamond", "triangle-up", "square", "circle"],
                },
            },
            "tooltip": [
                *_tips(table, "cell", "metric", "outcome", "baseline", "candidate"),
                {"field": "change", "format": "+.1%"},
                *({"field": end, "format": "+.1%", "title": f"{end} end"} for end in ("low", "high")),
                *_tips(table, "p_holm", "n", "remark"),
            ],
        },
    }
    whisker = {"mark": {"type": "rule", "color": "var(--text)"}, "transform": [{"filter": "isValid(datum.low)"}]}
    whisker["encoding"] = {"x": x | {"field": "low"}, "x2": {"field": "high"}, "y": y}
    zero = {"mark": {"type": "rule", "color": "var(--muted)"}, "encoding": {"x": {"datum": 0}}}
    kept = cut(
        rows, "cell", "metric", "outcome", "baseline", "candidate", "change", "low", "high", "p_holm", "n", "remark"
    )
    spec = {"height": STEP * len(rows), "transform": [subject], "layer": [zero, whisker, points]}
    words = f"Change of each metric that is not the same, {unit}, with its interval where one was tested."
    return Chart(name, f"Change, {unit}", words, name, table.name, kept, spec)


def _placed(table: Table, direction: str, x: Spec, y: Spec) -> Spec:
    colours = _series("direction", ("forward", "backward"))["scale"]
    return {
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 0.8},
        "encoding": {
            "x": x | {"field": f"{direction}_flops_per_byte"},
            "y": y | {"field": f"{direction}_flops_per_s"},
            "color": {"datum": direction, "title": None, "scale": colours},
            "shape": {"datum": direction, "legend": None},
            "tooltip": _tips(
                table,
                "layer",
                "type",
                *(f"{direction}_{rest}" for rest in ("flops_per_byte", "flops_per_s", "share", "bound")),
            ),
        },
    }


def _layer_rows(rows: Iterable[Row]) -> tuple[Row, ...]:
    placed = [
        f"{d}_{what}" for d in ("forward", "backward") for what in ("flops_per_byte", "flops_per_s", "share", "bound")
    ]
    return cut(rows, "layer", "type", "outputs", "seconds", "forward_s", "backward_s", "saved_bytes", *placed)


def _lines(across: Column, up: Column, colour: Spec) -> Spec:
    """Return lines with points over two columns; a click in the legend picks series."""
    return {
        "height": 240,
        "params": [{"name": "picked", "select": {"type": "point", "fields": [colour["field"]]}, "bind": "legend"}],
        "mark": {"type": "line", "point": {"size": 22}},
        "encoding": {
            "x": _axis(across.name, _words(across), across.unit),
            "y": _axis(up.name, _words(up), up.unit) | {"scale": {"zero": False}},
            "color": colour,
            "strokeDash": {"field": colour["field"], "type": "nominal", "scale": _dashes(colour["scale"]["domain"])},
            "opacity": {"condition": {"param": "picked", "value": 1}, "value": 0.12},
        },
    }


def _bars(by: str, rows: Sequence[Row], length: Mapping[str, str], height: int = STEP) -> Spec:
    return {
        "height": height * len({row[by] for row in rows}),
        "mark": {"type": "bar"},
        "encoding": {
            "y": {"field": by, "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 220}},
            "x": _axis(length["field"], length["title"], length["unit"]),
        },
    }


def _axis(name: str, title: str, unit: str | None) -> Spec:
    if unit == "fraction":
        axis: Spec = {"format": ".1~%"}
    else:
        axis = {"labelExpr": _label(unit), "tickCount": 6}
    return {"field": name, "type": "quantitative", "title": title, "axis": axis}


def _log(name: str, title: str, unit: str | None, **scale: Any) -> Spec:
    """Return a logarithmic axis with labels at 1, 2 and 5."""
    digit = "round(datum.value / pow(10, floor(log(datum.value) / LN10 + 1e-9)))"
    axis = {"labelExpr": f"indexof([1, 2, 5], {digit}) < 0 ? '' : {_label(unit)}"}
    return _axis(name, title, unit) | {"axis": axis, "scale": {"type": "log", **scale}}


def _label(unit: str | None) -> str:
    """Return the expression that words a tick: 0.5 and 20k of a pure number, 500ms of seconds."""
    if suffix := SI.get(unit or ""):
        return f"format(datum.value, '~s') + '{suffix}'"
    return "format(datum.value, datum.value < 1000 ? '~g' : '~s')"


def _series(name: str, values: Iterable[str], *, title: str | None = "", labels: str | None = None) -> Spec:
    """Return a colour for each value, the same as in other charts that know the same values."""
    domain = list(dict.fromkeys(values))
    colour: Spec = {"field": name, "type": "nominal", "scale": {"domain": domain}}
    colour["scale"]["range"] = [f"var(--series-{index % COLOURS})" for index, _ in enumerate(domain)]
    colour |= {} if title == "" else {"title": title}
    return colour | ({"legend": {"labelExpr": labels}} if labels else {})


def _dashes(domain: Sequence[str]) -> Spec:
    return {"domain": list(domain), "range": [DASHES[index // COLOURS % len(DASHES)] for index, _ in enumerate(domain)]}


def _tips(table: Table, *names: str) -> list[Spec]:
    """Return a hover's lines: text as it is, numbers scaled, with their unit beside the name."""
    columns = {column.name: column for column in table.columns}
    return [_tip(columns[name]) for name in names]


def _tip(column: Column) -> Spec:
    tip: Spec = {"field": column.name, "title": _words(column)}
    if column.unit == "fraction":
        return tip | {"type": "quantitative", "format": ".1%"}
    if column.unit in (None, "count"):
        return tip | {"type": "nominal"}
    unit = SI.get(column.unit, column.unit)
    return tip | {
        "type": "quantitative",
        "format": ".4~s",
        "title": f"{tip['title']} ({unit})" if unit else tip["title"],
    }


def _words(column: Column) -> str:
    return column.title or column.name.replace("_", " ")
