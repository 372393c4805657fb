"""Runs of a campaign written without measuring, and the check that its tables follow from them."""

from __future__ import annotations

import csv
import json
import math
import random
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cnnperf.registry import find
from cnnperf.regression import campaign
from cnnperf.regression.rule import Series
from cnnperf.regression.samples_file import SAMPLES_FILE
from cnnperf.tables import campaigns
from cnnperf.tables.table import Report

METRICS = ("infer.forward", "train.step")


def run_of(
    folder: Path,
    name: str,
    changes: tuple[float, float],
    *,
    replicates: int = 14,
    seed: int = 0,
    began: str = "2026-11-23T09:00:00+00:00",
    host: str = "h",
) -> None:
    """Write the files of a run: two cell-metrics, each slower in its candidate by the change given."""
    dice = random.Random(seed)
    header: dict[str, Any] = {
        "machine": {"host": host, "cpu": "c", "cores": 2, "packages": {"torch": "2.14.1"}},
        "contests": {f"cell {metric}": [{"threads": 1}] * 2 for metric in METRICS},
        "looks": [8, 14, 22],
    }
    lines, series = [header], {}
    for metric, change in zip(METRICS, changes, strict=True):
        differences = []
        for number in range(1, replicates + 1):
            times = [0.01 * math.exp(dice.gauss(0, 0.001)) for _ in range(12)]
            slower = [time * (1 + change) * math.exp(dice.gauss(0, 0.005)) for time in times]
            differences.append(campaigns.ratios.middle(campaigns.ratios.of_times(times, slower)))
            lines += [
                {
                    "contest": f"cell {metric}",
                    "replicate": number,
                    "arm": side,
                    "calls": 2,
                    "wall_s": of_side,
                    "steady": number > 1 or metric == "train.step",
                }
                for side, of_side in (("baseline", times), ("candidate", slower))
            ]
        lines.append({"contest": f"cell {metric}", "replicate": replicates, "error": "a side ended"})  # Of a lost try.
        series[f"cell {metric}"] = campaigns.Series(tuple(differences), (False,) * replicates)
    decisions = campaigns.decided(series, [8, 14, 22], replicates)
    verdicts = [
        {
            "cell": "cell",
            "metric": metric,
            "outcome": decisions[f"cell {metric}"].outcome,
            "remark": "",
            **dict.fromkeys(("change", "low", "high", "p_holm")),
            "n": decisions[f"cell {metric}"].n,
        }
        for metric in METRICS
    ]
    place = folder / name
    place.mkdir(parents=True)
    (place / SAMPLES_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (place / campaign.VERDICTS_FILE).write_text(json.dumps({"verdicts": verdicts}))
    run = campaign.CampaignRun(
        occasion=name.split("-", maxsplit=1)[0],
        condition="quiet",
        pairs=12,
        command=("cnnperf", "ab"),
        began=began,
        seconds=1.0,
        load=1.5,
        exit_code=0,
    )
    (place / campaign.RUN_FILE).write_text(run.model_dump_json())


def keep(report: Report, folder: Path) -> None:
    """Write the tables of a report as CSV."""
    find("reports", "csv")(report, folder)


def read(folder: Path, name: str) -> list[dict[str, str]]:
    """Read a table of the campaign as text."""
    with open(folder / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def series_of(row: Mapping[str, str] | campaigns.CellMetricRow) -> Series:
    """Return a row's replicates, read from the table's text."""
    error = "failed" if row["outcome"] == "error" else None
    differences, flags = (json.loads(row[name]) for name in ("differences", "flags"))
    return Series(tuple(differences), tuple(flags), error)


def hold_to_its_differences(folder: Path) -> None:
    """Decide every run again from its rows, count again, and compare with the tables."""
    rows = read(folder, "cell_metrics")
    runs: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        runs[row["run"], row["began"]].append(row)
    again: list[campaigns.CellMetricRow] = []
    for of_run in runs.values():
        looks, replicates = json.loads(of_run[0]["looks"]), int(of_run[0]["replicates"])
        assert {row["comparisons"] for row in of_run} == {str(len(of_run))}
        series = {f"{row['cell']} {row['metric']}": series_of(row) for row in of_run}
        assert len(series) == len(of_run)
        decisions = campaigns.decided(series, looks, replicates)
        for row, (key, each) in zip(of_run, series.items(), strict=True):
            decision = decisions[key]
            judged = campaigns.judged(each, looks, replicates)
            assert (decision.outcome, judged["alone"]) == (row["outcome"], row["alone"])
            again.append(campaigns.CellMetricRow(**{**row, **judged, "outcome": decision.outcome}))
    written = {(row["condition"], row["threads"]): row for row in read(folder, "counts")}
    for counted in campaigns.counts(again):
        told = written[counted["condition"], counted["threads"]]
        for column in (each.name for each in counted.columns()):
            value = counted[column]
            if isinstance(value, float):
                assert float(told[column]) == pytest.approx(value)
            else:
                assert told[column] == ("" if value is None else str(value))
