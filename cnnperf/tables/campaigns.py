"""From the runs of an A/A campaign to two tables: a row a cell-metric, and the counts.

A row holds the differences of its replicates, from which every verdict can be decided again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median, stdev
from typing import Any

from pydantic import ValidationError

from cnnperf.errors import StoreError
from cnnperf.regression import ratios
from cnnperf.regression.campaign import CONDITIONS, RUN, VERDICTS, CampaignRun
from cnnperf.regression.rule import Decision, Rule, Series, decide, looks_taken
from cnnperf.regression.store import FILE
from cnnperf.stats import SignedRanks, binomial_bounds, drifts, signed_rank_tail
from cnnperf.tables.table import Column, Report, Row, Table

LEVEL = 0.05
"""One-sided, of the test for any difference at the first look: a count that shows arms that are not exchangeable."""

COLUMNS = (
    Column("run", meaning="folder of the run", source="(folder)"),
    Column("began", meaning="start of the run, UTC, ISO 8601", source=RUN),
    Column("occasion", meaning="name of the occasion on which it was measured", source=RUN),
    Column(
        "condition", meaning="`quiet`, `neighbour` (a process keeps one core busy), `shared` (other work)", source=RUN
    ),
    Column("host", meaning="name of the machine", source=FILE),
    Column("cpu", meaning="processor's name", source=FILE),
    Column("cores", unit="count", meaning="cores that the run may use", source=FILE),
    Column("threads", unit="count", meaning="threads of each side", source=FILE),
    Column(
        "load", meaning="load average of the run's last five minutes; the measurement itself is one of it", source=RUN
    ),
    Column("torch", meaning="version of torch", source=FILE),
    Column("cell", meaning="dataset/model/device", source=VERDICTS),
    Column("metric", meaning="what is compared: `train.step`, `infer.forward`", source=VERDICTS),
    Column("calls", unit="count", meaning="calls in a sample", source=FILE),
    Column("pairs", unit="count", meaning="pairs of samples in a replicate", source=FILE),
    Column("call_s", unit="s", meaning="time of a call: median over samples, then over replicates", source=FILE),
    Column("comparisons", unit="count", meaning="cell-metrics of the whole run", source=VERDICTS),
    Column("looks", meaning="replicates after which the run is looked at, a JSON list", source=FILE),
    Column("replicates", unit="count", meaning="replicates of the whole run", source=FILE),
    Column("outcome", meaning="verdict", source=VERDICTS),
    Column("change", unit="1", meaning="candidate's time over the baseline's, less 1", source=VERDICTS),
    Column("low", unit="1", meaning="least change that is not excluded", source=VERDICTS),
    Column("high", unit="1", meaning="greatest change that is not excluded", source=VERDICTS),
    Column("p_holm", unit="1", meaning="one-sided p, adjusted for all comparisons of the run (Holm)", source=VERDICTS),
    Column("n", unit="count", meaning="replicates that the verdict is based on", source=VERDICTS),
    Column("noise", unit="1", meaning="standard deviation of `differences`", source=FILE),
    Column("flagged", unit="count", meaning="replicates that drifted or were not steady", source=FILE),
    Column("alone", meaning="verdict if nothing else had been compared in the run", source=FILE),
    Column(
        "p_slower",
        unit="1",
        meaning="exact one-sided p at the first look of the candidate being slower by anything",
        source=FILE,
    ),
    Column("p_faster", unit="1", meaning="the same of its being faster", source=FILE),
    Column(
        "differences",
        meaning="each replicate's median log ratio of times, candidate over baseline, a JSON list",
        source=FILE,
    ),
    Column("flags", meaning="whether each replicate is flagged, a JSON list", source=FILE),
)

COUNTS = (
    Column("condition", meaning="`quiet`, `neighbour`, `shared`; `all` in the last row", source=RUN),
    Column("threads", meaning="threads of each side; `all` in the last row", source=FILE),
    Column("occasions", unit="count", meaning="occasions", source=RUN),
    Column("runs", unit="count", meaning="runs", source="(folder)"),
    Column("cell_metrics", unit="count", meaning="cell-metrics compared", source=VERDICTS),
    *(
        Column(outcome, unit="count", meaning=f"cell-metrics whose verdict is `{outcome}`", source=VERDICTS)
        for outcome in ("worse", "same", "better", "inconclusive", "error")
    ),
    Column("runs_worse", unit="count", meaning="runs with a cell-metric called `worse`", source=VERDICTS),
    Column("alone_worse", unit="count", meaning="cell-metrics `worse` if nothing else had been compared", source=FILE),
    Column(
        "alone_better", unit="count", meaning="cell-metrics `better` if nothing else had been compared", source=FILE
    ),
    Column("tested", unit="count", meaning="cell-metrics with enough replicates for the first look", source=FILE),
    Column("slower", unit="count", meaning=f"of these, those with `p_slower` of at most {LEVEL}", source=FILE),
    Column("faster", unit="count", meaning=f"of these, those with `p_faster` of at most {LEVEL}", source=FILE),
    Column(
        "worse_high",
        unit="1",
        meaning="exact one-sided 95 % upper bound of the share `worse` / `cell_metrics`, if these were independent; "
        "those of one run share its processes and its machine",
        source=VERDICTS,
    ),
    Column("runs_worse_high", unit="1", meaning="the same of `runs_worse` / `runs`", source=VERDICTS),
    Column("alone_worse_high", unit="1", meaning="the same of `alone_worse` / `cell_metrics`", source=FILE),
    Column(
        "level", unit="1", meaning="share `slower` / `tested` that exchangeable sides give, exactly", source="(rule)"
    ),
    Column("noise_median", unit="1", meaning="median of `noise`", source=FILE),
    Column("noise_max", unit="1", meaning="largest `noise`", source=FILE),
)


def report(out: Path) -> Report:
    """Return the tables `cell_metrics` and `counts` of all runs below a folder. Raises StoreError."""
    runs = sorted(file.parent for file in out.glob(f"*/{RUN}"))
    if not runs:
        raise StoreError(f"{out}: holds no run of a campaign; make one with cnnperf campaign measure")
    rows = tuple(row for folder in runs for row in rows_of(folder))
    unfinished = [folder.name for folder in sorted(out.iterdir()) if folder.is_dir() and folder not in runs]
    notes = (f"Not counted, since they did not end: {', '.join(unfinished)}.",) if unfinished else ()
    return Report((Table("cell_metrics", COLUMNS, rows), Table("counts", COUNTS, tuple(counts(rows)))), notes)


def rows_of(folder: Path) -> Iterator[Row]:
    """Yield a row for each cell-metric of one run. Raises StoreError for a folder that is not a run."""
    try:
        run = CampaignRun.model_validate_json((folder / RUN).read_text(encoding="utf-8"))
        verdicts = json.loads((folder / VERDICTS).read_text(encoding="utf-8"))["verdicts"]
        header, *lines = map(json.loads, (folder / FILE).read_text(encoding="utf-8").splitlines())
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
        yield {
            "run": folder.name,
            "began": run.began,
            "occasion": run.occasion,
            "condition": run.condition,
            **{name: machine[name] for name in ("host", "cpu", "cores")},
            "threads": header["contests"][key][0]["threads"],
            "load": run.load,
            "torch": machine["packages"]["torch"],
            "cell": verdict["cell"],
            "metric": verdict["metric"],
            "calls": first and first["calls"],
            "pairs": first and len(first["wall_s"]),
            "call_s": first and median(median(one["wall_s"]) for one, _ in found[key]) / first["calls"],
            "comparisons": len(verdicts),
            "looks": json.dumps(header["looks"]),
            "replicates": replicates,
            "outcome": verdict["outcome"],
            **{name: verdict[name] for name in ("change", "low", "high", "p_holm", "n")},
            **judged(_series(found[key], verdict), header["looks"], replicates),
        }


def _series(replicates: Sequence[tuple[dict[str, Any], dict[str, Any]]], verdict: Mapping[str, Any]) -> Series:
    of_pairs = [ratios.of_times(one["wall_s"], other["wall_s"]) for one, other in replicates]
    flagged = [drifts(each) or not one["steady"] for each, (one, _) in zip(of_pairs, replicates, strict=True)]
    error = verdict["remark"] if verdict["outcome"] == "error" else None
    # Rounded as the table keeps them, so that what is decided here can be decided again from there.
    return Series(tuple(float(f"{ratios.middle(each):.7g}") for each in of_pairs), tuple(flagged), error)


def judged(series: Series, looks: Sequence[int], replicates: int) -> dict[str, Any]:
    """Return what one cell-metric's differences say by themselves, the columns from `noise` on."""
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


