"""The leaderboard: which rows are compared, their order, and how each figure is computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schema_1 import of_schema_1

from cnnperf import record
from cnnperf.errors import StoreError, UsageError
from cnnperf.record import Gpu, Measurement, Processor, Record, single
from cnnperf.regression.check import compare_records
from cnnperf.reports import _readable
from cnnperf.tables.leaderboard import leaderboard, rank, summary
from cnnperf.tables.leaderboard_row import LeaderboardRow
from cnnperf.tables.report import report_of, report_of_records
from cnnperf.tables.table import Row

Trained = Callable[..., Record]
PLACE = {"samples": 50, "seconds": 0.1, "epoch": 0.1}
"""Remarks of a point of a curve, besides its step."""

SYNTHETIC = {"name": "synthetic", "sha256": "cd" * 32, "fallback": "no connection"}


def rows_of(records: Iterable[Record]) -> tuple[Row, ...]:
    """Return the leaderboard of one run's records."""
    return leaderboard({"suite/run": tuple(records)}).rows


def once(metric: str, value: float, unit: str = "s", **tags: Any) -> Measurement:
    """Make a measurement of one value."""
    return Measurement(metric=metric, unit=unit, better="lower", values=(value,), tags=tags)


def test_overlapping_intervals_share_a_rank_and_the_faster_comes_first(trained: Trained) -> None:
    """Ranks are 1, 1, 3: a row ties with the leader if it overlaps the leader's interval, not another's."""
    table = rows_of(
        [
            trained("mlp", accuracy=0.84, n=1000),
            trained("vgg", accuracy=0.90, n=1000, step_s=[0.02]),
            trained("nin", accuracy=0.87, n=1000, step_s=[0.01]),
        ]
    )
    assert [(row["model"], row["rank"]) for row in table] == [("nin", 1), ("vgg", 1), ("mlp", 3)]
    by_name = {row["model"]: row for row in table}
    assert by_name["mlp"]["test_accuracy_high"] > by_name["nin"]["test_accuracy_low"]
    assert by_name["mlp"]["test_accuracy_high"] < by_name["vgg"]["test_accuracy_low"]


def test_a_wide_interval_shares_the_rank_that_it_overlaps_behind_a_narrow_one_that_does_not(trained: Trained) -> None:
    """A row with a wide interval ties with the leader, ahead of a more accurate row that does not overlap it."""
    table = rows_of(
        [
            trained("vgg", accuracy=0.620, n=10_000),
            trained("nin", accuracy=0.600, n=10_000),
            trained("mlp", accuracy=0.595, n=1000),
        ]
    )
    by_name = {row["model"]: row for row in table}
    assert by_name["nin"]["test_accuracy_high"] < by_name["vgg"]["test_accuracy_low"]
    assert by_name["mlp"]["test_accuracy_high"] > by_name["vgg"]["test_accuracy_low"]
    assert [(row["model"], row["rank"]) for row in table] == [("vgg", 1), ("mlp", 1), ("nin", 3)]


def test_ranks_do_not_depend_on_the_order_of_the_records(trained: Trained) -> None:
    """The leader of two equal accuracies is the one with more images, in any order of the records."""
    results = [("few", 0.601, 1000), ("many", 0.601, 10_000), ("third", 0.58, 10_000)]
    records = [trained({"name": "mlp", "hidden": i}, accuracy=a, n=n) for i, (_, a, n) in enumerate(results)]
    ranks = [{row["model"]: row["rank"] for row in rows_of(each)} for each in permutations(records)]
    assert ranks == [{"mlp[hidden=0]": 1, "mlp[hidden=1]": 1, "mlp[hidden=2]": 3}] * 6


RESULT = st.tuples(st.integers(560, 640), st.integers(1, 99), st.sampled_from([1000, 10_000]))


@given(st.lists(RESULT, min_size=1, max_size=8))
def test_a_rank_is_that_of_all_that_overlap_its_leader(trained: Trained, results: list[tuple[int, int, int]]) -> None:
    """A rank holds all rows that overlap its leader, sorted by speed; the next rank counts all rows before it."""
    table = rows_of(
        trained({"name": "mlp", "hidden": i}, accuracy=right / 1000, n=n, step_s=[seconds / 1000])
        for i, (right, seconds, n) in enumerate(results)
    )
    ranks = [row["rank"] for row in table]
    assert ranks == [1 + sum(other < rank for other in ranks) for rank in ranks]
    for higher, lower in pairwise(table):
        assert higher["rank"] != lower["rank"] or higher["images_per_s"] >= lower["images_per_s"]
    for place in set(ranks):
        rest = [row for row in table if row["rank"] >= place]
        leader = max(rest, key=lambda row: (row["test_accuracy"], row["test_accuracy_low"]))
        for row in rest:
            assert (row["test_accuracy_high"] >= leader["test_accuracy_low"]) == (row["rank"] == place)


