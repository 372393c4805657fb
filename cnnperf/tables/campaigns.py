"""From the runs of an A/A campaign to two tables: one row per cell-metric, and the counts.

A row contains the differences of its replicates, from which every verdict can be computed again.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median, stdev
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cnnperf.errors import StoreError
from cnnperf.regression import ratios
from cnnperf.regression.campaign import CONDITIONS, RUN_FILE, VERDICTS_FILE, CampaignRun
from cnnperf.regression.rule import Decision, Rule, Series, decide, looks_taken
from cnnperf.regression.samples_file import SAMPLES_FILE
from cnnperf.stats import SignedRanks, binomial_bounds, drifts, signed_rank_tail
from cnnperf.tables.table import Report, Row, Table, column, row_type

CELL_METRICS = "cell_metrics"
"""Name of the table from which counts can be made again."""
FIRST_LOOK_LEVEL = 0.05
"""One-sided level of the test for any difference at the first look; its counts show whether sides are exchangeable."""


@row_type
class CellMetricRow(Row):
    """A cell-metric of a run."""

    run: str = column(meaning="folder of the run", source="(folder)")
    began: str = column(meaning="start of the run, UTC, ISO 8601", source=RUN_FILE)
    occasion: str = column(meaning="name of the occasion on which it was measured", source=RUN_FILE)
    condition: str = column(
        meaning="`quiet`, `neighbour` (a process keeps one core busy), `shared` (other work)", source=RUN_FILE
    )
    host: str = column(meaning="name of the machine", source=SAMPLES_FILE)
    cpu: str = column(meaning="processor's name", source=SAMPLES_FILE)
    cores: int = column(unit="count", meaning="cores that the run may use", source=SAMPLES_FILE)
    threads: int = column(unit="count", meaning="threads of each side", source=SAMPLES_FILE)
    load: float | None = column(
        unit="1",
        meaning="load average of the run's last five minutes, the measurement itself included",
        source=RUN_FILE,
    )
    torch: str = column(meaning="version of torch", source=SAMPLES_FILE)
    cell: str = column(meaning="dataset/model/device", source=VERDICTS_FILE)
    metric: str = column(meaning="what is compared: `train.step`, `infer.forward`", source=VERDICTS_FILE)
    calls: int | None = column(unit="count", meaning="calls in a sample", source=SAMPLES_FILE)
    pairs: int | None = column(unit="count", meaning="pairs of samples in a replicate", source=SAMPLES_FILE)
    call_s: float | None = column(
        unit="s",
        meaning="time of a call on the baseline's side: median over samples, then over replicates",
        source=SAMPLES_FILE,
    )
    comparisons: int = column(unit="count", meaning="cell-metrics of the whole run", source=VERDICTS_FILE)
    looks: str = column(meaning="replicates after which the run is looked at, a JSON list", source=SAMPLES_FILE)
    replicates: int = column(unit="count", meaning="replicates of the whole run", source=SAMPLES_FILE)
    outcome: str = column(meaning="verdict", source=VERDICTS_FILE)
    change: float | None = column(
        unit="1",
        meaning="candidate's time over the baseline's, less 1: Hodges–Lehmann over the `n` replicates",
        source=VERDICTS_FILE,
    )
    low: float | None = column(
        unit="1",
        meaning=f"exact lower one-sided bound of `change` (signed ranks), at {100 * (1 - Rule().beta):g} % over all "
        "looks",
        source=VERDICTS_FILE,
    )
    high: float | None = column(unit="1", meaning="exact upper one-sided bound, likewise", source=VERDICTS_FILE)
    p_holm: float | None = column(
        unit="1",
        meaning=f"exact one-sided p of a change by more than {100 * Rule().tau:g} %, faster if the verdict is "
        "`better`, else slower, adjusted for all comparisons of the run (Holm)",
        source=VERDICTS_FILE,
    )
    n: int | None = column(unit="count", meaning="replicates that the verdict is based on", source=VERDICTS_FILE)
    noise: float | None = column(unit="1", meaning="sample standard deviation of `differences`", source=SAMPLES_FILE)
    flagged: int = column(unit="count", meaning="replicates that drifted or were not steady", source=SAMPLES_FILE)
    alone: str = column(meaning="verdict if nothing else had been compared in the run", source=SAMPLES_FILE)
    p_slower: float | None = column(
        unit="1",
        meaning="exact one-sided p at the first look of the candidate being slower by anything; empty if it has too "
        "few replicates",
        source=SAMPLES_FILE,
    )
    p_faster: float | None = column(unit="1", meaning="the same of its being faster", source=SAMPLES_FILE)
    differences: str = column(
        meaning="each replicate's median log ratio of times, candidate over baseline, a JSON list", source=SAMPLES_FILE
    )
    flags: str = column(meaning="whether each replicate is flagged, a JSON list", source=SAMPLES_FILE)


_ROW = TypeAdapter(CellMetricRow)

OUTCOMES = ("worse", "same", "better", "inconclusive", "error")


def _verdicts(outcome: str) -> Any:
    return column(unit="count", meaning=f"cell-metrics whose verdict is `{outcome}`", source=VERDICTS_FILE)


@row_type
class CountRow(Row):
    """The cell-metrics of one condition and number of threads, or of all."""

    condition: str = column(meaning="`quiet`, `neighbour`, `shared`; `all` in the last row", source=RUN_FILE)
    threads: str = column(meaning="threads of each side; `all` in the last row", source=SAMPLES_FILE)
    occasions: int = column(
        unit="count",
        meaning="occasions: runs of one name, on one host, that began on one day (UTC)",
        source=f"{RUN_FILE}, {SAMPLES_FILE}",
    )
    runs: int = column(unit="count", meaning="runs", source="(folder)")
    cell_metrics: int = column(unit="count", meaning="cell-metrics compared", source=VERDICTS_FILE)
    worse: int = _verdicts("worse")
    same: int = _verdicts("same")
    better: int = _verdicts("better")
    inconclusive: int = _verdicts("inconclusive")
    error: int = _verdicts("error")
    runs_worse: int = column(unit="count", meaning="runs with a cell-metric called `worse`", source=VERDICTS_FILE)
    alone_worse: int = column(
        unit="count", meaning="cell-metrics `worse` if nothing else had been compared", source=SAMPLES_FILE
    )
    alone_better: int = column(
        unit="count", meaning="cell-metrics `better` if nothing else had been compared", source=SAMPLES_FILE
    )
    tested: int = column(
        unit="count", meaning="cell-metrics with enough replicates for the first look", source=SAMPLES_FILE
    )
    slower: int = column(
        unit="count", meaning=f"of these, those with `p_slower` of at most {FIRST_LOOK_LEVEL}", source=SAMPLES_FILE
    )
    faster: int = column(
        unit="count", meaning=f"of these, those with `p_faster` of at most {FIRST_LOOK_LEVEL}", source=SAMPLES_FILE
    )
    worse_high: float = column(
        unit="fraction",
        meaning="exact one-sided 95 % upper bound of the share `worse` / `cell_metrics`, if these were independent; "
        "those of one run share its processes and its machine",
        source=VERDICTS_FILE,
    )
    runs_worse_high: float = column(unit="fraction", meaning="the same of `runs_worse` / `runs`", source=VERDICTS_FILE)
    alone_worse_high: float = column(
        unit="fraction", meaning="the same of `alone_worse` / `cell_metrics`", source=SAMPLES_FILE
    )
    level: float = column(
        unit="fraction",
        meaning="exact share `slower` / `tested`, or `faster` / `tested`, that exchangeable sides give",
        source="(rule)",
    )
    noise_median: float | None = column(unit="1", meaning="median of `noise`", source=SAMPLES_FILE)
    noise_max: float | None = column(unit="1", meaning="largest `noise`", source=SAMPLES_FILE)


def report(*folders: Path) -> Report:
    """Return the tables `cell_metrics` and `counts` of several folders together. Raises StoreError.

    folders: each holds runs, the table `cell_metrics.csv` of an earlier report, such as one of another machine, or
    both. A run that is in several places counts once.
    """
    of_runs: dict[tuple[str, str], tuple[CellMetricRow, ...]] = {}
    unfinished: list[str] = []
    for folder in folders:
        runs = sorted(file.parent for file in folder.glob(f"*/{RUN_FILE}"))
        earlier = folder / f"{CELL_METRICS}.csv"
        if not runs and not earlier.exists():
            raise StoreError(
                f"{folder}: holds neither a run of a campaign nor {earlier.name}; make a run with cnnperf campaign "
                "measure"
            )
        for rows in (*(_kept(earlier) if earlier.exists() else ()), *map(tuple, map(rows_of, runs))):
            of_runs[rows[0].run, rows[0].began] = rows
        unfinished += [each.name for each in sorted(folder.iterdir()) if each.is_dir() and each not in runs]
    rows = tuple(row for of_run in of_runs.values() for row in of_run)
    notes = (f"Not counted, since they did not end: {', '.join(unfinished)}.",) if unfinished else ()
    return Report(
        (
            Table(CELL_METRICS, CellMetricRow.columns(), rows),
            Table("counts", CountRow.columns(), tuple(counts(rows))),
        ),
        notes,
    )


def _kept(table: Path) -> Iterator[tuple[CellMetricRow, ...]]:
    """Yield the rows of each run of an earlier report. Raises StoreError for a table of another version."""
    of_runs: dict[tuple[str, str], list[CellMetricRow]] = defaultdict(list)
    try:
        lines = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    except (OSError, ValueError) as error:
        raise StoreError(f"{table}: cannot be read ({error}); make it again from its runs") from error
    for number, line in enumerate(lines, start=2):
        try:
            row = _ROW.validate_python({name: value or None for name, value in line.items()})
        except ValidationError as error:
            first = error.errors()[0]
            raise StoreError(
                f"{table}:{number}: {'.'.join(map(str, first['loc']))}: {first['msg']}; make the table again from its "
                "runs"
            ) from error
        of_runs[row.run, row.began].append(row)
    yield from map(tuple, of_runs.values())


def rows_of(folder: Path) -> Iterator[CellMetricRow]:
    """Yield a row for each cell-metric of one run. Raises StoreError for a folder that is not a run."""
    try:
        run = CampaignRun.model_validate_json((folder / RUN_FILE).read_text(encoding="utf-8"))
        verdicts = json.loads((folder / VERDICTS_FILE).read_text(encoding="utf-8"))["verdicts"]
        header, *lines = map(json.loads, (folder / SAMPLES_FILE).read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError, ValidationError) as error:
        raise StoreError(f"{folder}: not a complete run of a campaign ({error}); remove it") from error
    found: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = defaultdict(list)
    waiting: dict[str, dict[str, Any]] = {}
    for line in lines:
        if line.get("arm") == "baseline":
            waiting[line["contest"]] = line
        elif line.get("arm") == "candidate":
            found[line["contest"]].append((waiting.pop(line["contest"]), line))
    replicates = max((line["replicate"] for line in lines), default=0)
    machine = header["machine"]
    for verdict in verdicts:
        key = f"{verdict['cell']} {verdict['metric']}"
        first = found[key][0][0] if found[key] else None
        yield CellMetricRow(
            run=folder.name,
            began=run.began,
            occasion=run.occasion,
            condition=run.condition,
            **{name: machine[name] for name in ("host", "cpu", "cores")},
            threads=header["contests"][key][0]["threads"],
            load=run.load,
            torch=machine["packages"]["torch"],
            cell=verdict["cell"],
            metric=verdict["metric"],
            calls=first["calls"] if first else None,
            pairs=len(first["wall_s"]) if first else None,
            call_s=median(median(one["wall_s"]) for one, _ in found[key]) / first["calls"] if first else None,
            comparisons=len(verdicts),
            looks=json.dumps(header["looks"]),
            replicates=replicates,
            outcome=verdict["outcome"],
            **{name: verdict[name] for name in ("change", "low", "high", "p_holm", "n")},
            **judged(_series(found[key], verdict), header["looks"], replicates),
        )


def _series(replicates: Sequence[tuple[dict[str, Any], dict[str, Any]]], verdict: Mapping[str, Any]) -> Series:
    of_pairs = [ratios.of_times(one["wall_s"], other["wall_s"]) for one, other in replicates]
    flagged = [drifts(each) or not one["steady"] for each, (one, _) in zip(of_pairs, replicates, strict=True)]
    error = verdict["remark"] if verdict["outcome"] == "error" else None
    # Rounded as in the table, so that the same decision can be computed from the table.
    return Series(tuple(float(f"{ratios.middle(each):.7g}") for each in of_pairs), tuple(flagged), error)


def judged(series: Series, looks: Sequence[int], replicates: int) -> dict[str, Any]:
    """Return the columns from `noise` on, which depend only on the cell-metric's own differences."""
    rule, values = Rule(), series.differences
    ranks = SignedRanks(values[: rule.looks[0]]) if len(values) >= rule.looks[0] else None
    return {
        "noise": stdev(values) if len(values) > 1 else None,
        "flagged": sum(series.flagged),
        "alone": decided({"": series}, looks, replicates)[""].outcome,
        "p_slower": None if ranks is None else float(ranks.p_above(0.0)),
        "p_faster": None if ranks is None else float(ranks.p_below(0.0)),
        "differences": json.dumps(values),
        "flags": json.dumps(series.flagged),
    }