def counts(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield the counts of each condition and number of threads, and last of all together."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["condition"], str(row["threads"])].append(row)
    for (condition, threads), of_group in groups.items():
        yield {"condition": condition, "threads": threads, **_counted(of_group)}
    yield {"condition": "all", "threads": "all", **_counted(rows)}


def _counted(rows: Sequence[Row]) -> dict[str, Any]:
    def number(column: str, value: str) -> int:
        return sum(row[column] == value for row in rows)

    tested = [row for row in rows if row["p_slower"] is not None]
    runs, runs_worse = ({row["run"] for row in of} for of in (rows, [r for r in rows if r["outcome"] == "worse"]))
    noise = [row["noise"] for row in rows if row["noise"] is not None]
    worse, alone_worse = number("outcome", "worse"), number("alone", "worse")
    return {
        "occasions": len({row["occasion"] for row in rows}),
        "runs": len(runs),
        "cell_metrics": len(rows),
        **{outcome: number("outcome", outcome) for outcome in ("worse", "same", "better", "inconclusive", "error")},
        "runs_worse": len(runs_worse),
        "alone_worse": alone_worse,
        "alone_better": number("alone", "better"),
        "tested": len(tested),
        "slower": sum(row["p_slower"] <= LEVEL for row in tested),
        "faster": sum(row["p_faster"] <= LEVEL for row in tested),
        "worse_high": binomial_bounds(worse, len(rows)).high,
        "runs_worse_high": binomial_bounds(len(runs_worse), len(runs)).high,
        "alone_worse_high": binomial_bounds(alone_worse, len(rows)).high,
        "level": exact_level(Rule().looks[0]),
        "noise_median": median(noise) if noise else None,
        "noise_max": max(noise, default=None),
    }


def exact_level(n: int) -> float:
    """Return how often the exact test of n differences gives a p of at most LEVEL where the arms are exchangeable."""
    tail = signed_rank_tail(n)
    return float(max(tail[tail <= LEVEL], default=0.0))


def sentence(rows: Sequence[Row]) -> str:
    """Summarise all runs in a sentence; `rows` are those of `counts`."""
    *groups, total = rows
    conditions = ", ".join(words for name, words in CONDITIONS.items() if name in {row["condition"] for row in groups})
    return (
        f"measured: {total['worse']} of {total['cell_metrics']} cell-metrics that were compared with themselves were "
        f"called worse, in {total['runs_worse']} of {total['runs']} runs (95 % upper bound "
        f"{_percent(total['runs_worse_high'])}) on {total['occasions']} occasions ({conditions}); "
        f"{total['inconclusive']} were inconclusive. "
        f"Judged one by one, without Holm, {total['alone_worse']} were worse. At the first look the exact test for any "
        f"difference at {100 * LEVEL:g} % called {total['slower']} of {total['tested']} slower and {total['faster']} "
        f"faster, where exchangeable arms give {total['level'] * total['tested']:.0f} each"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def series_of(row: Mapping[str, str]) -> Series:
    """Read a row's replicates back from the table's text."""
    error = "failed" if row["outcome"] == "error" else None
    differences, flags = (json.loads(row[name]) for name in ("differences", "flags"))
    return Series(tuple(differences), tuple(flags), error)