@pytest.mark.parametrize(
    "other",
    [{"dataset": "mnist"}, {"data": SYNTHETIC}, {"device": "cuda"}, {"seconds": 30.0}, {"host": "shed"}],
    ids=lambda other: next(iter(other)),
)
def test_unlike_rows_are_not_ranked_against_each_other(trained: Trained, other: dict[str, Any]) -> None:
    """Rows of another dataset, data, device, budget or host are ranked separately."""
    table = rows_of([trained("vgg", accuracy=0.9), trained("nin", accuracy=0.1, **other)])
    assert [row["rank"] for row in table] == [1, 1]
    assert {row["rank"] for row in rows_of([trained("vgg", accuracy=0.9), trained("nin", accuracy=0.1)])} == {1, 2}


def test_machines_of_one_name_and_unlike_hardware_are_not_ranked_against_each_other(
    trained: Trained, on: Trained, unlike_hardware: tuple[str, dict[str, Any], dict[str, Any]]
) -> None:
    """Rows of unlike processors or GPUs are ranked separately, in spite of an equal name."""
    device, *sides = unlike_hardware
    cells = (trained("vgg", accuracy=0.9, device=device), trained("nin", accuracy=0.1, device=device))
    one, other = ([on(cell, **facts) for facts in sides] for cell in cells)
    assert [row["rank"] for row in rows_of([one[0], other[1]])] == [1, 1]
    assert [row["rank"] for row in rows_of([one[0], other[0]])] == [1, 2]


def test_which_of_two_gpus_that_are_alike_does_not_divide_a_group(trained: Trained, on: Trained) -> None:
    """Rows of two GPUs that differ only in their UUID or in facts from torch are ranked together."""
    gpu = Gpu(name="NVIDIA A100", capability="8.0", memory_bytes=40 * 2**30)
    told = gpu.model_copy(update={"uuid": "GPU-1", "usable_bytes": 39 * 2**30, "multiprocessors": 108})
    records = [
        on(trained(model, device="cuda", accuracy=accuracy), accelerator=accelerator)
        for model, accuracy, accelerator in (("vgg", 0.9, gpu), ("nin", 0.1, told))
    ]
    assert [row["rank"] for row in rows_of(records)] == [1, 2]


def test_a_row_says_on_which_processor_or_gpu_it_stands(trained: Trained, on: Trained) -> None:
    """A row names the processor with family, model and stepping, or by its name alone in older records."""
    processor = Processor(family="25", model="17", stepping="1", instruction_sets=("avx2", "avx512f"))
    rows = rows_of([on(trained(), processor=processor), trained("nin")])
    assert [(row["cpu_model"], row["instruction_sets"], row["device_label"]) for row in rows] == [
        ("Some Processor @ 2 GHz, family 25 model 17 stepping 1", "avx2 avx512f", rows[0]["cpu_model"]),
        (None, None, "Some Processor @ 2 GHz"),
    ]


def test_generated_images_are_named_in_the_row(trained: Trained) -> None:
    """A row on synthetic images names them and the reason, beside the dataset asked for."""
    (row,) = rows_of([trained(data=SYNTHETIC)])
    assert (row["dataset"], row["data"], row["data_fallback"]) == ("cifar10", "synthetic", "no connection")


def test_what_did_not_end_well_is_shown_unranked_at_the_end_of_its_group(trained: Trained) -> None:
    """A failed row is last in its group, with its reason in one line, without control codes and figures."""
    failed = trained("vgg", status="failed", error="loss is nan\n at step 3\x1b[2J")
    table = rows_of([failed, trained("nin"), trained("nin", dataset="mnist")])
    assert [row["model"] for row in table] == ["nin", "vgg", "nin"]
    assert (table[1]["status"], table[1]["reason"]) == ("failed", "loss is nan at step 3 [2J")
    assert {table[1][name] for name in ("rank", "test_accuracy", "images_per_s", "repeats", "params")} == {None}
    assert (table[0]["status"], table[0]["reason"]) == ("ok", None)


def test_repeats_are_one_row_and_a_failed_one_shows(trained: Trained) -> None:
    """A row of three repeats with a timeout has the figures of the other two, and its status says so."""
    (row,) = rows_of(
        [trained(repeat=0), trained(repeat=1, status="timeout", error="took over 60 s"), trained(repeat=2)]
    )
    assert (row["status"], row["reason"], row["repeats"], row["rank"]) == ("ok 2/3", "took over 60 s", 2, 1)


def test_settings_tell_rows_of_one_run_apart(trained: Trained) -> None:
    """A cell trained with two recipes in one run has two rows."""
    assert [row["batch_size"] for row in rows_of([trained(), trained(batch_size=64)])] == [128, 64]


