"""Records of two runs, grouped by stage of a cell and, if settings differ, by settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cnnperf.bench import trains
from cnnperf.record import Measurement, Record
from cnnperf.regression.conditions import required_facts, setting_word
from cnnperf.sides import SIDES, Both
from cnnperf.task import Scalar

SettingWords = tuple[tuple[str, str], ...]
"""Settings by name, their values in words."""
Metric = tuple[str, tuple[tuple[str, Scalar], ...]]
"""A metric and the tags that tell it apart."""


class CellStage(NamedTuple):
    """One stage of one cell, under one of several settings if a suite changed them between two sittings."""

    cell: str
    stage: str
    told: SettingWords = ()
    """The settings that distinguish it, its training's included; empty unless both sides measured several."""

    @property
    def name(self) -> str:
        """Name it for a reader."""
        return f"{self.cell} {metric_label((self.stage, self.told))}"


SideRecords = Mapping[CellStage, Sequence[Record]]


def by_cell_stage(records: Both[tuple[Record, ...]]) -> Both[SideRecords]:
    """Group the records of both sides by stage of a cell.

    A stage's records are also grouped by settings if all that ended well on one side were tried on the other too.
    """
    trained = Both(*({r.key: r for r in side if trains(r.task.stage)} for side in records))
    of_stages: dict[CellStage, Both[list[tuple[Record, SettingWords]]]] = {}
    for side in SIDES:
        for record in records.of(side):
            cell_stage = CellStage(record.task.cell.id, record.task.stage)
            found = of_stages.setdefault(cell_stage, Both([], []))
            found.of(side).append((record, _settings(record, trained.of(side))))
    divided: Both[dict[CellStage, list[Record]]] = Both({}, {})
    for cell_stage, stated in of_stages.items():
        found = _filled(stated)
        equal = _equal_settings(found)
        for side_records, of_side in zip(divided, found, strict=True):
            for record, settings in of_side:
                told = () if equal is None else tuple(each for each in settings if each not in equal)
                side_records.setdefault(cell_stage._replace(told=told), []).append(record)
    return Both(divided.baseline, divided.candidate)


def _filled(stated: Both[list[tuple[Record, SettingWords]]]) -> Both[list[tuple[Record, SettingWords]]]:
    """Return the records of a stage with a word for each setting that any of them has."""
    absent = {name: setting_word(None) for side in stated for _, settings in side for name, _ in settings}
    return Both(
        *([(record, tuple(sorted({**absent, **dict(words)}.items()))) for record, words in of] for of in stated)
    )


def _equal_settings(found: Both[list[tuple[Record, SettingWords]]]) -> set[tuple[str, str]] | None:
    """Return the settings that all records share; None if the records are not to be grouped by settings."""
    tried = Both(*({settings for _, settings in side} for side in found))
    ended = Both(*({settings for record, settings in side if record.status == "ok"} for side in found))
    is_alike = ended.baseline <= tried.candidate and ended.candidate <= tried.baseline
    if len(ended.baseline | ended.candidate) < 2 or not is_alike:
        return None
    return set.intersection(*map(set, tried.baseline | tried.candidate))


def _settings(record: Record, trained: Mapping[str, Record]) -> SettingWords:
    """Return what must be equal in two records, and the settings of the training that a later stage reads."""
    of_training = next((required_facts(trained[key]) for key in record.task.needs if key in trained), {})
    content = {key: value for key, value in of_training.items() if "." in key} | required_facts(record)
    return tuple((key, setting_word(value)) for key, value in sorted(content.items()) if value is not None)


def trainings_of(cell_stage: CellStage, side: SideRecords) -> tuple[CellStage, ...]:
    """Return the trainings that a stage of a cell reads: those that its records name, else all of the cell."""
    of_cell = tuple(other for other in side if other.cell == cell_stage.cell and trains(other.stage))
    if trains(cell_stage.stage):
        return tuple(other for other in of_cell if other.told == cell_stage.told)
    needed = {key for r in side.get(cell_stage, ()) for key in r.task.needs}
    return tuple(other for other in of_cell if any(r.key in needed for r in side[other])) or of_cell


def training_records(cell_stage: CellStage, side: SideRecords) -> tuple[Record, ...]:
    """Return the records of the trainings that a stage of a cell reads."""
    return tuple(r for training in trainings_of(cell_stage, side) for r in side[training])


def by_metric(records: Iterable[Record]) -> dict[Metric, list[tuple[Record, Measurement]]]:
    """Group what records measured; the points of a curve are one metric."""
    found: dict[Metric, list[tuple[Record, Measurement]]] = defaultdict(list)
    for r in records:
        for m in r.measurements:
            found[m.metric, tuple(sorted(m.tags.items()))].append((r, m))
    return found


def metric_label(metric: tuple[str, Iterable[tuple[str, Scalar]]], told: SettingWords = ()) -> str:
    """Name a metric with its tags, and with the settings that distinguish its stage."""
    name, tags = metric[0], (*metric[1], *told)
    return f"{name}[{','.join(f'{key}={value}' for key, value in tags)}]" if tags else name


def ended_well(records: Iterable[Record]) -> list[Record]:
    """Return the records of the tasks that are ok."""
    return [r for r in records if r.status == "ok"]


def all_skipped(records: Sequence[Record]) -> bool:
    """Return whether there are records, and all are of skipped tasks."""
    return bool(records) and all(r.status == "skipped" for r in records)
