"""From records to the per-layer profile: one row per cell, batch size and layer, and how close each is to the peak."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from cnnperf.profiling.rows import UNATTRIBUTED
from cnnperf.record import Measurement, Record
from cnnperf.roofline import ARITHMETIC, Roofline
from cnnperf.stats import quartiles
from cnnperf.tables import engine_layers
from cnnperf.tables.facts import row_of
from cnnperf.tables.layer_row import DIRECTIONS, LayerRow
from cnnperf.tables.repeats import Repeats, disturbance, first_key, placed
from cnnperf.tables.table import Table, grouped

if TYPE_CHECKING:
    from pandas import DataFrame

PROFILE_METRICS = "profile"
"""First word of the metrics that are shown here."""
PROFILE_TAGS = ("batch_size", "mode")
"""Tags that distinguish the profiles of a record."""

TIMES = tuple(f"{direction}_s" for direction in DIRECTIONS)
"""Columns of a layer's times, which have quartiles."""
UNITS = {column.name: column.unit for column in LayerRow.columns()}
"""Unit of each column; None for text."""
DESCRIBED = (
    *PROFILE_TAGS,
    "order",
    "type",
    "inputs",
    "outputs",
    "dtype",
    *(f"{each}_uncounted" for each in DIRECTIONS),
)
"""Columns that are tags and remarks."""
FIGURES = tuple(name for name, unit in UNITS.items() if unit is not None and name not in DESCRIBED)
"""Columns that are measurements."""


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """The profile of one cell at one batch size in one repeat."""

    run: str
    record: Record
    tags: Mapping[str, Any]
    roofline: Roofline
    rows: tuple[LayerRow, ...]
    """Called layers in order, then modules that were never called, then rows of no layer."""
    disturbed: str | None
    """Disturbances of its steps, as `disturbance` has them."""

    def one(self, metric: str) -> float | None:
        """Return the median of a measurement of the whole step."""
        found = self.record.find(f"{PROFILE_METRICS}.{metric}", **self.tags)
        return median(found[0].values) if found else None

    def remark(self, metric: str, name: str) -> Any:
        """Return a remark about a measurement of the whole step."""
        return next((m.remarks.get(name) for m in self.record.find(f"{PROFILE_METRICS}.{metric}", **self.tags)), None)

    def total(self, column: str) -> Any:
        """Return the sum of a column; None if no row has a value."""
        return summed(self.rows, column)

    @property
    def overhead(self) -> float | None:
        """Return the time of a step with hooks over that without, less 1."""
        metrics = ("step_seconds", "instrumented_step_seconds")
        found = [
            m.values for metric in metrics for m in self.record.find(f"{PROFILE_METRICS}.{metric}", **self.tags)[:1]
        ]
        # Of neighbours, for a busy machine moves both alike.
        return median(hooked / plain for plain, hooked in zip(*found, strict=False)) - 1 if len(found) == 2 else None

    @property
    def mfu(self) -> float | None:
        """Return the network's counted FLOPs over the FLOPs at the machine's measured peak in a step without hooks."""
        flops = [self.total(f"{direction}_flops") for direction in DIRECTIONS]
        step_s, peak = self.one("step_seconds"), self.roofline.flops_per_s
        return sum(filter(None, flops)) / (step_s * peak) if any(flops) and step_s and peak else None


def summed(rows: Iterable[LayerRow], column: str) -> Any:
    """Return the sum of a column over rows; None if none of them has a value."""
    values = [row[column] for row in rows if row[column] is not None]
    return sum(values) if values else None


def steps_of(mode: str | None, batch_size: int | None) -> str:
    """Describe the profiled steps: `training steps of 32 images`."""
    what = "training steps" if mode == "train" else "forward passes"
    return f"{what} of {batch_size} images"


def layers(runs: str | Path | Iterable[str | Path]) -> DataFrame:
    """Return the per-layer profiles of run folders.

    One row per run, cell, batch size, layer and engine; values in SI units.
    Raises StoreError for a folder without records.
    """
    from cnnperf.record import read_runs

    return layer_table(read_runs(runs)).frame()


def layer_table(records: Mapping[str, Sequence[Record]]) -> Table[LayerRow]:
    """Return a row for each layer of each profile, then for each group of layers of each engine beside torch."""
    of_profiles = (row for profile in profiles(records) for row in profile.rows)
    return Table("layers", LayerRow.columns(), (*of_profiles, *engine_layers.rows(records)))