def test_speed_is_the_median_over_repeats_of_their_medians_over_steps(trained: Trained) -> None:
    """The speed is the median of the repeats' medians; its quartiles pool all steps."""
    (row,) = rows_of(
        [
            trained(repeat=0, batch_size=100, step_s=[0.001, 0.002, 0.004]),
            trained(repeat=1, batch_size=100, step_s=[0.010]),
            trained(repeat=2, batch_size=100, step_s=[0.005]),
        ]
    )
    assert row["images_per_s"] == pytest.approx(20_000)
    assert [row["images_per_s_min"], row["images_per_s_max"]] == pytest.approx([10_000, 50_000])
    assert [row["images_per_s_q25"], row["images_per_s_q75"]] == pytest.approx([20_000, 50_000])


def test_one_repeat_has_no_spread(trained: Trained) -> None:
    """A single repeat has no minimum and maximum of the speed."""
    (row,) = rows_of([trained()])
    assert (row["images_per_s_min"], row["images_per_s_max"]) == (None, None)


def test_accuracy_is_the_mean_over_repeats(trained: Trained) -> None:
    """Each repeat has the same weight in the mean accuracy, whatever its number of images."""
    figures = ((0.5, 5000), (0.6, 2000), (0.9, 2000))
    records = []
    for i, (accuracy, n) in enumerate(figures):
        best = single("train.validation_accuracy", "fraction", accuracy - 0.1, "higher", {**PLACE, "step": 1})
        others = [single(f"train.test_accuracy_{name}", "fraction", accuracy, "higher") for name in ("flip", "raw")]
        records.append(trained(accuracy=accuracy, n=n, repeat=i, measured=[best, *others]))
    (row,) = rows_of(records)
    names = ("test_accuracy", "test_accuracy_flip", "train_test_accuracy_raw")
    assert [row[name] for name in names] == [pytest.approx(2 / 3)] * 3
    assert row["best_validation_accuracy"] == pytest.approx(2 / 3 - 0.1)
    metrics = ("train.test_accuracy", "train.test_accuracy_flip", "train.test_accuracy_raw")
    printed = {v.metric: v.baseline for v in compare_records(records, records).verdicts if v.metric in metrics}
    assert printed == {metric: row[name] for metric, name in zip(metrics, names, strict=True)}


def test_the_interval_of_one_repeat_is_that_of_its_images(trained: Trained) -> None:
    """Equal repeats on the same images have the interval of a single repeat."""
    (one,) = rows_of([trained(accuracy=0.5)])
    (three,) = rows_of(trained(accuracy=0.5, repeat=i) for i in range(3))
    for row in (one, three):
        assert [row[f"test_accuracy_{end}"] for end in ("low", "high")] == pytest.approx([0.469, 0.531], abs=5e-4)
    assert (one["test_images"], one["test_set"]) == (1000, "subset")


def test_the_interval_of_several_repeats_holds_the_variation_between_trainings(trained: Trained) -> None:
    """The interval adds the squares of the variation between trainings and of that between images."""
    (row,) = rows_of(trained(accuracy=a, repeat=i) for i, a in enumerate((0.4, 0.5, 0.6)))
    assert row["test_accuracy"] == pytest.approx(0.5)
    assert [row[f"test_accuracy_{end}"] for end in ("low", "high")] == pytest.approx([0.2497, 0.7503], abs=5e-4)


def test_ranks_and_stars_follow_the_spread_of_the_trainings(trained: Trained) -> None:
    """Two networks five points apart share a rank if their trainings scatter by eight points."""
    columns = {column.name: column for column in LeaderboardRow.columns()}
    for apart, ranks, stars in ((0.0, [1, 2], [True, False]), (0.08, [1, 1], [False, False])):
        rows = rows_of(
            trained(model, accuracy=middle + apart * (i - 1), n=10_000, repeat=i, step_s=[0.01])
            for model, middle in (("vgg", 0.65), ("nin", 0.60))
            for i in range(3)
        )
        assert [row["rank"] for row in rows] == ranks
        assert _readable.best(columns["test_accuracy"], rows) == stars


def test_a_test_that_does_not_name_its_images_has_no_set(trained: Trained) -> None:
    """Without the remark `images` the column `test_set` is empty."""
    whole = trained()
    bare = tuple(
        m.model_copy(update={"remarks": {name: value for name, value in m.remarks.items() if name != "images"}})
        for m in whole.measurements
    )
    (row,) = rows_of([whole.model_copy(update={"measurements": bare})])
    assert (row["test_set"], row["status"]) == (None, "ok")


