"""Sections of the page: the rows and plots of one run, dataset, model and device."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cnnperf.profiling.rows import trace_name
from cnnperf.regression.verdict import is_difference, is_of_fractions
from cnnperf.reports import _charts, _layer_charts
from cnnperf.reports._pictures import data_uris, pictured
from cnnperf.reports._readable import best, generated
from cnnperf.reports._readable import title as group_title
from cnnperf.reports._vega import Chart
from cnnperf.tables.engine_row import EngineRow
from cnnperf.tables.engines import ENGINE_GROUP
from cnnperf.tables.facts import GROUP
from cnnperf.tables.layers import steps_of
from cnnperf.tables.predictions import ConfusionRow, ExampleRow
from cnnperf.tables.profiles import ProfileRow
from cnnperf.tables.repeats import PLACE_FACTS, Rivals
from cnnperf.tables.table import DISTURBED, DOUBT, Column, R, Report, Row, Table, Value, grouped
from cnnperf.tables.verdicts import VerdictRow
from cnnperf.units import amount_of

CELL = ("run", "dataset", "data", "model", "device")
NAMED = ("host", "device_label", "threads", "waiting", "allocator")
"""Conditions of a training that a title may name; the others are too long for one."""
UNNAMED = ("cpu", "cpu_model", "instruction_sets")
"""Facts of a machine that are too long for a title."""
FREQUENT = 20
"""Number of confusions shown where there are too many classes for a matrix."""
CHANGES = 40
"""Maximum changes drawn of a comparison: verdicts first, then the largest."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One test image and its row."""

    row: ExampleRow
    source: str


@dataclass(frozen=True, slots=True)
class NetworkPredictions:
    """One trained network's predictions for the test images."""

    title: str
    names: tuple[str, ...]
    """Names of the classes, or their numbers if the run stored no names."""
    matrix: tuple[tuple[ConfusionRow, ...], ...]
    """Confusion matrix: one row per label, one column per prediction; empty if there are too many classes to draw."""
    frequent: tuple[ConfusionRow, ...]
    """The most frequent confusions in its place."""
    most: int
    """Largest count off the diagonal."""
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class ChartGroup:
    """Plots under one title, of one network or of compared networks."""

    title: str
    charts: tuple[Chart, ...]
    traces: tuple[str, ...] = ()
    """Trace files of the network's profiles, relative to the run folder."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The best row of a column, and those that are not told apart from it."""

    words: str
    column: Column
    rows: tuple[Row, ...]
    """The best row, then those whose interval overlaps its own; none if all were disturbed."""
    is_proved: bool
    """Whether the best row's interval is known and lies apart from that of another row."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The best rows of one group of compared rows."""

    title: str
    answers: tuple[Answer, ...]
    is_of_engines: bool = False


OF_TRAINING = {
    "test_accuracy": "highest test accuracy",
    "images_per_s": "fastest training",
    "peak_above_start_bytes": "least memory in training",
}
"""Columns of the leaderboard that have a best row, with the words for it."""
OF_STEPS = {"step_s": "fastest", "peak_above_start_bytes": "least memory"}
"""The same of profiles."""


def answers(report: Report) -> list[Answers]:
    """Return the best networks of each group of the leaderboard, else of profiles; then the best engines."""
    found = []
    board, profiles, engines = (report.table(name) for name in ("leaderboard", "profiles", "engines"))
    for group in board.groups() if board else ():
        columns = {column.name: column for column in group.columns}
        best_rows = (_answer(words, columns[name], columns[name], group.rows) for name, words in OF_TRAINING.items())
        found.append(Answers(group_title(group), tuple(filter(None, best_rows))))
    profiled = profiles.groups() if profiles and not board else ()
    found += [Answers(group_title(group), tuple(_of_profiles(group))) for group in profiled]
    for group in engines.groups() if engines else ():
        for of_run in _grouped((row for row in group.rows if row.batch_size), "run"):
            run = [f"run {of_run[0].run}"] if len(report.folders) > 1 else []
            found.append(Answers(" · ".join((group_title(group), *run)), tuple(_of_engines(group, of_run)), True))
    return [group for group in found if group.answers]


