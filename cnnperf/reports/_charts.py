"""Plots that compare networks, drawn only from rows of the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from cnnperf.reports._readable import head_words, read_as, signed
from cnnperf.reports._vega import (
    BAR_PIXELS,
    Chart,
    Spec,
    axis,
    curve_marks,
    error_bar,
    log_axis,
    marks_of_doubt,
    names_within,
    picked,
    series_colours,
    series_shapes,
    tips,
    with_marks_of_doubt,
)
from cnnperf.tables.curves import POINTS, CurveRow
from cnnperf.tables.engine_row import EngineRow
from cnnperf.tables.table import Column, Table, grouped
from cnnperf.tables.verdicts import VerdictRow
from cnnperf.units import scaled

OUTCOMES = {
    "worse": ("var(--worse)", "triangle-down"),
    **dict.fromkeys(("missing", "error"), ("var(--worse)", "cross")),
    "inconclusive": ("var(--unsure)", "diamond"),
    "better": ("var(--better)", "triangle-up"),
    "indicative": ("var(--muted)", "circle"),
}
"""The colour and the shape of each verdict that is drawn."""
ENDS = {"low": "lower bound", "high": "upper bound"}
"""Words for the ends of a change's interval."""
TRAINING = ("run", "repeat", "task")
"""Columns that distinguish the trainings of one network: a run may hold several with other settings."""


def curve_charts(name: str, title: str, table: Table[Any], rows: Sequence[CurveRow]) -> Iterator[Chart]:
    """Draw every curve against seconds and against samples, one line per training."""
    measured = [c for c in table.columns if c.better and any(row[c.name] is not None for row in rows)]
    kept = picked(
        rows, "model", *TRAINING, "step", "samples", "seconds", "epoch", "disturbed", *(c.name for c in measured)
    )
    seen = {row.model: row.samples for row in rows}.values()
    uneven = max(seen) > 10 * min(seen)  # A small network may see a hundred times as many.
    smoothing = dict.fromkeys(row.model for row in rows if row.label_smoothing)
    smoothed = f" (with label smoothing: {', '.join(smoothing)})" if smoothing else ""
    for column in measured:
        for against in ("seconds", "samples"):
            across = next(c for c in table.columns if c.name == against)
            caption = (
                f"{head_words(column)} against {head_words(across)}{smoothed if column.name == 'train_loss' else ''}"
            )
            spec = curve_marks(across, column, series_colours("model", [row.model for row in rows]))
            if against == "samples" and uneven:
                spec["encoding"]["x"] = log_axis(against, against, across.unit, nice=False)
            is_drawn = {"filter": f"isValid(datum.{column.name})"}
            spec["transform"] = [is_drawn]
            spec["encoding"]["detail"] = _apart(*TRAINING)
            spec["encoding"]["tooltip"] = tips(table, "model", *_told(rows), "epoch", against, column.name, "disturbed")
            if against == "seconds":  # A disturbance changes no accuracy after a number of samples.
                spec = with_marks_of_doubt(spec, rows, is_drawn, *_last_of_each("model", *TRAINING))
            yield Chart(
                f"{name}-{column.name}-{against}",
                caption,
                f"{title}: {caption}, one line per training.",
                name,
                table.name,
                kept,
                spec,
                reading=f"Each line is one training; a {column.better} value is better. Points are measurements, and "
                "lines only connect them. A click on a name in the legend picks its lines.",
            )


def _last_of_each(*names: str) -> tuple[Spec, Spec]:
    """Return the transforms that keep the last point of each line."""
    last = {"joinaggregate": [{"op": "max", "field": "step", "as": "last"}], "groupby": list(names)}
    return last, {"filter": "datum.step === datum.last"}


def accuracy_charts(name: str, title: str, table: Table[Any], rows: Sequence[CurveRow]) -> Iterator[Chart]:
    """Draw the different accuracies of one training, if there are more than two."""
    epoch = next(c for c in table.columns if c.name == "epoch")
    for i, model in enumerate(dict.fromkeys(row.model for row in rows)):
        of_model = [row for row in rows if row.model == model]
        read = [c for c in table.columns if c.name in POINTS and any(row[c.name] is not None for row in of_model)]
        if len(read) < 3:
            continue
        names = [c.name for c in read]
        colour = series_colours("reading", names, title=None, labels="replace(datum.label, /_/g, ' ')")
        spec = curve_marks(epoch, Column("accuracy", unit="fraction"), colour)
        spec["transform"] = [{"fold": names, "as": ["reading", "accuracy"]}, {"filter": "isValid(datum.accuracy)"}]
        spec["encoding"]["detail"] = _apart(*TRAINING)
        spec["encoding"]["tooltip"] = tips(table, *_told(of_model), "epoch", *names)
        yield Chart(
            f"{name}-{i}",
            f"{model.partition('[')[0]}: accuracies read of the same training",
            f"{title}: every accuracy that was read of {model}, against the epoch, a line a reading.",
            f"{name}-{i}",
            table.name,
            picked(of_model, *TRAINING, "epoch", *names),
            spec,
            reading="All lines are of the same training, and each is one way to measure its accuracy. The distance "
            "between two lines is what the way of measuring changes.",
        )