@pytest.mark.parametrize("counts", [(10_000, 400), (400, 10_000)])
def test_unlike_tests_are_told_and_the_smallest_is_named(trained: Trained, counts: tuple[int, int]) -> None:
    """The smallest test of the repeats decides the interval, and the reason gives the numbers of images."""
    (row,) = rows_of(trained(accuracy=0.5, n=n, repeat=i) for i, n in enumerate(counts))
    assert (row["test_images"], row["test_set"], row["status"]) == (400, "subset", "ok")
    assert [row[f"test_accuracy_{end}"] for end in ("low", "high")] == pytest.approx([0.451, 0.549], abs=5e-4)
    words = "repeats were tested on 400 to 10,000 images; the interval is that of the fewest"
    assert row["reason"] == words
    failed = trained(repeat=2, status="failed", error="boom")
    table = leaderboard({"r": [*(trained(n=n, repeat=i) for i, n in enumerate(counts)), failed]})
    assert _readable.remarks(table) == [f"lenet: ok 2/3: boom; {words}"]


@pytest.mark.parametrize(
    ("reached", "median"),
    [((3.0, 5.0, 4.0), 4.0), ((3.0, None, 4.0), 4.0), ((3.0, None, None), None), ((3.0, None), None)],
)
def test_a_target_that_half_of_the_repeats_missed_has_no_time(
    trained: Trained, reached: tuple[float | None, ...], median: float | None
) -> None:
    """Repeats that missed the target count as the slowest, so that half of them leave no median."""
    (row,) = rows_of(
        trained(repeat=i, measured=[] if t is None else [once("train.time_to_target", t, target=0.9)])
        for i, t in enumerate(reached)
    )
    assert row["time_to_target_s"] == median
    assert row["time_to_target_max_s"] == (None if None in reached else max(t for t in reached if t is not None))


def test_a_time_to_target_says_how_coarse_it_is(trained: Trained) -> None:
    """The resolution of a time to target is the coarsest of the repeats, and None in older records."""
    times = [single("train.time_to_target", "s", 30.0, "lower", {"resolution_s": s}, target=0.4) for s in (6.5, 30.0)]
    (row,) = rows_of(trained(repeat=i, measured=[time]) for i, time in enumerate(times))
    assert row["time_to_target_resolution_s"] == 30.0
    (row,) = rows_of([trained(measured=[once("train.time_to_target", 30.0, target=0.4)])])
    assert row["time_to_target_resolution_s"] is None


def test_remarks_on_rows_of_several_runs_name_the_run(trained: Trained) -> None:
    """A remark names the run only where the table has several."""
    failed = trained(status="failed", error="boom")
    table = leaderboard({"r": [failed], "s": [trained()]})
    assert _readable.remarks(table) == ["r lenet: failed: boom"]
    assert _readable.remarks(leaderboard({"r": [failed]})) == ["lenet: failed: boom"]


def test_times_to_unlike_targets_are_not_compared(trained: Trained) -> None:
    """Times to a target are starred only among equal targets, and the row gives the target."""
    targets = {"mlp": 0.3, "nin": 0.9, "vgg": 0.9}
    table = leaderboard(
        {
            "r": [
                trained(
                    model,
                    repeat=repeat,
                    measured=[once("train.time_to_target", seconds, target=targets[model])],
                    target_accuracy=targets[model],
                    stop_at_target=False,
                )
                for model, seconds in (("mlp", 1.0), ("nin", 5.0), ("vgg", 8.0))
                for repeat in range(4)
            ]
        }
    )
    (group,) = table.groups()
    (column,) = [c for c in table.columns if c.name == "time_to_target_s"]
    stars = dict(zip([row.model for row in group.rows], _readable.best(column, group.rows), strict=True))
    assert stars == {"mlp": False, "nin": True, "vgg": False}
    assert {row["model"]: row["target_accuracy"] for row in group.rows} == targets
    assert "target_accuracy" in [c.name for c in _readable.visible(group)]


def test_the_range_of_times_to_a_target_begins_at_the_earliest_of_any_repeat(trained: Trained) -> None:
    """The range of times to a target begins at the smallest time less resolution of any repeat."""
    measured = ((2.0, {"resolution_s": 0.2}), (2.12, {}), (2.1, {"resolution_s": 2.1}), (2.2, {"resolution_s": 0.5}))
    times = [single("train.time_to_target", "s", s, "lower", remarks, target=0.4) for s, remarks in measured]
    table = leaderboard({"r": [trained(repeat=i, measured=[time]) for i, time in enumerate(times)]})
    (column,) = [c for c in table.columns if c.name == "time_to_target_s"]
    assert _readable.interval(column, table.rows[0]) == (0.0, 2.2)
    table = leaderboard({"r": [trained(repeat=i, measured=[times[i]]) for i in (0, 1, 3)]})
    assert _readable.interval(column, table.rows[0]) == pytest.approx((1.7, 2.2))