def _of_profiles(table: Table[ProfileRow]) -> Iterator[Answer]:
    """Yield the fastest steps and those of least memory, of each mode and batch size."""
    columns = {column.name: column for column in table.columns}
    kinds = _grouped((row for row in table.rows if row.batch_size), "mode", "batch_size")
    for rivals in kinds:
        steps = f", {steps_of(rivals[0].mode, rivals[0].batch_size)}" if len(kinds) > 1 else ""  # Else in the title.
        for name, words in OF_STEPS.items():
            if answer := _answer(f"{words}{steps}", columns[name], columns[name], rivals):
                yield answer


def _of_engines(table: Table[EngineRow], rows: Sequence[EngineRow]) -> Iterator[Answer]:
    """Yield the fastest engine at each batch size, and the engine of least memory."""
    columns = {column.name: column for column in table.columns}
    for rivals in sorted(_grouped(rows, "batch_size"), key=lambda rivals: rivals[0].batch_size or 0):
        of_size = f"fastest at {amount_of(rivals[0].batch_size or 0, 'image')} a call"
        if fastest := _answer(of_size, columns["latency_s"], columns["images_per_s"], rivals):
            yield fastest
    of_process = [rivals[0] for rivals in _grouped(rows, "model", "engine")]  # Every batch size has the same peak.
    if least := _answer("least memory", columns["peak_bytes"], columns["peak_bytes"], of_process):
        yield least


def _answer(words: str, shown: Column, judged: Column, rows: Sequence[Row]) -> Answer | None:
    """Return the best rows by a column; None if no row that may be the best has a value.

    shown: the column that readers see. It may have no direction of its own, as the latency of one batch size.
    """
    rivals = [row for row in rows if row.is_sound and row[judged.name] is not None]
    if not rivals:
        return None
    leaders = [row for row, is_marked in zip(rivals, best(judged, rivals), strict=True) if is_marked]
    choose = max if judged.better == "higher" else min
    calm = [row for row in rivals if not row.is_disturbed]
    if not calm:
        return Answer(words, shown, (), is_proved=False)
    first = choose(calm, key=lambda row: row[judged.name])
    others = (row for row in leaders if row is not first)
    return Answer(words, shown, (first, *others), is_proved=bool(leaders) or len(rivals) == 1)


def training(report: Report) -> list[ChartGroup]:
    """Return the curves of each group of the leaderboard; if titles would be equal, with the conditions that differ."""
    table = report.table("curves")
    if not table:
        return []
    found = list(grouped(table.rows, lambda row: row.conditions).values())
    titles = [_words(rows[0], "dataset", "data", "device", "budget") for rows in found]
    groups = []
    for i, (title, rows) in enumerate(zip(titles, found, strict=True)):
        alike = [of_group[0].conditions for other, of_group in zip(titles, found, strict=True) if other == title]
        heading = " · ".join((title, *_differing(rows[0].conditions, alike)))
        readings = _charts.accuracy_charts(f"readings-{i}", heading, table, rows)
        groups.append(ChartGroup(heading, (*_charts.curve_charts(f"curves-{i}", heading, table, rows), *readings)))
    return groups


def tradeoffs(report: Report) -> list[ChartGroup]:
    """Return accuracy against latency of all networks on the same images and machine, one plot per batch size."""
    table = report.table("engines")
    known = [row for row in (table.rows if table else ()) if row.latency_s and row.test_accuracy is not None]
    groups = []
    for i, rows in enumerate(_grouped(known, "run", *ENGINE_GROUP)):
        heading = _words(rows[0], "dataset", "data", "device", "host", *(["run"] if len(report.folders) > 1 else []))
        of_sizes = sorted(_grouped(rows, "batch_size"), key=lambda of_size: of_size[0].batch_size)
        charts = tuple(
            _charts.tradeoff(f"tradeoff-{i}-{j}", f"Batch of {of_size[0].batch_size}", table, of_size)
            for j, of_size in enumerate(of_sizes)
            if table
        )
        groups.append(ChartGroup(heading, charts))
    return groups


