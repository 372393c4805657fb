"""Plots of one network by layer, drawn only from rows of the tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from cnnperf.reports._vega import (
    BAR_PIXELS,
    Chart,
    Drawn,
    Spec,
    bars,
    error_bar,
    log_axis,
    picked,
    series_colours,
    series_shapes,
    tips,
)
from cnnperf.tables.layer_row import DIRECTIONS, LayerRow
from cnnperf.tables.profiles import ProfileRow
from cnnperf.tables.table import Table

NAMED_LAYERS = 5
"""Layers of a roofline that have their names, so that names do not cover each other."""


def layer_time_chart(name: str, title: str, table: Table[Any], rows: Sequence[LayerRow]) -> Chart:
    """Draw the time of each layer, forward and backward stacked, in execution order."""
    parts = ["forward_s", "backward_s", "elsewhere"]
    spec = bars("layer", rows, {"field": "value", "title": "time", "unit": "s"})
    spec["transform"] = [
        {"calculate": "datum.forward_s == null && datum.backward_s == null ? datum.seconds : null", "as": "elsewhere"},
        {"fold": parts, "as": ["part", "value"]},
        {"filter": "datum.value != null"},
    ]
    spec["encoding"]["color"] = series_colours("part", parts, title=None, labels="replace(datum.label, '_s', '')")
    is_undivided = any(row.forward_s is None and row.backward_s is None for row in rows)
    drawn = [part for part in parts if (is_undivided if part == "elsewhere" else any(row[part] for row in rows))]
    spec["encoding"]["color"]["legend"]["values"] = drawn
    spec["encoding"]["tooltip"] = tips(
        table, "layer", "type", "outputs", "forward_s", "backward_s", "seconds", "saved_bytes"
    )
    caption = f"{title}: time of each layer in execution order, forward and backward stacked."
    return Chart(
        f"{name}-time",
        f"{title}: time by layer",
        caption,
        name,
        table.name,
        _layer_rows(rows),
        spec,
        reading="A long bar is where the time goes. Rows in parentheses are no layers: data, loss, optimizer, and work "
        "outside of all layers.",
    )


def layer_memory(name: str, title: str, table: Table[Any], rows: Sequence[LayerRow]) -> Chart:
    """Draw the memory that autograd saves for backward in each layer."""
    rows = [row for row in rows if row.saved_bytes]
    spec = bars("layer", rows, {"field": "saved_bytes", "title": "saved for backward", "unit": "bytes"})
    spec["encoding"]["color"] = {"value": "var(--series-2)"}
    spec["encoding"]["tooltip"] = tips(table, "layer", "type", "outputs", "saved_bytes")
    caption = f"{title}: memory that each layer keeps for backward, in execution order."
    return Chart(
        f"{name}-memory",
        f"{title}: memory saved",
        caption,
        f"{name}-saved",
        table.name,
        _layer_rows(rows),
        spec,
        reading="A long bar is a layer whose forward pass keeps much for its backward pass. All bars together grow "
        "with the batch size.",
    )


def roofline(
    name: str, title: str, table: Table[Any], rows: Sequence[LayerRow], machines: Table[Any], machine: ProfileRow
) -> Chart | None:
    """Draw the roofline: each layer below the machine's two measured ceilings; None if no layer was placed."""
    flops, moved = machine.peak_flops_per_s, machine.peak_bytes_per_s
    found = [row[f"{d}_flops_per_byte"] for row in rows for d in DIRECTIONS]
    intensities = [value for value in found if value]
    if not (intensities and flops and moved):
        return None
    ends = [*intensities, flops / moved]
    low, high = math.floor(math.log10(min(ends))), math.ceil(math.log10(max(ends)) + 0.2)
    ridge = "datum.peak_flops_per_s / datum.peak_bytes_per_s"
    x = log_axis("x", "FLOP per byte moved", "1", domain=[10.0**low, 10.0**high])
    y = log_axis("y", "FLOP/s", "FLOP/s")
    ceiling = {
        "data": {"name": f"{name}-machine"},
        "transform": [
            {"calculate": f"[pow(10, {low}), {ridge}, pow(10, {high})]", "as": "x"},
            {"flatten": ["x"]},
            {"calculate": "min(datum.peak_flops_per_s, datum.x * datum.peak_bytes_per_s)", "as": "y"},
        ],
        "mark": {"type": "line", "aria": False, "color": "var(--text)", "strokeWidth": 1.5},
        "encoding": {"x": x, "y": y, "tooltip": tips(machines, "peak_flops_per_s", "peak_probe", "peak_bytes_per_s")},
    }
    # A group of no points would be a picture without a name for screen readers.
    placed = [d for d in DIRECTIONS if any(row[f"{d}_flops_per_s"] is not None for row in rows)]
    layers = [part for direction in placed for part in (_extent(direction, x, y), _placed(table, direction, x, y))]
    names = [_names_of_longest(x, y)] if "forward" in placed else []
    peaks = picked([machine], "peak_flops_per_s", "peak_probe", "peak_bytes_per_s")
    caption = (
        f"{title}: FLOP/s of each layer against its FLOP per byte, below the measured ceilings of arithmetic and memory"
    )
    return Chart(
        f"{name}-roofline",
        f"{title}: roofline",
        f"{caption}, both axes logarithmic.",
        name,
        table.name,
        _layer_rows(rows),
        {"height": 300, "layer": [ceiling, *layers, *names]},
        {f"{name}-machine": ("profiles", peaks)},
        reading="A layer below the slanted line is limited by memory, below the flat line by arithmetic; the nearer to "
        f"the line, the less can be gained. Bars are quartiles over steps. The {NAMED_LAYERS} layers that take most "
        "time have their names where there is room.",
    )


