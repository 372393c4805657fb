"""One profile for reading: a table with bars, subtotals per block, a total, and three sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from cnnperf.machine.disturbance import is_disturbing
from cnnperf.reports._fit import fit, left_out, widen
from cnnperf.reports._readable import generated
from cnnperf.roofline import EXCESS, is_above
from cnnperf.tables.layer_row import BYTES, DIRECTIONS, LayerRow
from cnnperf.tables.layers import UNITS, LayerProfile, steps_of, summed
from cnnperf.tables.table import DOUBT, Column
from cnnperf.units import MISSING, amount_of, scaled

BAR = 6
"""Width in cells of a full bar, the column's largest value."""
EIGHTHS = " ▏▎▍▌▋▊▉█"
SUMMED = (
    *("forward_s", "backward_s", "seconds", "calls"),
    *(f"{d}_{quantity}" for d in DIRECTIONS for quantity in ("macs", "flops", "moved_bytes")),
    *(f"{kind}_bytes" for kind in BYTES),
)
"""Columns whose sum over a block is meaningful."""
BARRED = ("forward_s", "backward_s", "saved_bytes")
OF_TRAINING = ("backward_s", "saved_bytes")
GIGA = ("FLOP/s", "bytes/s")
"""Units that are printed in thousands of millions."""
TIMED = ("s", *GIGA)
"""Units of columns that a disturbance falsifies."""


def _column(name: str, title: str, shown: int) -> Column:
    return replace(next(c for c in LayerRow.columns() if c.name == name), title=title, shown=shown)


COLUMNS = (
    _column("layer", "layer", 0),
    _column("type", "type", 5),
    _column("outputs", "output", 6),
    _column("seconds", "all", 1),
    _column("forward_s", "forward", 1),
    _column("backward_s", "backward", 1),
    _column("forward_macs", "forward\nMACs", 4),
    _column("forward_flops_per_s", "forward\nGFLOP/s", 7),
    _column("forward_bytes_per_s", "forward\nGB/s", 7),
    _column("forward_share", "forward\nof peak", 3),
    _column("forward_bound", "forward is", 6),
    _column("parameter_bytes", "parameters", 5),
    _column("saved_bytes", "saved", 2),
)
"""Columns shown, and the order in which they are hidden."""
NEGLIGIBLE = 0.01
"""Minimum share of the time for a layer to be named as furthest from the roofline."""


def write(profile: LayerProfile, out: TextIO, *, by: str | None = None, depth: int | None = None) -> None:
    """Print a profile, sorted by a column of layers.csv if one is named, the blocks at `depth` with their subtotals.

    Columns are hidden only to fit a terminal.
    """
    console = Console(file=out, highlight=False)
    grid = partial(_grid, profile, _sorted(profile.rows if depth is None else list(folded(profile.rows, depth)), by))
    columns = [c for c in COLUMNS if profile.total("backward_s") is not None or c.name not in OF_TRAINING]
    widen(console, [grid(columns)])
    columns, dropped = fit(console, columns, grid)
    console.print(Text(_title(profile), style="bold"))
    console.print(grid(columns))
    for sentence in (*profile_remarks(profile), *sentences(profile)):
        console.print(Text(sentence))
    if dropped:
        console.print(left_out(dropped, "layers.csv"))


def sentences(profile: LayerProfile) -> Iterator[str]:
    """Yield sentences on the layers with half of the time, the memory peak and the distance from the roofline."""
    total = profile.total("seconds")
    chosen, spent = [], 0.0
    for row in sorted(profile.rows, key=lambda row: -(row.seconds or 0)):
        if spent >= total / 2:
            break
        chosen.append(row.layer)
        spent += row.seconds or 0
    names = ", ".join(chosen[:5]) + (f" and {len(chosen) - 5} more" if len(chosen) > 5 else "")
    yield f"Half of the time goes to {names}: {scaled(spent / total, 'fraction')} of {scaled(total, 's')}."
    peak, at = profile.one("peak_above_start_bytes"), profile.remark("peak_above_start_bytes", "at")
    if peak is not None:
        yield f"The memory peak, {scaled(peak, 'bytes')} above the step's start, is in {at}."
    far = [
        (row[f"{d}_share"], f"{row['layer']} {d}", row[f"{d}_bound"])
        for row in profile.rows
        for d in DIRECTIONS
        if row[f"{d}_share"] is not None and row[f"{d}_s"] >= NEGLIGIBLE * total and row.order is not None
    ]
    if far:
        share, name, bound = min(far)
        yield (
            f"Furthest from the roofline, among layers with at least 1 % of the time: {name}, at "
            f"{scaled(share, 'fraction')} of the attainable rate ({bound})."
        )