def networks(report: Report) -> list[ChartGroup]:
    """Return the layer and engine measurements of each network, in the order of the records."""
    names = ("layers", "engines")
    tables = [table for name in names if (table := report.table(name))]
    cells = {tuple(row[key] for key in CELL): row for table in tables for row in table.rows}
    found = []
    for i, (cell, row) in enumerate(cells.items()):
        charts = tuple(_of_network(report, f"network-{i}", cell))
        if charts:
            found.append(ChartGroup(_heading(row, report), charts, tuple(_traces(report, cell))))
    return found


def _traces(report: Report, cell: tuple[Any, ...]) -> Iterator[str]:
    for rows in _of_cell(report.table("profiles"), cell):
        for row in rows:
            path = f"artifacts/{row.task}/{trace_name(row.batch_size)}"
            if (report.folders[row.run] / path).is_file():
                yield path


def predictions(report: Report) -> list[NetworkPredictions]:
    """Return the confusion matrix and test images of each network's first training; of changed settings, of each."""
    table, examples = report.table("confusion"), report.table("examples")
    found = []
    for rows, settings in _first_repeats(_grouped(table.rows if table else (), *CELL)):
        of_run = (row for row in (examples.rows if examples else ()) if row.run == rows[0].run)
        of_task = [row for row in of_run if row.task == rows[0].task]
        heading = f"{_heading(rows[0], report)}{settings}"
        found.append(_predictions(heading, rows, of_task, report.folders[rows[0].run]))
    return found


def change_charts(report: Report) -> list[Chart]:
    """Return the changes between two runs, fractions separate from ratios.

    Unchanged metrics, and differences in other units, which have no common axis, are only in the table.
    """
    table = report.table("verdicts")
    changed = [row for row in (table.rows if table else ()) if _has_changed(row)]
    changed.sort(key=lambda row: (row.outcome == "indicative", -abs(row.change)))
    fractions = [row for row in changed if is_of_fractions(row.metric, row.unit)]
    ratios = [row for row in changed if not is_difference(row.metric, row.unit, row.baseline, row.candidate)]
    kinds = (("changes-fractions", fractions, "points"), ("changes-ratios", ratios, "percent"))
    return [
        _charts.changes(name, table, rows[:CHANGES], unit, of=len(rows)) for name, rows, unit in kinds if table and rows
    ]


def _has_changed(row: VerdictRow) -> bool:
    """Return whether a metric is not the same: one that was tested whatever its change, an indicative one if any."""
    if row.change is None or row.outcome == "same":
        return False
    return bool(row.change) or row.outcome != "indicative"


def _of_network(report: Report, name: str, cell: tuple[Any, ...]) -> Iterator[Chart]:
    layers, profiles, engines = (report.table(name) for name in ("layers", "profiles", "engines"))
    for i, (first, settings) in enumerate(_first_repeats(_of_cell(layers, cell, "engine", "mode", "batch_size"))):
        assert layers, "its rows were just found"
        if first[0].engine:
            words = f"Layers in {first[0].engine}, batch of {first[0].batch_size}{settings}"
            yield _doubted(_layer_charts.beside_torch(f"{name}-engine-{i}", words, layers, first), first)
            continue
        words = f"{steps_of(first[0].mode, first[0].batch_size).capitalize()}{settings}"
        yield _doubted(_layer_charts.layer_time_chart(f"{name}-layers-{i}", words, layers, first), first)
        if any(row.saved_bytes for row in first):
            yield _layer_charts.layer_memory(f"{name}-layers-{i}", words, layers, first)
        for machine in profiles.rows if profiles else ():
            # The key of a task is the same in two runs of one suite.
            of_steps = (machine.run, machine.task, machine.mode, machine.batch_size)
            if of_steps == (first[0].run, first[0].task, first[0].mode, first[0].batch_size) and profiles:
                placed = _layer_charts.roofline(f"{name}-layers-{i}", words, layers, first, profiles, machine)
                if placed:
                    yield _doubted(placed, first)
    timed = [row for rows in _of_cell(engines, cell) for row in rows if row.images_per_s is not None]
    compared = grouped(timed, lambda row: row.evidence.rivals)
    for i, (told, rows) in enumerate(zip(_apart(list(compared)), compared.values(), strict=True)):
        if engines and len({row.batch_size for row in rows}) > 1:
            title = " · ".join(("Throughput by batch size", *told))
            yield _charts.throughput(f"{name}-throughput-{i}", title, engines, rows)