def beside_torch(name: str, title: str, table: Table[Any], rows: Sequence[LayerRow]) -> Chart:
    """Draw the time of an engine's kernels beside torch's layers, if torch ran too."""
    is_beside_torch = any(row.forward_s is not None for row in rows)
    sides = ["forward_s", "engine_s"] if is_beside_torch else ["engine_s"]
    spec = bars("layer", rows, {"field": "value", "title": "time", "unit": "s"}, height=2 * BAR_PIXELS)
    spec["transform"] = [{"fold": sides, "as": ["by", "value"]}, {"filter": "datum.value != null"}]
    spec["encoding"]["yOffset"] = {"field": "by", "sort": sides}
    labels = "datum.label === 'engine_s' ? 'this engine' : 'torch'"
    spec["encoding"]["color"] = series_colours("by", sides, title=None, labels=labels)
    spec["encoding"]["tooltip"] = tips(table, "layer", "operators", *sides)
    kept = picked(rows, "layer", "operators", *sides)
    places = "the same layers in torch and in the engine" if is_beside_torch else "layers in the engine"
    caption = f"{title}: time of {places}, in execution order."
    return Chart(
        name,
        title,
        caption,
        name,
        table.name,
        kept,
        spec,
        reading="A shorter bar is faster. A kernel that does the work of several layers stands beside all of them.",
    )


def _extent(direction: str, x: Spec, y: Spec) -> Spec:
    """Return the speed of each layer in the faster and the slower quartile of its steps."""
    place = {"x": x | {"field": f"{direction}_flops_per_byte"}, "y": y}
    bar = error_bar(place, "y", "slow", "fast")
    speed = f"datum.{direction}_flops_per_s * datum.{direction}_s / datum.{direction}"
    ends = [{"calculate": f"{speed}_{q}_s", "as": name} for q, name in (("q75", "slow"), ("q25", "fast"))]
    return bar | {"transform": [*ends, *bar["transform"]]}


def _names_of_longest(x: Spec, y: Spec) -> Spec:
    """Return the names of the layers that take most time, at their points of the forward pass."""
    return {
        "transform": [
            {"filter": "isValid(datum.forward_flops_per_s)"},
            {
                "window": [{"op": "row_number", "as": "place"}],
                "sort": [{"field": "seconds", "order": "descending"}],
            },
            {"filter": f"datum.place <= {NAMED_LAYERS}"},
        ],
        "mark": {"type": "text", "fontSize": 10, "color": "var(--text)", "limit": 120},
        "encoding": {
            "x": x | {"field": "forward_flops_per_byte"},
            "y": y | {"field": "forward_flops_per_s"},
            "text": {"field": "layer", "type": "nominal"},
        },
    }


def _placed(table: Table[Any], direction: str, x: Spec, y: Spec) -> Spec:
    colour = series_colours("direction", DIRECTIONS, title=None)
    return {
        "transform": [{"calculate": f"'{direction}'", "as": "direction"}],
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 0.8},
        "encoding": {
            "x": x | {"field": f"{direction}_flops_per_byte"},
            "y": y | {"field": f"{direction}_flops_per_s"},
            "color": colour,
            "shape": series_shapes(colour),
            "tooltip": tips(
                table,
                "layer",
                "type",
                *(f"{direction}_{rest}" for rest in ("flops_per_byte", "flops_per_s", "share", "bound")),
            ),
        },
    }


def _layer_rows(rows: Iterable[LayerRow]) -> tuple[Drawn, ...]:
    placed = [f"{d}_{what}" for d in DIRECTIONS for what in ("flops_per_byte", "flops_per_s", "share", "bound")]
    quartiles = [f"{d}_{q}_s" for d in DIRECTIONS for q in ("q25", "q75")]
    times = ("seconds", "forward_s", "backward_s", *quartiles)
    return picked(rows, "layer", "type", "outputs", *times, "saved_bytes", *placed)