@pytest.mark.parametrize(
    ("settings", "budget"),
    [
        ({}, "60 s"),
        ({"seconds": None, "epochs": 1}, "1 epoch"),
        ({"seconds": None, "samples": 5_000_000}, "5000000 samples"),
        ({"seconds": 0.5, "target_accuracy": 0.985}, "0.5 s or until 98.5 %"),
        ({"seconds": 0.5, "target_accuracy": 0.985, "stop_at_target": False}, "0.5 s"),
        ({"seconds": None}, None),
    ],
)
def test_budget_in_words(trained: Trained, settings: dict[str, Any], budget: str | None) -> None:
    """The budget names its amount and unit, and the target that may end it early."""
    (row,) = rows_of([trained(**settings)])
    assert row["budget"] == budget


def test_a_metric_nobody_asked_for_gets_its_column(trained: Trained) -> None:
    """An unknown metric with one value per task gets a column; one with several values does not."""
    often = [
        once("train.watts", 1.0, layer=1),
        once("train.watts", 2.0, layer=2),
        single("train.train_accuracy", "1", 0.5, "lower", {**PLACE, "step": 10}),
    ]
    records = [trained(repeat=i, measured=[once("train.joules", 5.0 + i, "J"), *often]) for i in range(3)]
    table = leaderboard({"suite/run": records})
    assert table.columns[-1].name == "train_joules"
    assert (table.columns[-1].unit, table.columns[-1].better) == ("J", "lower")
    assert table.rows[0]["train_joules"] == 6.0
    assert not {"train_watts", "train_train_accuracy"} & {column.name for column in table.columns}


def test_unit_and_direction_come_with_the_measurement(trained: Trained) -> None:
    """A column has the unit and direction of its metric."""
    columns = {
        c.name: c for c in leaderboard({"r": [trained(measured=[once("train.peak_bytes", 3, "bytes")])]}).columns
    }
    assert (columns["images_per_s"].unit, columns["images_per_s"].better) == ("images/s", "higher")
    assert (columns["peak_bytes"].unit, columns["peak_bytes"].better) == ("bytes", "lower")


def test_the_total_and_the_median_speed_have_names_of_their_own(tmp_path: Path, trained: Trained) -> None:
    """Total and median speed have separate columns, also with the metric's name of older records."""
    made = trained(batch_size=100, step_s=[0.001, 0.001, 0.004])
    stored, path = record.line_of(made).decode(), tmp_path / record.FILE
    old = f"{json.dumps(of_schema_1(made))}\n".replace("train.total_images_per_s", "train.images_per_s")
    assert [text.count("train.total_images_per_s") for text in (stored, old)] == [1, 0]
    for text in (stored, old):
        path.write_text(text, encoding="utf-8")
        (board,) = (t for t in report_of([tmp_path]).tables if t.name == "leaderboard")
        speeds = [column.name for column in board.columns if column.name.endswith("images_per_s")]
        assert speeds == ["images_per_s", "total_images_per_s"]
        assert (board.rows[0]["images_per_s"], board.rows[0]["total_images_per_s"]) == (pytest.approx(100_000), 1.0)
        assert [m.metric for r in record.read(tmp_path) for m in r.measurements if "images" in m.metric] == [
            "train.total_images_per_s"
        ]


def test_sorting_puts_the_best_first_and_the_missing_last_and_keeps_the_ranks(tmp_path: Path, trained: Trained) -> None:
    """Sorting puts the best or the alphabetically first row first and missing values last, and keeps the ranks."""
    for model, seconds, peak in (("vgg", 0.04, 2), ("nin", 0.01, 3), ("mlp", 0.02, 1)):
        measured = [once("train.peak_bytes", peak, "bytes")]
        record.append(tmp_path, trained(model, accuracy=0.5 + seconds * 10, step_s=[seconds], measured=measured))
    record.append(tmp_path, trained("alexnet", status="failed", error="x"))

    def order(by: str | None) -> list[str]:
        return [row["model"] for row in report_of([tmp_path], by=by).tables[0].rows]

    assert order(None) == ["vgg", "mlp", "nin", "alexnet"]
    assert order("images_per_s") == ["nin", "mlp", "vgg", "alexnet"]
    assert order("peak_bytes") == ["mlp", "vgg", "nin", "alexnet"]
    assert order("model") == ["alexnet", "mlp", "nin", "vgg"]
    assert [row["rank"] for row in report_of([tmp_path], by="images_per_s").tables[0].rows] == [3, 2, 1, None]


def test_an_unknown_column_is_refused_with_the_nearest(tmp_path: Path, trained: Trained) -> None:
    """The error for an unknown column in `by` suggests the nearest name."""
    record.append(tmp_path, trained())
    with pytest.raises(UsageError, match="`by`: unknown column 'image_per_s'; did you mean 'images_per_s'"):
        report_of([tmp_path], by="image_per_s")


