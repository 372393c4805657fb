"""The A/A campaign: what a run stores, what the report counts, and the results of the stored campaign."""

from __future__ import annotations

import csv
import json
import math
import random
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil
import pytest
from forked import workers_forked
from in_process import called

from cnnperf.errors import StoreError, UsageError
from cnnperf.registry import find
from cnnperf.regression import campaign
from cnnperf.regression.ab import UnwatchedComparison
from cnnperf.regression.rule import Series
from cnnperf.regression.store import SAMPLES_FILE
from cnnperf.regression.verdict import Comparison
from cnnperf.tables import campaigns
from cnnperf.tables.table import Report

ROOT = Path(__file__).parents[2]
STORED = ROOT / "results" / "reference" / "aa"
SUITE = """
datasets = [{ name = "synthetic", train = 256, test = 64 }]
models = ["unruly:build"]
threads = 1
[train]
validation_images = 0
batch_size = 32
"""
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


def test_the_tables_hold_what_the_runs_left_behind(tmp_path: Path) -> None:
    """The tables have one row per cell-metric and the total counts; an incomplete run is named, not counted."""
    run_of(tmp_path, "monday-quiet-01", (0.0, 0.2))
    run_of(tmp_path, "tuesday-quiet-01", (0.0, 0.0), seed=1)
    (tmp_path / "tuesday-quiet-02").mkdir()
    report = campaigns.report(tmp_path)
    rows, total = report.tables[0].rows, report.tables[1].rows[-1]
    assert [(row["run"], row["metric"], row["outcome"]) for row in rows] == [
        ("monday-quiet-01", "infer.forward", "same"),
        ("monday-quiet-01", "train.step", "worse"),
        ("tuesday-quiet-01", "infer.forward", "same"),
        ("tuesday-quiet-01", "train.step", "same"),
    ]
    assert [series_of(row).flagged[0] for row in rows] == [True, False, True, False]
    assert (total["occasions"], total["runs"], total["cell_metrics"], total["worse"]) == (2, 2, 4, 1)
    assert (total["runs_worse"], total["alone_worse"], total["tested"], total["slower"]) == (1, 1, 4, 1)
    assert total["worse_high"] == pytest.approx(0.7514, abs=1e-4)
    assert total["level"] == 10 / 256
    assert report.notes == ("Not counted, since they did not end: tuesday-quiet-02.",)


def test_every_verdict_can_be_decided_again_from_the_table(tmp_path: Path) -> None:
    """The differences and flags in the CSV suffice to decide each verdict again."""
    run_of(tmp_path / "runs", "monday-quiet-01", (0.0, 0.2))
    run_of(tmp_path / "runs", "monday-quiet-02", (0.03, -0.1), seed=2)
    keep(campaigns.report(tmp_path / "runs"), tmp_path)
    hold_to_its_differences(tmp_path)


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


def test_decisions_keep_the_order_of_the_rows() -> None:
    """`decided` returns each decision under its key."""
    series = {"b": campaigns.Series((), (), "failed"), "a": campaigns.Series((0.0, 0.1), (False, False))}
    assert {key: each.outcome for key, each in campaigns.decided(series, (8, 14, 22), 2).items()} == {
        "b": "error",
        "a": "inconclusive",
    }


def test_an_occasion_is_a_name_on_one_host_on_one_day(tmp_path: Path) -> None:
    """Runs of one name count as one occasion only where host and day are equal."""
    places = (("h", "23T09"), ("h", "23T10"), ("h", "24T09"), ("i", "23T09"))
    for number, (host, hour) in enumerate(places):
        name = f"monday-quiet-{number:02}"
        run_of(tmp_path, name, (0.0, 0.0), began=f"2026-11-{hour}:00:00+00:00", host=host)
    total = campaigns.report(tmp_path).tables[1].rows[-1]
    assert (total["runs"], total["occasions"]) == (4, 3)


def test_a_folder_without_runs_is_one_sentence(tmp_path: Path) -> None:
    """The error for a folder without runs names the command that makes one."""
    with pytest.raises(StoreError, match="cnnperf campaign measure"):
        campaigns.report(tmp_path)


def test_runs_of_an_earlier_report_are_counted_once(tmp_path: Path) -> None:
    """A run both in an earlier table and on disk counts once; two runs of one name count as two."""
    here, there, tables = (tmp_path / name for name in ("here", "there", "tables"))
    run_of(here, "monday-quiet-01", (0.0, 0.2))
    run_of(there, "monday-quiet-01", (0.2, 0.0), seed=1, began="2026-11-29T10:00:00+00:00")
    tables.mkdir()
    keep(campaigns.report(here), tables)
    alone, both = campaigns.report(tables), campaigns.report(tables, here, there)
    assert alone == campaigns.report(here)
    assert [(row["began"], row["metric"], row["outcome"]) for row in both.tables[0].rows] == [
        ("2026-11-23T09:00:00+00:00", "infer.forward", "same"),
        ("2026-11-23T09:00:00+00:00", "train.step", "worse"),
        ("2026-11-29T10:00:00+00:00", "infer.forward", "worse"),
        ("2026-11-29T10:00:00+00:00", "train.step", "same"),
    ]
    total = both.tables[1].rows[-1]
    assert (total["runs"], total["runs_worse"], total["cell_metrics"], total["occasions"]) == (2, 2, 4, 2)
    (tmp_path / "both").mkdir()
    keep(both, tmp_path / "both")
    hold_to_its_differences(tmp_path / "both")