def tradeoff(name: str, title: str, table: Table[Any], rows: Sequence[EngineRow]) -> Chart:
    """Draw test accuracy against latency, with memory as size; a line joins the engines on a network's Pareto front."""
    facts = (
        "model", "engine", "batch_size", "status", "parity", "latency_s", "images_per_s", "speedup", "speedup_flags",
        "test_accuracy", "accuracy_drop", "peak_bytes", "file_bytes", "pareto", "run", "disturbed",
    )  # fmt: skip
    place = {
        "x": log_axis("latency_s", "latency", "s"),
        "y": axis("test_accuracy", "test accuracy", "fraction") | {"scale": {"zero": False, "padding": 26}},
    }
    # A network's engines are on one front only if they read the same training under the same settings.
    on_front = grouped((row for row in rows if row.pareto == "yes"), lambda row: (row.model, row.evidence.rivals))
    fronts = {
        f"{name}-front-{i}": (table.name, picked(front, "latency_s", "test_accuracy"))
        for i, front in enumerate(on_front.values())
    }
    points = _engine_points(place, series_colours("engine", [row.engine for row in rows]))
    points["encoding"]["tooltip"] = tips(table, *facts)
    ends = {"x": ("latency_q25_s", "latency_q75_s"), "y": ("test_accuracy_low", "test_accuracy_high")}
    extents = [error_bar(place, along, low, high) for along, (low, high) in ends.items()]
    doubts = marks_of_doubt(rows, place)
    fronts_drawn = [_front_line(front, place) for front in fronts]
    return Chart(
        name,
        title,
        f"{title}: test accuracy against latency on a logarithmic axis, one point per engine and model, its size "
        "the peak memory; a line joins the engines on one network's front, pale points lack parity, names are at the "
        "fastest point of each network.",
        name,
        table.name,
        picked(rows, *facts, *chain(*ends.values())),
        {"height": 340, "layer": [*fronts_drawn, *extents, points, *doubts, _fastest_names(place)]},
        fronts,
        reading="Higher is more accurate, further left is faster, smaller needs less memory. Bars are the 95 % "
        "interval of the accuracy and the quartiles of the latency. A line joins a network's engines of which none is "
        "proved worse than another; pale engines lack parity.",
    )


def _front_line(front: str, place: Spec) -> Spec:
    order = {"field": "latency_s", "type": "quantitative"}
    return {
        "data": {"name": front},
        "mark": {"type": "line", "color": "var(--muted)"},
        "encoding": {**place, "order": order},
    }


def _engine_points(place: Spec, engine: Spec) -> Spec:
    """Return a point for each engine of each network; its size is the memory, and it is pale without parity."""
    return {
        "mark": {"type": "point", "filled": True, "opacity": 0.85, "stroke": "var(--page)", "strokeWidth": 1},
        "encoding": {
            **place,
            "color": engine,
            "shape": series_shapes(engine),
            "size": {
                "field": "peak_bytes",
                "type": "quantitative",
                "title": "peak memory",
                "legend": {"labelExpr": "scaled(datum.value, 'B')", "tickCount": 3, "symbolFillColor": "var(--muted)"},
                "scale": {"range": [60, 500], "zero": False},
            },
            "opacity": {"condition": {"test": "datum.parity === 'ok'", "value": 0.9}, "value": 0.3},
        },
    }


def _fastest_names(place: Spec) -> Spec:
    """Return the name of each network at its fastest engine."""
    return {
        "transform": [
            {"window": [{"op": "rank", "as": "place"}], "sort": [{"field": "latency_s"}], "groupby": ["model"]},
            {"filter": "datum.place === 1"},
        ],
        "mark": {"type": "text", "color": "var(--text)", "limit": 160},
        "encoding": {**place, "text": {"field": "model", "type": "nominal"}},
    }


def throughput(name: str, title: str, table: Table[Any], rows: Sequence[EngineRow]) -> Chart:
    """Draw images per second against the batch size, one line per engine."""
    across, up = Column("batch_size", "batch size", unit="count"), Column("images_per_s", "images/s", unit="images/s")
    spec = curve_marks(across, up, series_colours("engine", [row.engine for row in rows]))
    spec["encoding"]["x"]["scale"] = {"type": "log", "base": 2}
    spec["encoding"]["y"] = log_axis(up.name, "images/s", up.unit)
    told = ("engine", "batch_size", "images_per_s", "latency_s", "speedup", "parity", "disturbed")
    spec["encoding"]["tooltip"] = tips(table, *told)
    return Chart(
        name,
        title,
        f"{title}, a line an engine.",
        name,
        table.name,
        picked(rows, *told),
        with_marks_of_doubt(spec, rows),
        reading="Higher is faster. Where a line is flat, a larger batch only takes longer.",
    )