def test_runs_are_joined_and_named_by_folder(tmp_path: Path, trained: Trained) -> None:
    """Rows of several runs share one ranking with their run; a run given twice counts once."""
    folders = [tmp_path / "cifar" / name for name in ("monday", "tuesday")]
    for folder, accuracy in zip(folders, (0.1, 0.9), strict=True):
        folder.mkdir(parents=True)
        record.append(folder, trained(accuracy=accuracy))
    frame = rank([*folders, folders[0] / ".." / "monday"])
    assert frame[["run", "rank"]].to_numpy().tolist() == [["cifar/tuesday", 1], ["cifar/monday", 2]]
    assert frame["test_accuracy"].isna().sum() == frame["reason"].notna().sum() == 0
    with pytest.raises(StoreError):
        rank([tmp_path])


def test_runs_of_one_name_are_kept_apart(tmp_path: Path, trained: Trained) -> None:
    """Two runs of one name are two rows, the second named by its path."""
    folders = [tmp_path / place / "cifar" / "monday" for place in ("here", "there")]
    for folder in folders:
        folder.mkdir(parents=True)
        record.append(folder, trained())
    assert sorted(rank(folders)["run"]) == sorted(["cifar/monday", str(folders[1].resolve())])


def test_a_frames_types_do_not_hang_on_its_values(tmp_path: Path, trained: Trained) -> None:
    """Counts are nullable integers and quantities nullable floats, also where they are whole or absent."""
    record.append(tmp_path, trained(step_s=[0.5]))
    types = rank([tmp_path]).dtypes.astype(str)
    assert (
        types[["rank", "test_images", "images_per_s", "images_per_s_min"]].tolist() == ["Int64"] * 2 + ["Float64"] * 2
    )


def test_no_training_gives_an_empty_table_with_all_columns() -> None:
    """A leaderboard without records has all columns and no row."""
    table = leaderboard({})
    assert table.rows == ()
    assert "test_accuracy" in table.frame().columns


def test_summary_shares_out_the_time_since_the_start(trained: Trained) -> None:
    """The summary gives the shares of training and evaluation; failed tasks and other time are overhead."""
    measured = [once("train.seconds", 78.0), once("train.evaluation_seconds", 14.0)]
    failed = trained("nin", status="failed", error="x", measured=measured)
    assert summary([trained(measured=measured), failed], 390) == "training 20 %, evaluation 4 %, overhead 76 %"
    assert summary([failed], 390) == "no training ended well"


def test_summary_of_records_alone_is_of_the_tasks(trained: Trained) -> None:
    """Without the command's total time the shares are those of the tasks' time, failed ones included."""
    measured = [once("train.seconds", 78.0), once("train.evaluation_seconds", 14.0)]
    records = [trained(measured=measured), trained("nin", status="failed", error="x")]
    assert summary(records[:1]) == "training 78 %, evaluation 14 %, overhead 8 % of the tasks"
    assert summary(records) == "training 39 %, evaluation 7 %, overhead 54 % of the tasks"


SECONDS = {"nin": 0.01, "vgg": 0.02, "mlp": 0.04}


def sat(trained: Trained, sittings: dict[str, list[str | None]]) -> list[Record]:
    """Return repeats of networks, each network at its own speed, each repeat in the given sitting."""
    return [
        trained(model, repeat=repeat, step_s=[SECONDS[model] * (1 + repeat / 1000)]).model_copy(
            update={"sitting": sitting}
        )
        for model, of_model in sittings.items()
        for repeat, sitting in enumerate(of_model)
    ]


OLD, ONE, TWO = None, "2026-01-02T03:04:05.000000+00:00", "2026-01-03T03:04:05.000000+00:00"
SITTINGS: dict[str, tuple[dict[str, list[str | None]], list[str | None], set[str]]] = {
    "one": ({"nin": [ONE] * 4, "vgg": [ONE] * 4, "mlp": [ONE] * 4}, [None] * 3, {"nin"}),
    "not recorded": ({"nin": [OLD] * 4, "vgg": [OLD] * 4, "mlp": [OLD] * 4}, [None] * 3, {"nin"}),
    "resumed with another network": (
        {"nin": [TWO] * 4, "vgg": [ONE] * 4, "mlp": [ONE] * 4},
        ["2", "1", "1"],
        {"vgg"},
    ),
    "resumed by a version that records": (
        {"nin": [ONE] * 4, "vgg": [OLD] * 4, "mlp": [OLD] * 4},
        ["2", "1", "1"],
        {"vgg"},
    ),
    "interrupted": (
        {"nin": [ONE] * 4, "vgg": [ONE, ONE, ONE, TWO], "mlp": [ONE, ONE, ONE, TWO]},
        ["1", "1 1 1 2", "1 1 1 2"],
        {"vgg"},
    ),
    "more repeats of all": ({m: [ONE, ONE, TWO, TWO] for m in SECONDS}, ["1 1 2 2"] * 3, {"nin"}),
    "all apart": ({"nin": [ONE, ONE, ONE, TWO], "vgg": [ONE] * 4, "mlp": [TWO] * 4}, ["1 1 1 2", "1", "2"], set()),
}


