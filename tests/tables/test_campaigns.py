"""The tables of a campaign: counts, verdicts decided again, earlier reports, and the sentence about all runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from campaign_runs import METRICS, hold_to_its_differences, keep, read, run_of, series_of

from cnnperf.errors import StoreError
from cnnperf.regression import campaign
from cnnperf.regression.samples_file import SAMPLES_FILE
from cnnperf.tables import campaigns

STORED = Path(__file__).parents[2] / "results" / "reference" / "aa"


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


def test_the_sentence_has_the_totals(tmp_path: Path) -> None:
    """The sentence names the runs, the cell-metrics called worse, and the expected count of the exact test."""
    run_of(tmp_path, "monday-quiet-01", (0.0, 0.2))
    run_of(tmp_path, "tuesday-quiet-01", (0.0, 0.0), seed=1)
    assert campaigns.sentence(campaigns.report(tmp_path).tables[1].rows) == (
        "measured: 1 of 4 cell-metrics that were compared with themselves were called worse, in 1 of 2 runs (95 % "
        "upper bound 97 %) on 2 occasions (on a quiet machine); 0 were inconclusive. Judged one by one, without Holm, "
        "1 were worse. At the first look the exact test for any difference at 5 % called 1 of 4 slower and 0 faster, "
        "where exchangeable sides give 0.16 each"
    )


@pytest.mark.skipif(not STORED.is_dir(), reason="no campaign is stored in results/reference/aa")
def test_the_stored_campaign_follows_from_its_differences() -> None:
    """The stored verdicts and counts follow from at least 300 cell-metrics on at least three occasions."""
    hold_to_its_differences(STORED)
    total = read(STORED, "counts")[-1]
    assert int(total["cell_metrics"]) >= 300
    assert int(total["occasions"]) >= 3
    assert {row["condition"] for row in read(STORED, "counts")} == {"quiet", "neighbour", "shared", "all"}