def _doubted(chart: Chart, rows: Sequence[Row]) -> Chart:
    """Return a plot of the times of one process with the mark of doubt in its title, if these were disturbed."""
    if not rows[0].is_disturbed:
        return chart
    reading = f"{chart.reading} {DOUBT} {DISTURBED}: {rows[0][DISTURBED]}."
    return replace(chart, title=f"{chart.title} {DOUBT}", reading=reading)


def _first_repeats(found: Iterable[Sequence[Any]]) -> Iterator[tuple[Sequence[Any], str]]:
    """Yield the rows of the first repeat of each of a group's tasks, and words for the task if there are several."""
    for rows in found:
        tasks = grouped(rows, lambda row: row.first_key).values()
        for of_task in tasks:
            least = min(row.repeat for row in of_task)
            first = [row for row in of_task if row.repeat == least]
            yield first, f" · task {first[0].task}" if len(tasks) > 1 else ""


def _apart(compared: Sequence[Rivals]) -> Iterator[tuple[str, ...]]:
    """Yield for each group of rivals its settings and the training by which it differs from the others."""
    facts = []
    for each in compared:
        task = json.loads(each.settings)
        place = {name: value for name, value in zip(PLACE_FACTS, each.place, strict=True) if name not in UNNAMED}
        facts.append({**task, **task["settings"], "training": each.training, **place})
    names = [name for name in dict.fromkeys(name for of in facts for name in of) if name not in ("settings", "data")]
    differ = [name for name in names if len({json.dumps(of.get(name)) for of in facts}) > 1]
    for of in facts:
        yield tuple(f"{name.replace('_', ' ')} {of.get(name)}" for name in differ)


def _predictions(
    heading: str, rows: Sequence[ConfusionRow], examples: Sequence[ExampleRow], folder: Path
) -> NetworkPredictions:
    number = 1 + max(row.label for row in rows)
    is_whole = len(rows) == number**2
    matrix = tuple(tuple(rows[i * number : (i + 1) * number]) for i in range(number)) if is_whole else ()
    wrong = sorted((row for row in rows if row.label != row.prediction), key=lambda row: -row.images)
    shown = pictured(examples)
    pictures = zip(shown, data_uris(shown, folder) if shown else (), strict=False)
    return NetworkPredictions(
        heading,
        tuple(str(line[0].label if line[0].label_name is None else line[0].label_name) for line in matrix),
        matrix,
        () if is_whole else tuple(wrong[:FREQUENT]),
        wrong[0].images if wrong else 0,
        tuple(Picture(row, source) for row, source in pictures),
    )


def _of_cell(table: Table[Any] | None, cell: tuple[Any, ...], *names: str) -> Iterable[list[Any]]:
    rows = [row for row in (table.rows if table else ()) if tuple(row[key] for key in CELL) == cell]
    return _grouped(rows, *names)


def _differing(conditions: Sequence[Value], alike: Sequence[Sequence[Value]]) -> Iterator[str]:
    """Yield the conditions by which a group differs from those with the same title, itself among them."""
    for name, value, values in zip(GROUP, conditions, zip(*alike, strict=True), strict=True):
        if name in NAMED and len(set(values)) > 1:
            yield f"{name.replace('_', ' ')} {value}"


def _grouped(rows: Iterable[R], *names: str) -> list[list[R]]:
    return list(grouped(rows, lambda row: tuple(row.trait(name) for name in names)).values())


def _heading(row: Row, report: Report) -> str:
    """Return the names of a row's cell, with the run if there are several."""
    return _words(row, "model", "dataset", "data", "device", *(["run"] if len(report.folders) > 1 else []))


def _words(row: Row, *names: str) -> str:
    """Join a row's texts; its data is mentioned only if generated."""
    texts = {name: row[name] for name in names} | ({"data": generated(row)} if "data" in names else {})
    return " · ".join(str(text) for text in texts.values() if text is not None)