@pytest.mark.parametrize(("sittings", "told", "stars"), SITTINGS.values(), ids=SITTINGS)
def test_speeds_are_marked_within_a_sitting(
    trained: Trained, sittings: dict[str, list[str | None]], told: list[str | None], stars: set[str]
) -> None:
    """Speeds are starred only among rows of equal sittings; rows give their sittings where these differ."""
    table = leaderboard({"suite/run": sat(trained, sittings)})
    assert {row.model: row.sitting for row in table.rows} == dict(zip(SECONDS, told, strict=True))
    (speed,) = (column for column in table.columns if column.name == "images_per_s")
    found = zip(table.rows, _readable.best(speed, table.rows), strict=True)
    assert {row.model for row, is_best in found if is_best} == stars
    assert ("sitting" in [column.name for column in table.columns]) == any(told)
    assert ("sitting" in [column.name for column in _readable.visible(table)]) == (len(set(told)) > 1)


def test_the_settings_that_tell_rows_of_one_label_apart_are_said(trained: Trained) -> None:
    """Rows of one run and network with unlike settings have a remark with these, in their order; equal ones none."""
    first, second, other = trained("mlp", accuracy=0.6), trained("mlp", accuracy=0.5, lr=0.1), trained("lenet", lr=0.3)
    of_one_run, of_two = {"a": [first, second, other]}, {"a": [first, other], "b": [second]}
    [group] = leaderboard(of_one_run).groups()
    lr = first.task.settings.get("lr", "none")
    assert _readable.remarks(group) == [f"mlp: rows differ in settings: lr {lr}; lr 0.1"]
    assert all(_readable.remarks(group) == [] for group in leaderboard(of_two).groups())


def test_the_notes_say_what_a_sitting_is(trained: Trained) -> None:
    """A note explains sittings only where a run has several."""
    for name, has_several in (("one", False), ("resumed with another network", True)):
        records = sat(trained, SITTINGS[name][0])
        notes = report_of_records({"suite/run": records}, {"suite/run": Path()}).notes
        assert any(note.startswith("sitting: ") for note in notes) == has_several


@pytest.mark.parametrize(
    "facts",
    [
        {"host": "shed"},
        {"cpu": "Another Processor"},
        {"processor": Processor(family="26", model="1", stepping="1", instruction_sets=("avx2",))},
        {"packages": {"torch": "2.10.0", "cnnperf": "0.1.0"}},
    ],
    ids=["host", "cpu", "processor", "torch"],
)
def test_repeats_of_unlike_places_are_rows_of_their_own(trained: Trained, on: Trained, facts: dict[str, Any]) -> None:
    """Repeats that a resumed run measured on another machine, or with another torch, are a row with its facts."""
    elsewhere = (on(trained(repeat=repeat, step_s=[0.001]), **facts) for repeat in (2, 3))
    one, other = sorted(rows_of([trained(), trained(repeat=1), *elsewhere]), key=lambda row: row["seed"])
    assert [(row["seed"], row["repeats"]) for row in (one, other)] == [(7, 2), (9, 2)]
    assert (one["images_per_s"], other["images_per_s"]) == pytest.approx((128 / 0.02, 128 / 0.001))
    machine = on(trained(), **facts).machine
    assert (other["host"], other["cpu"], other["cpu_model"]) == (machine.host, machine.cpu, machine.cpu_model)
    assert other["torch"] == machine.packages["torch"]


def test_a_repeat_that_never_reached_its_gpu_stays_in_its_row(trained: Trained, on: Trained) -> None:
    """A repeat whose process does not know its GPU is in the row of the others on that machine."""
    gpu = Gpu(name="NVIDIA A100", capability="8.0")
    ended = [on(trained(device="cuda", repeat=repeat), accelerator=gpu) for repeat in (0, 1)]
    (row,) = rows_of([trained(device="cuda", repeat=2, status="failed", error="no memory"), *ended])
    assert (row["status"], row["reason"], row["repeats"]) == ("ok 2/3", "no memory", 2)


def test_repeats_of_unlike_commits_share_a_row_that_says_so(trained: Trained, on: Trained) -> None:
    """Repeats of two commits of cnnperf are one row, and its reason names the commits."""
    (row,) = rows_of([on(trained(repeat=repeat), commit=commit) for repeat, commit in enumerate(("ab1", "cd2", "ab1"))])
    assert (row["status"], row["repeats"]) == ("ok", 3)
    assert row["reason"] == "repeats are of different versions of cnnperf: 0.1.0 ab1, 0.1.0 cd2"
    (alike,) = rows_of([on(trained(repeat=repeat), commit="ab1") for repeat in range(2)])
    assert alike["reason"] is None


