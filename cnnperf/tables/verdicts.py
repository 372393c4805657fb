"""From two runs to the table of verdicts: `cnnperf check` with the first as the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cnnperf.errors import UsageError
from cnnperf.record import Record
from cnnperf.regression.check import compare_records, hold_a_reference
from cnnperf.regression.rule import Rule
from cnnperf.tables.table import Row, Table, column, row_type


@row_type
class VerdictRow(Row):
    """The verdict of `cnnperf check` on one metric."""

    cell: str = column(shown=0, meaning="dataset/model/device", source="task.cell")
    metric: str = column(
        shown=0,
        meaning="metric with its tags, `infer.latency[engine=torch]`, and with the settings that distinguish it if "
        "both runs measured several; or a stage, if the verdict is on the whole stage",
        source="measurements",
    )
    outcome: str = column(
        "verdict",
        shown=0,
        meaning="`better`, `same`, `worse`, `inconclusive`, `missing`, `error`, or `indicative` for what two runs do "
        "not decide: a time, speed or ratio, memory of too few repeats, a later stage's fraction based on one training",
        source="measurements",
    )
    unit: str | None = column(
        meaning="unit of both values: that of the metric",
        source="measurements",
    )
    baseline: float | None = column(
        unit="(unit)",
        shown=0,
        meaning="value of the first run, in the unit of the row: median over repeats of each one's median; of a "
        "fraction the mean over trainings; of a count or a file's size the sum of a repeat's values; of a speed-up the "
        "Hodges–Lehmann estimate over pairs",
        source="measurements",
    )
    candidate: float | None = column(
        unit="(unit)", shown=0, meaning="the same of the second run", source="measurements"
    )
    change: float | None = column(
        unit="1 or (unit)",
        shown=0,
        meaning="`candidate` over `baseline`, less 1; of a fraction or an accuracy drop, and where one of them "
        "is 0 or negative: `candidate` less `baseline`, in the unit of the row",
        source="measurements",
        interval=("low", "high"),
    )
    low: float | None = column(
        unit="1",
        meaning=f"lower one-sided {100 * (1 - Rule().beta):g} % bound of the change (Welch); only of fractions that "
        "were tested",
        source="measurements",
    )
    high: float | None = column(
        unit="1", meaning="upper one-sided bound of the change, likewise", source="measurements"
    )
    p: float | None = column(
        unit="1",
        meaning=f"one-sided p of a change by more than {100 * Rule().tau:g} point in the direction of `change` "
        "(Welch); empty if not tested",
        source="measurements",
    )
    p_holm: float | None = column(
        unit="1", meaning="`p` adjusted for all tests of the comparison (Holm)", source="measurements"
    )
    n: int | None = column(
        unit="count",
        shown=0,
        meaning="repeats of the side that has fewer; for a fraction, trainings with different seeds",
        source="measurements",
    )
    remark: str = column(shown=0, meaning="reason for the outcome, and what would decide it", source="measurements")


def verdict_table(records: Mapping[str, Sequence[Record]], folders: Mapping[str, Path]) -> Table[VerdictRow] | None:
    """Compare the second of two runs with the first; None unless there are two that share a cell and stage."""
    work = [{(r.task.cell.id, r.task.stage) for r in of_run} for of_run in records.values()]
    if len(work) != 2 or not work[0] & work[1]:
        return None
    columns, (baseline, candidate) = VerdictRow.columns(), folders
    sides = f"baseline: {baseline}; candidate: {candidate}."
    try:
        is_reference = hold_a_reference([folders[baseline]])
        comparison = compare_records(records[baseline], records[candidate], is_reference=is_reference)
    except UsageError as error:
        return Table("verdicts", columns, (), notes=(sides, f"Not compared: {error}"))
    rows = tuple(VerdictRow(**{c.name: getattr(v, c.name) for c in columns}) for v in comparison.verdicts)
    return Table("verdicts", columns, rows, notes=(sides, comparison.summary, *comparison.notes))