def profile_remarks(profile: LayerProfile) -> Iterator[str]:
    """Yield notes on the method and limits of the numbers."""
    if is_disturbing(profile.disturbed):
        yield f"{DOUBT} disturbed: {profile.disturbed}."
    step_s, overhead, mfu = profile.one("step_seconds"), profile.overhead, profile.mfu
    if step_s is not None and overhead is not None:
        more = scaled(overhead, "fraction")
        longer = f"{more} longer" if overhead > 0 else "no longer, within the noise"
        yield f"A step without hooks takes {scaled(step_s, 's')} (median); hooks make it {longer}."
    roofline = profile.roofline
    if mfu is not None and roofline.flops_per_s and roofline.bytes_per_s:
        yield (
            f"MFU {scaled(mfu, 'fraction')}: measured peak {roofline.flops_per_s / 1e9:.0f} GFLOP/s "
            f"({roofline.probe}), memory {roofline.bytes_per_s / 1e9:.1f} GB/s."
        )
    uncounted = [row[f"{d}_uncounted"] for row in profile.rows for d in DIRECTIONS if row[f"{d}_uncounted"]]
    names = sorted({name for names in uncounted for name in names.split(", ")})
    if names:
        yield f"Operators without a FLOP formula, counted by bytes moved only: {', '.join(names)}."
    for reason, names in _above(profile).items():
        yield f"Above the measured peak: {', '.join(names)}; {reason}."
    idle = [row.layer for row in profile.rows if row.calls == 0]
    if idle:
        yield f"Never called: {', '.join(idle)}."


def folded(rows: Sequence[LayerRow], depth: int) -> Iterator[LayerRow]:
    """Yield rows with a subtotal per block at `depth`; rows above that depth and non-layers stay unchanged."""
    blocks: dict[str, list[LayerRow]] = {}
    for row in rows:
        parts = row.layer.split(".") if row.order is not None else [row.layer]
        blocks.setdefault(".".join(parts[:depth]), []).append(row)
    for name, members in blocks.items():
        if len(members) == 1 and members[0].layer == name:
            yield members[0]
            continue
        sums = {column: summed(members, column) for column in SUMMED}
        yield members[0].without_figures(**sums, layer=name, type=f"{len(members)} layers")


def _above(profile: LayerProfile) -> dict[str, list[str]]:
    """Return the layers whose shares are above the measured peak, by their explanation."""
    found: dict[str, list[str]] = {}
    for row in profile.rows:
        for direction in DIRECTIONS:
            if is_above(row[f"{direction}_share"]):
                reason = _reason(row[f"{direction}_missing_probe"])
                found.setdefault(reason, []).append(f"{row['layer']} {direction}")
    return found


def _reason(missing_probe: str | None) -> str:
    """Name the probe that would explain a share above the peak."""
    if missing_probe is None:
        return f"the excess is at most {scaled(EXCESS - 1, 'fraction')}, too small to assume a missing probe"
    if missing_probe.startswith("copy"):
        return "faster than measured memory; its data stays in cache"
    return f"the missing probe is a {missing_probe}"


def _title(profile: LayerProfile) -> str:
    row, record = profile.rows[0], profile.record
    label = record.machine.label(record.task.cell.device.name)
    threads = record.machine.threads or record.task.threads
    parts = (
        row.model,
        row.dataset,
        generated(row),
        steps_of(row.mode, row.batch_size),
        f"{row['device']} ({label})",
        amount_of(threads, "thread") if threads else None,
        f"{row['weights']} weights",
    )
    return " · ".join(filter(None, parts))


def _sorted(rows: Sequence[LayerRow], by: str | None) -> Sequence[LayerRow]:
    if by is None:
        return rows
    present = [row for row in rows if row[by] is not None]
    present.sort(key=lambda row: row[by], reverse=UNITS[by] is not None)
    return [*present, *(row for row in rows if row[by] is None)]


def _grid(profile: LayerProfile, rows: Sequence[LayerRow], columns: Sequence[Column]) -> RichTable:
    largest = {name: max((row[name] or 0 for row in rows), default=0) for name in BARRED}
    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, show_footer=True)
    for column in columns:
        left = column.unit is None or column.name in BARRED
        footer = _total(profile, column)
        is_doubtful = is_disturbing(profile.disturbed) and column.unit in TIMED
        words = f"{column.title} {DOUBT}" if is_doubtful else column.title
        grid.add_column(words, footer=footer, justify="left" if left else "right", overflow="fold")
    for row in rows:
        grid.add_row(*(_cell(column, row, largest) for column in columns))
    return grid


def _total(profile: LayerProfile, column: Column) -> str:
    if column.name == "layer":
        return "total"
    total = profile.total(column.name) if column.name in SUMMED else None
    if total is None:
        return ""
    words = scaled(total, column.read_as)
    return f"{words:>9}" if column.name in BARRED else words


def _cell(column: Column, row: LayerRow, largest: Mapping[str, float]) -> Text:
    name, value = column.name, row[column.name]
    if value is None:
        return Text(MISSING, style="dim")
    if column.unit in GIGA:
        return Text(f"{value / 1e9:.3g}")
    words = scaled(value, column.read_as)
    if column.read_as == "fraction":
        return Text(f"{words}{' > measured peak' if is_above(value) else ''}")
    return Text(f"{words:>9} {bar(value, largest[name])}" if name in BARRED else words)


def bar(value: float, largest: float) -> str:
    """Draw a bar of eighths."""
    eighths = round(8 * BAR * value / largest) if largest else 0
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()).ljust(BAR)