def decided(series: Mapping[str, Series], looks: Sequence[int], replicates: int) -> dict[str, Decision]:
    """Apply the rule of `cnnperf ab` to the stored differences of a run with this number of replicates."""
    return decide(series, Rule(), looks_taken(looks, replicates), final=True)


def counts(rows: Sequence[CellMetricRow]) -> Iterator[CountRow]:
    """Yield the counts for each condition and number of threads, and last for all together."""
    groups: dict[tuple[str, str], list[CellMetricRow]] = defaultdict(list)
    for row in rows:
        groups[row.condition, str(row.threads)].append(row)
    for (condition, threads), of_group in groups.items():
        yield _counted(condition, threads, of_group)
    yield _counted("all", "all", rows)


def _counted(condition: str, threads: str, rows: Sequence[CellMetricRow]) -> CountRow:
    def number(name: str, value: str) -> int:
        return sum(row[name] == value for row in rows)

    tested = [(row.p_slower, row.p_faster) for row in rows if row.p_slower is not None and row.p_faster is not None]
    slower_rows = [row for row in rows if row.outcome == "worse"]
    runs, runs_worse = ({(row.run, row.began) for row in of} for of in (rows, slower_rows))
    noise = [row.noise for row in rows if row.noise is not None]
    worse, alone_worse = number("outcome", "worse"), number("alone", "worse")
    return CountRow(
        condition=condition,
        threads=threads,
        occasions=len({(row.host, row.occasion, row.began[:10]) for row in rows}),
        runs=len(runs),
        cell_metrics=len(rows),
        **{outcome: number("outcome", outcome) for outcome in OUTCOMES},
        runs_worse=len(runs_worse),
        alone_worse=alone_worse,
        alone_better=number("alone", "better"),
        tested=len(tested),
        slower=sum(slower <= FIRST_LOOK_LEVEL for slower, _ in tested),
        faster=sum(faster <= FIRST_LOOK_LEVEL for _, faster in tested),
        worse_high=binomial_bounds(worse, len(rows)).high,
        runs_worse_high=binomial_bounds(len(runs_worse), len(runs)).high,
        alone_worse_high=binomial_bounds(alone_worse, len(rows)).high,
        level=exact_level(Rule().looks[0]),
        noise_median=median(noise) if noise else None,
        noise_max=max(noise, default=None),
    )


def exact_level(n: int) -> float:
    """Return how often the exact test of n differences gives p ≤ FIRST_LOOK_LEVEL if the sides are exchangeable."""
    tail = signed_rank_tail(n)
    return float(max(tail[tail <= FIRST_LOOK_LEVEL], default=0.0))


def sentence(rows: Sequence[CountRow]) -> str:
    """Summarise all runs in a sentence; `rows` are those of `counts`."""
    *groups, total = rows
    conditions = ", ".join(words for name, words in CONDITIONS.items() if name in {row.condition for row in groups})
    return (
        f"measured: {total.worse} of {total.cell_metrics} cell-metrics that were compared with themselves were "
        f"called worse, in {total.runs_worse} of {total.runs} runs (95 % upper bound "
        f"{_percent(total.runs_worse_high)}) on {total.occasions} occasions ({conditions}); "
        f"{total.inconclusive} were inconclusive. "
        f"Judged one by one, without Holm, {total.alone_worse} were worse. At the first look the exact test for any "
        f"difference at {100 * FIRST_LOOK_LEVEL:g} % called {total.slower} of {total.tested} slower and {total.faster} "
        f"faster, where exchangeable sides give {total.level * total.tested:.2g} each"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
