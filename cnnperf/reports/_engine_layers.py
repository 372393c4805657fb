"""One engine's layers for reading, beside torch's if it ran: a row per group, a total, and the share of layers."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from cnnperf.machine.disturbance import is_disturbing
from cnnperf.tables.engine_layers import Join, LayerGroup
from cnnperf.tables.table import DOUBT
from cnnperf.units import MISSING, scaled


def write(join: Join, console: Console) -> None:
    """Print a join."""
    cell, is_beside_torch = join.record.task.cell, join.total("torch_s") is not None
    engines = f"torch beside {join.engine}" if is_beside_torch else join.engine
    title = (str(cell.model), str(cell.dataset), f"batches of {join.batch_size}", engines)
    console.print(Text(" · ".join(title), style="bold"))
    console.print(_grid(join, is_beside_torch=is_beside_torch))
    if is_disturbing(join.disturbed):
        console.print(Text(f"{DOUBT} disturbed: {join.disturbed}."))
    if not is_beside_torch and not cell.model.is_onnx:
        words = f"torch's layers were not timed at batches of {join.batch_size}, so no row has a speed-up."
        console.print(Text(words))
    total, reorders = join.total("engine_s"), join.total("reorder_s")
    share = join.layers_share
    if total and share is not None:
        words = f"{scaled(share, 'fraction')} of kernel time belongs to a layer; "
        console.print(
            Text(f"{words}layout reorders take {scaled((reorders or 0) / total, 'fraction')} of kernel time.")
        )
        if share < 1:
            in_torch = "is in torch's (unattributed) and has no speed-up" if is_beside_torch else "belongs to no layer"
            console.print(
                Text(
                    "The rest is in rows of no layer: a module's own work, such as a sum in a block's forward, "
                    f"{in_torch}."
                )
            )


def _grid(join: Join, *, is_beside_torch: bool) -> RichTable:
    torch_s, engine_s = join.total("torch_s"), join.total("engine_s")
    totals = ("total", "", _scaled(torch_s), _scaled(engine_s), _ratio(torch_s, engine_s), "")
    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, show_footer=True)
    mark = f" {DOUBT}" if is_disturbing(join.disturbed) else ""
    heads = ("layers", "kernels", "torch", f"{join.engine}{mark}", f"speed-up{mark}", "share")
    shown = [index for index, head in enumerate(heads) if is_beside_torch or head not in ("torch", f"speed-up{mark}")]
    for index in shown:
        grid.add_column(heads[index], footer=totals[index], justify="left" if index < 2 else "right", overflow="fold")
    for group in join.groups:
        cells = _cells(group, engine_s)
        grid.add_row(*(Text(cells[index]) for index in shown))
    return grid


def _cells(group: LayerGroup, total: float | None) -> tuple[str, ...]:
    share = group.engine_s / total if group.engine_s is not None and total else None
    return (
        group.name,
        ", ".join(group.operators) or MISSING,
        _scaled(group.torch_s),
        _scaled(group.engine_s),
        _ratio(group.torch_s, group.engine_s),
        MISSING if share is None else scaled(share, "fraction"),
    )


def _scaled(seconds: float | None) -> str:
    return MISSING if seconds is None else scaled(seconds, "s")


def _ratio(one: float | None, other: float | None) -> str:
    return f"{one / other:.2f}" if one is not None and other else MISSING