@pytest.mark.parametrize("change", ["suite", "source", "timeout"])
def test_a_resumed_suite_of_another_name_adds_repeats(trained: Trained, change: str) -> None:
    """Repeats from a suite of another name, from another copy of the images or with another time limit are one row."""

    def changed(record: Record) -> Record:
        data = record.task.data
        assert data
        changes = {
            "suite": {"suite": "renamed"},
            "source": {"data": data.model_copy(update={"source": "a copy"})},
            "timeout": {"timeout_s": 1.0},
        }
        return record.model_copy(update={"task": record.task.model_copy(update=changes[change])})

    (row,) = rows_of([trained(), changed(trained(repeat=1))])
    assert row["repeats"] == 2


WAITED = "a thread waited for a core for 40.0 % of the time"


def waiting(record: Record, share: float) -> Record:
    """Return a training's record of which a thread waited for a core for this share of the time."""
    first, *others = record.measurements
    assert first.metric == "train.step_time"
    told = first.model_copy(update={"remarks": {"waited_share": share, "stolen_share": 0.0}})
    return record.model_copy(update={"measurements": (told, *others)})


def test_a_disturbed_row_has_no_rank_and_no_mark(trained: Trained) -> None:
    """A disturbed row follows the ranked ones, says why below its table, and is never the best of a column."""
    board = leaderboard(
        {
            "suite/run": (
                waiting(trained("vgg", accuracy=0.9, measured=[once("train.parameters", 10, "count")]), 0.4),
                waiting(trained("mlp", accuracy=0.6, measured=[once("train.parameters", 20, "count")]), 0.05),
                trained("nin", accuracy=0.5),
                trained("alexnet", status="failed", error="KeyError"),
            )
        }
    )
    assert [(row.model, row.rank, row.disturbed) for row in board.rows[:3]] == [
        ("mlp", 1, "no"),
        ("nin", 2, None),
        ("vgg", None, WAITED),
    ]
    columns = {column.name: column for column in board.columns}
    assert _readable.best(columns["test_accuracy"], board.rows) == [False] * 4
    assert _readable.best(columns["params"], board.rows) == [False] * 4
    assert _readable.footnotes(board) == [
        "† vgg: test accuracy: disturbed: fewer steps in the seconds of its training",
        f"† vgg: images/s: disturbed: {WAITED}",
    ]
    assert [row.model for row in board.sorted_by("images_per_s").rows[2:]] == ["vgg", "alexnet"]


def test_a_row_of_repeats_says_how_many_were_disturbed(trained: Trained) -> None:
    """One disturbed repeat makes the row disturbed; a repeat whose waits were not measured leaves it unknown."""
    for shares, said in (
        ((0.4, 0.0, 0.2), f"2 of 3 repeats: {WAITED}"),
        ((0.0, 0.01, 0.05), "no"),
        ((0.0, None, 0.0), None),
        ((0.4, None), f"1 of 2 repeats: {WAITED}"),
    ):
        repeats = [trained(repeat=i) for i, _ in enumerate(shares)]
        told = [r if share is None else waiting(r, share) for r, share in zip(repeats, shares, strict=True)]
        (row,) = rows_of(told)
        assert row["disturbed"] == said


def test_a_training_of_a_number_of_steps_keeps_its_accuracy(trained: Trained) -> None:
    """A disturbed training that was not limited in seconds has the accuracy of an undisturbed one."""
    (row,) = rows_of([waiting(trained(seconds=None, steps=100), 0.4)])
    assert (row["disturbed"], row["accuracy_flag"]) == (WAITED, None)


@pytest.mark.parametrize(("accuracy", "is_flagged"), [(0.095, True), (0.115, True), (0.02, True), (0.125, False)])
def test_an_accuracy_no_better_than_chance_is_flagged(trained: Trained, accuracy: float, is_flagged: bool) -> None:
    """An accuracy whose interval holds 1 of 10 classes, or lies below, has a footnote and keeps its rank."""
    board = leaderboard({"suite/run": (trained(accuracy=accuracy, n=1000),)})
    notes = ["† lenet: test accuracy: no better than chance, which is 1 in 10"] if is_flagged else []
    assert _readable.footnotes(board) == notes
    assert board.rows[0].rank == 1


def test_a_report_with_a_disturbed_row_says_what_that_is(tmp_path: Path, trained: Trained) -> None:
    """The notes explain the mark of a disturbed row, and only where there is one."""
    for share in (0.0, 0.4):
        report = report_of_records({"suite/run": (waiting(trained(), share),)}, {"suite/run": tmp_path})
        assert any(note.startswith("† disturbed: ") for note in report.notes) == (share > 0)