def test_a_cell_metric_without_replicates_is_read_again(tmp_path: Path) -> None:
    """A report reads a cell-metric that failed at once, without samples, back from its table."""
    run_of(tmp_path / "runs", "monday-quiet-01", (0.0, 0.2))
    place = tmp_path / "runs" / "monday-quiet-01"
    verdicts = json.loads((place / campaign.VERDICTS_FILE).read_text())["verdicts"]
    verdicts[1] |= {"outcome": "error", "n": None, "remark": "a call takes 300 ms"}
    (place / campaign.VERDICTS_FILE).write_text(json.dumps({"verdicts": verdicts}))
    lines = (place / SAMPLES_FILE).read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line).get("contest") != f"cell {METRICS[1]}"]
    (place / SAMPLES_FILE).write_text("".join(kept))
    first = campaigns.report(tmp_path / "runs")
    assert [(row["outcome"], row["n"]) for row in first.tables[0].rows] == [("same", 8), ("error", None)]
    keep(first, tmp_path)
    assert campaigns.report(tmp_path).tables == first.tables
    hold_to_its_differences(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("\nmonday-quiet-01,", "\nmonday-quiet-01,x,", r"cell_metrics.csv:2: "),
        ("run,", "walk,", "cell_metrics.csv:2: run: "),
    ],
)
def test_a_broken_table_of_an_earlier_report_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    """The error for a broken table names its file and line."""
    run_of(tmp_path / "runs", "monday-quiet-01", (0.0, 0.0))
    keep(campaigns.report(tmp_path / "runs"), tmp_path)
    table = tmp_path / "cell_metrics.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(StoreError, match=words):
        campaigns.report(tmp_path)


def test_a_broken_run_is_named(tmp_path: Path) -> None:
    """A run whose verdicts cannot be read is an error that names the run."""
    run_of(tmp_path, "monday-quiet-01", (0.0, 0.0))
    (tmp_path / "monday-quiet-01" / campaign.VERDICTS_FILE).write_text("{")
    with pytest.raises(StoreError, match="monday-quiet-01: not a complete run"):
        campaigns.report(tmp_path)


def test_the_neighbour_lives_as_long_as_the_run() -> None:
    """The condition `neighbour` starts a busy child and ends it, also after an error; the others start none."""

    def children() -> list[psutil.Process]:
        return [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]

    before = children()
    for condition in ("quiet", "shared"):
        with campaign.neighbour(condition):
            assert children() == before
    with suppress(ZeroDivisionError), campaign.neighbour("neighbour"):
        [busy] = [each for each in children() if each not in before]
        raise ZeroDivisionError
    assert not busy.is_running()


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"condition": "noisy"}, "^`condition`: unknown condition 'noisy'"), ({"occasion": "a b"}, "^`occasion`: 'a b'")],
)
def test_what_cannot_be_carried_out(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """`measure_run` refuses a wrong argument in one sentence before it measures."""
    with pytest.raises(UsageError, match=words):
        campaign.measure_run("aa", tmp_path / "x", **{"occasion": "monday", **changes})
    assert not (tmp_path / "x").exists()


def test_one_run_through_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`campaign measure` measures as `cnnperf ab` does, beside an idle neighbour; `campaign report` reads its runs."""
    monkeypatch.setattr(campaign, "BUSY", "import time; time.sleep(600)")
    (tmp_path / "tiny.toml").write_text(SUITE)

    def command(*words: object) -> CompletedProcess[str]:
        with workers_forked():
            return called("campaign", *words, cwd=tmp_path)

    options = ("--condition", "neighbour", "--pairs", 12, "--threads", 1, "--minutes", 0)
    (tmp_path / "runs" / "monday-neighbour-01").mkdir(parents=True)  # Of a run that was broken off.
    done = command("measure", "tiny.toml", "--out", "runs", "--occasion", "monday", *options)
    assert done.returncode == 0, done.stderr
    assert "exit status of the verdicts: 3" in done.stderr
    assert (tmp_path / "runs" / "monday-neighbour-02" / campaign.RUN_FILE).exists()
    done = command("report", "runs", "--out", "tables")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("measured: 0 of 2 cell-metrics")
    assert "monday-neighbour-01" in done.stderr
    rows = read(tmp_path / "tables", "cell_metrics")
    assert {(row["condition"], row["pairs"], row["threads"], row["outcome"]) for row in rows} == {
        ("neighbour", "12", "1", "inconclusive")
    }
    hold_to_its_differences(tmp_path / "tables")
    refused = command("measure", "nowhere.toml", "--out", "runs", "--occasion", "monday")
    assert refused.returncode == 2
    assert refused.stderr.startswith("cnnperf: nowhere.toml: ")


def test_an_interrupted_run_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`measure_run` stores no run of an interrupted comparison, and raises KeyboardInterrupt."""
    asked: dict[str, Any] = {}

    def ab(suite: str, **given: Any) -> Comparison:
        asked.update(given)
        return Comparison(verdicts=(), notes=(), interrupted=True)

    monkeypatch.setattr(campaign, "ab", ab)
    watcher = UnwatchedComparison()
    with pytest.raises(KeyboardInterrupt):
        campaign.measure_run("aa", tmp_path, occasion="monday", watcher=watcher)
    assert asked["watcher"] is watcher
    assert not list(tmp_path.rglob(campaign.RUN_FILE))


@pytest.mark.skipif(not STORED.is_dir(), reason="no campaign is stored in results/reference/aa")
def test_the_stored_campaign_follows_from_its_differences() -> None:
    """The stored verdicts and counts follow from at least 300 cell-metrics on at least three occasions."""
    hold_to_its_differences(STORED)
    total = read(STORED, "counts")[-1]
    assert int(total["cell_metrics"]) >= 300
    assert int(total["occasions"]) >= 3
    assert {row["condition"] for row in read(STORED, "counts")} == {"quiet", "neighbour", "shared", "all"}