def profiles(records: Mapping[str, Sequence[Record]]) -> Iterator[LayerProfile]:
    """Yield the profiles, in the order of the records."""
    for run, of_run in records.items():
        rooflines = _rooflines(of_run)
        for record in of_run:
            for measured in record.find(f"{PROFILE_METRICS}.step_seconds"):
                tags = {name: measured.tags[name] for name in PROFILE_TAGS if name in measured.tags}
                yield _profile(run, record, tags, rooflines[record.key])


def _rooflines(records: Sequence[Record]) -> Mapping[str, Roofline]:
    """Return the roofline of each of a run's records by its key.

    Records of one machine, device, precision and thread settings share the best of their probes: probes of a busy
    moment are slow, and shares of unlike peaks could not be compared.
    """
    place_of = placed(records)

    def conditions(record: Record) -> tuple[Any, ...]:
        precision = next((m.remarks.get("precision") for m in record.find(ARITHMETIC)), None)
        task = record.task
        return place_of(record), str(task.cell.device), task.threads, task.waiting, task.allocator, precision

    groups = grouped(records, conditions).values()
    return {record.key: roofline for group in groups for roofline in [Roofline.of(group)] for record in group}


def _profile(run: str, record: Record, tags: Mapping[str, Any], roofline: Roofline) -> LayerProfile:
    of_layer: dict[str, list[Measurement]] = {}
    for m in record.measurements:
        if "layer" in m.tags and tags.items() <= m.tags.items():
            of_layer.setdefault(str(m.tags["layer"]), []).append(m)
    peaks = record.find(f"{PROFILE_METRICS}.peak_above_start_bytes", **tags)
    disturbed = disturbance((record,), **tags)
    repeat = Repeats(run, (record,))
    rows = [_row(repeat, layer, of, roofline, peaks, disturbed) for layer, of in of_layer.items()]
    rows.sort(key=lambda row: (row.order is None, row.order, row.layer.startswith(UNATTRIBUTED)))
    return LayerProfile(run, record, tags, roofline, tuple(rows), disturbed)


def _figures(name: str, m: Measurement) -> dict[str, float]:
    """Return the median of a measurement as the column `name`, of a time with its quartiles."""
    middle = median(m.values)
    if name not in TIMES:
        return {name: int(middle) if m.unit in ("count", "bytes") else middle}
    ends = quartiles(m.values)
    stem = name.removesuffix("_s")
    return {name: middle, f"{stem}_q25_s": ends.q25, f"{stem}_q75_s": ends.q75}


def _row(
    repeat: Repeats,
    layer: str,
    measured: Sequence[Measurement],
    roofline: Roofline,
    peaks: Sequence[Measurement],
    disturbed: str | None,
) -> LayerRow:
    (record,) = repeat.records
    found: dict[str, Any] = {"layer": layer}
    found["weights"] = next((m.remarks.get("weights") for m in record.find(f"{PROFILE_METRICS}.parameters")), None)
    for m in measured:
        name = m.metric.removeprefix(f"{PROFILE_METRICS}.").replace("_seconds", "_s")
        known = {**m.tags, **m.remarks}
        if "uncounted" in known:
            known[f"{name.split('_')[0]}_uncounted"] = known.pop("uncounted")
        found |= {key: value for key, value in known.items() if key in DESCRIBED and value != ""}
        if name in FIGURES:  # A metric of another version has no column, and is left out.
            found |= _figures(name, m)
        if m.unit == "s":
            found["samples"] = min(len(m.values), found.get("samples", len(m.values)))
    times = [found[f"{direction}_s"] for direction in DIRECTIONS if f"{direction}_s" in found]
    found |= {"seconds": sum(times)} if times else {}
    for direction in DIRECTIONS:
        if f"{direction}_macs" in found:
            found[f"{direction}_flops"] = 2 * found[f"{direction}_macs"]
        if "order" in found:  # Else it is no layer, and part of its work is elsewhere.
            work = (found.get(f"{direction}_{name}") for name in ("flops", "moved_bytes", "s"))
            found |= {f"{direction}_{name}": value for name, value in roofline.place(*work).items()}
    for peak in peaks:
        if peak.remarks["at"] in (layer, f"{layer} backward"):
            found |= {"peak_above_start_bytes": int(peak.values[0]), "peak_at": peak.remarks["at"]}
    found["disturbed"] = disturbed
    return row_of(LayerRow, repeat, **found, task=record.key, first_key=first_key(record.task))