def changes(name: str, table: Table[Any], rows: Sequence[VerdictRow], unit: str, *, of: int) -> Chart:
    """Draw changes with their intervals; colour and shape show the verdict. of: the number of all changes."""
    outcomes = [outcome for outcome in OUTCOMES if outcome in {row.outcome for row in rows}]
    subject = {"calculate": "datum.cell + '  ' + datum.metric", "as": "subject"}
    y = {"field": "subject", "type": "nominal", "title": None, "sort": None, "axis": names_within(420)}
    suffix = "" if unit == "points" else " + ' %'"
    label = {"labelExpr": f"format(100 * datum.value, '+.3~r'){suffix}"}
    x = {"field": "change", "type": "quantitative", "title": f"change ({unit})", "axis": label}
    # Values and bounds have the unit of their row, which no format of a plot's column knows: they come as words.
    worded = ("baseline", "candidate", "change", "low", "high")
    texts = {"values": [{"subject": _subject(row), **_in_words(row, worded)} for row in rows]}
    words_of = {
        "lookup": "subject",
        "from": {"data": texts, "key": "subject", "fields": [f"{each} in words" for each in worded]},
    }
    points = {
        "mark": {"type": "point", "filled": True, "size": 70},
        "encoding": {
            "x": x,
            "y": y,
            "color": _by_outcome(outcomes, [OUTCOMES[outcome][0] for outcome in outcomes]),
            "shape": _by_outcome(outcomes, [OUTCOMES[outcome][1] for outcome in outcomes]),
            "tooltip": [
                *tips(table, "cell", "metric", "outcome"),
                *({"field": f"{each} in words", "type": "nominal", "title": ENDS.get(each, each)} for each in worded),
                *tips(table, "p_holm", "n", "remark"),
            ],
        },
    }
    whisker = {
        "mark": {"type": "rule", "aria": False, "color": "var(--text)"},
        "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
    }
    whisker["encoding"] = {"x": x | {"field": "low"}, "x2": {"field": "high"}, "y": y}
    zero = {"mark": {"type": "rule", "aria": False, "color": "var(--muted)"}, "encoding": {"x": {"datum": 0}}}
    kept = picked(
        rows, "cell", "metric", "outcome", "baseline", "candidate", "change", "low", "high", "p_holm", "n", "remark"
    )
    spec = {"height": BAR_PIXELS * len(rows), "transform": [subject, words_of], "layer": [zero, whisker, points]}
    drawn = f"the first {len(rows)} of {of}, verdicts first, then the largest, " if len(rows) < of else ""
    caption = f"Change of each metric that is not the same, {drawn}{unit}, with its interval where one was tested."
    return Chart(
        name,
        f"Change, {unit}",
        caption,
        name,
        table.name,
        kept,
        spec,
        reading="The further from the line at 0, the larger the change; a bar is its interval. Colour and shape are "
        "the verdict; an indicative change was not tested.",
    )


def _by_outcome(outcomes: Sequence[str], marks: Sequence[str]) -> Spec:
    """Return the encoding of a row's verdict by colours or by shapes, one for each outcome."""
    return {
        "field": "outcome",
        "type": "nominal",
        "title": "verdict",
        "scale": {"domain": outcomes, "range": marks},
    }


def _subject(row: VerdictRow) -> str:
    return f"{row.cell}  {row.metric}"


def _in_words(row: VerdictRow, names: Sequence[str]) -> dict[str, str]:
    """Return the values, the change and its bounds as the table of verdicts has them; nothing for what is absent."""
    found = {name: row[name] for name in names if row[name] is not None}
    return {
        f"{name} in words": scaled(value, read_as(row)) if name in ("baseline", "candidate") else signed(value, row)
        for name, value in found.items()
    }


def _apart(*names: str) -> list[Spec]:
    """Return the columns in which the points of one line are equal, besides those of its colour."""
    return [{"field": name, "type": "nominal"} for name in names]


def _told(rows: Sequence[CurveRow]) -> list[str]:
    """Return the columns by which a hover tells trainings apart: the run and the task only where the others do not."""
    runs = {row.run for row in rows}
    several = len({(row.run, row.task) for row in rows}) > len({(row.run, row.model, row.repeat) for row in rows})
    return [*(["run"] if len(runs) > 1 else []), "repeat", *(["task"] if several else [])]
