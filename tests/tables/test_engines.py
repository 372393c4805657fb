"""The table of engines: speed-ups from pairs, the best engine, the Pareto front, and engines without a rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from cnnperf.errors import UsageError
from cnnperf.record import Measurement, Record, single
from cnnperf.reports import _readable
from cnnperf.reports._sections import tradeoffs
from cnnperf.tables.engine_row import BestEngine, EngineRow
from cnnperf.tables.engines import ENGINE_GROUP, best_engines, engine_notes, engine_table, is_undecided
from cnnperf.tables.leaderboard import leaderboard
from cnnperf.tables.report import report_of_records
from cnnperf.tables.table import Column, Report

Trained = Callable[..., Record]
Engine = Callable[..., Record]


def reading(record: Record, training: Record) -> Record:
    """Return an engine's record whose weights are those of a training."""
    task = record.task.model_copy(update={"needs": (training.key,)})
    return record.model_copy(update={"task": task, "key": task.key})


def rows_of(*records: Record) -> dict[str, EngineRow]:
    """Return the rows of one run by engine."""
    return {row["engine"]: row for row in engine_table({"suite/run": records}).rows}


def test_six_pairs_give_an_interval_and_a_best_engine(engine: Engine) -> None:
    """With six pairs the speed-up's 95 % interval is the range of their ratios, and the faster engine is best."""
    ratios = [1.9, 2.0, 2.1, 2.0, 1.95, 2.05]
    rows = rows_of(engine("torch", [0.026] * 3), engine("onnxruntime", [0.013] * 3, ratios))
    found = rows["onnxruntime"]
    assert found["speedup"] == pytest.approx(2.0, rel=0.01)
    assert (found["speedup_low"], found["speedup_high"]) == pytest.approx((1.9, 2.1))
    assert (found["speedup_pairing"], found["best"]) == ("paired", "yes")
    assert (rows["torch"]["speedup"], rows["torch"]["best"]) == (1.0, None)
    assert found["images_per_s"] == pytest.approx(8 / 0.013)


def test_what_an_edited_suite_changed_is_a_row_of_its_own(engine: Engine, trained: Trained) -> None:
    """Engines of another training have separate rows, and are compared only with each other."""
    steady = [1.9, 2.0, 2.1, 2.0, 1.95, 2.05]
    records: list[Record] = []
    for steps, torch_s, other_s in ((100, 0.02, 0.010), (200, 0.06, 0.030)):
        training = trained(seconds=None, steps=steps)
        for name, latency, ratios in (("torch", torch_s, ()), ("onnxruntime", other_s, steady)):
            of_engine = (engine(name, [latency] * 3, ratios, repeat=repeat) for repeat in (0, 1))
            records += [reading(each, training) for each in of_engine]
        records.append(training)
    rows = engine_table({"suite/run": records}).rows
    assert [(row["engine"], row["budget"], row["latency_s"], row["repeats"]) for row in rows] == [
        ("torch", "100 steps", 0.02, 2),
        ("onnxruntime", "100 steps", 0.010, 2),
        ("torch", "200 steps", 0.06, 2),
        ("onnxruntime", "200 steps", 0.030, 2),
    ]
    assert [row["speedup_flags"] for row in rows] == [None] * 4
    assert [row["best"] for row in rows] == [None, "yes", None, "yes"]


def test_engines_of_other_settings_are_no_rivals(engine: Engine, trained: Trained) -> None:
    """Engines of one training under other settings are compared with torch under these settings."""
    training = trained()
    records = [training]
    for drop, torch_s in ((0.02, 0.02), (0.05, 0.06)):
        for name, latency in (("torch", torch_s), ("onnxruntime", 0.01)):
            made = reading(engine(name, [latency] * 3), training)
            task = made.task.model_copy(update={"settings": {**made.task.settings, "max_accuracy_drop": drop}})
            records.append(made.model_copy(update={"task": task, "key": task.key}))
    rows = engine_table({"suite/run": records}).rows
    assert [row["speedup"] for row in rows] == pytest.approx([1.0, 2.0, 1.0, 6.0])


def test_an_interval_that_holds_one_makes_no_engine_best(engine: Engine) -> None:
    """No engine is best where the interval of the speed-up contains 1."""
    ratios = [1.02, 0.99, 1.01, 0.98, 1.03, 1.0]
    rows = rows_of(engine("torch", [0.02] * 3), engine("onnxruntime", [0.02] * 3, ratios))
    assert rows["onnxruntime"]["speedup_low"] < 1 < rows["onnxruntime"]["speedup_high"]
    assert {row["best"] for row in rows.values()} == {None}


def test_the_best_engine_is_proved_faster_than_the_next(engine: Engine) -> None:
    """The faster of two engines that beat torch is best only where their intervals are disjoint."""
    steady = [1.9, 2.0, 2.1, 2.0, 1.95, 2.05]
    near, far = [each - 0.1 for each in steady], [each - 0.5 for each in steady]
    for second, best in ((near, None), (far, "yes")):
        rows = rows_of(
            engine("torch", [0.02] * 3),
            engine("onnxruntime", [0.010] * 3, steady),
            engine("torch_compile", [0.02 / median(second)] * 3, second),
        )
        assert {row["speedup_flags"] for row in rows.values()} == {None}
        assert (rows["onnxruntime"]["best"], rows["torch_compile"]["best"]) == (best, None)


def test_torch_itself_is_best_where_all_others_are_proved_slower(engine: Engine) -> None:
    """Torch is best where the intervals of all other speed-ups lie below 1."""
    slower = [0.9, 0.8, 0.85, 0.8, 0.9, 0.7]
    rows = rows_of(engine("torch", [0.02] * 3), engine("onnxruntime", [0.025] * 3, slower))
    assert (rows["torch"]["best"], rows["onnxruntime"]["best"]) == ("yes", None)


def test_pairs_give_an_interval_without_a_row_of_torch(engine: Engine) -> None:
    """A speed-up from pairs needs no row of torch, and its engine is not best."""
    (row,) = rows_of(engine("onnxruntime", [0.013] * 3, [1.9, 2.0, 2.1, 2.0, 1.95, 2.05])).values()
    assert (row["speedup_pairing"], row["best"]) == ("paired", None)


def test_the_engines_of_an_onnx_file_are_compared_with_onnxruntime(engine: Engine) -> None:
    """Without torch the speed-ups of an ONNX file are over onnxruntime."""
    records = [
        engine(name, [s] * 3, model="some.onnx") for name, s in (("onnxruntime", 0.02), ("onnxruntime_int8", 0.01))
    ]
    rows = rows_of(*records)
    assert (rows["onnxruntime"]["speedup"], rows["onnxruntime_int8"]["speedup"]) == (1.0, pytest.approx(2.0))


def of_sizes(engine: Engine, calls: dict[int, Sequence[float]]) -> Record:
    """Make one record with these latencies by batch size."""
    records = [engine("torch", each, batch_size=size) for size, each in calls.items()]
    return records[0].model_copy(update={"measurements": tuple(m for r in records for m in r.measurements)})


def test_scenarios_are_those_of_mlperf(engine: Engine) -> None:
    """Single stream is batch 1 with enough calls for a p90; offline has the highest total throughput.

    One call of the batch of 32 took 100 times as long as the others: its median hides that, the total does not.
    """
    calls = {1: [0.001] * 64, 8: [0.004] * 64, 32: [0.010] * 63 + [1.0]}
    rows = engine_table({"suite/run": (of_sizes(engine, calls),)}).rows
    assert [row["scenario"] for row in rows] == ["single_stream", "offline", None]
    assert rows[2]["images_per_s"] > rows[1]["images_per_s"]
    assert rows[2]["total_images_per_s"] == pytest.approx(32 * 64 / 1.63)
    assert rows[0]["latency_p90_s"] == pytest.approx(0.001)
    few, only = (engine_table({"suite/run": (of_sizes(engine, {1: [0.001] * n}),)}).rows[0] for n in (63, 64))
    assert (few["scenario"], only["scenario"]) == ("offline", "single_stream offline")


def test_an_engine_that_ended_before_its_accuracy_is_not_ranked(engine: Engine) -> None:
    """An engine that failed before its accuracy was measured has no parity and is not on the front."""
    rows = rows_of(engine("torch", [0.02] * 3), engine("onnxruntime", [0.01] * 3, accuracy=None, error="not finite"))
    assert (rows["onnxruntime"]["parity"], rows["onnxruntime"]["pareto"]) == (None, None)


def test_what_a_speed_up_stands_on_has_three_words(engine: Engine) -> None:
    """A speed-up is called "paired" with six pairs, "few pairs" with one to five, and "separate" without any."""
    for ratios, word in (([1.5] * 6, "paired"), ([1.5] * 5, "few pairs"), ([1.5], "few pairs"), ((), "separate")):
        rows = rows_of(engine("torch", [0.03] * 3), engine("onnxruntime", [0.02] * 3, ratios))
        assert rows["onnxruntime"]["speedup_pairing"] == word
        assert rows["torch"]["speedup_pairing"] is None


def test_few_pairs_prove_nothing(engine: Engine) -> None:
    """A speed-up from five pairs has no interval, and its engine is neither best nor on the front."""
    rows = rows_of(engine("torch", [0.02] * 3), engine("onnxruntime", [0.025] * 3, [1.5] * 5))
    found = rows["onnxruntime"]
    assert (found["speedup"], found["speedup_pairs"]) == (pytest.approx(1.5), 5)
    assert (found["speedup_low"], found["best"], found["pareto"]) == (None, None, None)


def test_no_engine_is_best_for_its_separate_latencies(engine: Engine) -> None:
    """No engine is best by separate latencies, nor where a rival has only separate latencies."""

    def repeats(name: str, *latencies: float) -> list[Record]:
        return [engine(name, [latency] * 3, repeat=i) for i, latency in enumerate(latencies)]

    rows = rows_of(*repeats("torch", 0.02, 0.03), *repeats("onnxruntime", 0.01, 0.01))
    assert {row["best"] for row in rows.values()} == {None}
    fast = engine("onnxruntime", [0.01] * 3, [2.0] * 6)
    rows = rows_of(engine("torch", [0.02] * 3), fast, engine("torch_compile", [0.015] * 3))
    assert {row["best"] for row in rows.values()} == {None}


STEADY = [1.9, 2.0, 2.1, 2.0, 1.95, 2.05]


@pytest.mark.parametrize(
    ("torch_s", "ratios", "flags"),
    [
        (0.020, STEADY, None),
        (0.0225, STEADY, None),
        (0.0240, STEADY, "disagrees with separate latencies"),
        (0.020, [1.2, 1.22, 1.18, 2.4, 2.43, 2.38], "bimodal"),
        (0.130, [1.2, 1.22, 1.18, 2.4, 2.43, 2.38], "bimodal, disagrees with separate latencies"),
        (0.0258, [1.76, 2.36, 2.43, 2.45, 2.50, 2.55], None),
        (0.0186, [1.13, 1.15, 1.17, 1.90, 1.94, 1.96], "bimodal"),
        (0.020, [1.99, 2.0, 2.0, 2.04, 2.04, 2.04], None),
        (0.020, [2.0, 2.0, 2.02, 2.01, 2.0, 1.2], None),
    ],
    ids=[
        *("agrees", "within the spread", "disagrees", "two modes", "both", "resnet 32", "vgg 1"),
        *("modes 2 % apart", "one odd pair"),
    ],
)
def test_a_speed_up_that_is_not_what_it_seems_is_flagged(
    engine: Engine, torch_s: float, ratios: list[float], flags: str | None
) -> None:
    """A speed-up is flagged if its pairs are bimodal, or far from the ratio of separate latencies.

    Far is what two further processes like those of the pairs would not give: here more than 15 % from 2.
    """
    rows = rows_of(engine("torch", [torch_s] * 3), engine("onnxruntime", [0.010] * 3, ratios))
    assert (rows["onnxruntime"]["speedup_flags"], rows["torch"]["speedup_flags"]) == (flags, None)
    (column,) = [column for column in EngineRow.columns() if column.name == "speedup"]
    assert (rows["onnxruntime"]["best"] == "yes") == (flags is None)
    assert (rows["onnxruntime"]["pareto"] == "yes") == (flags is None)
    assert _readable.best(column, [*rows.values()]) == [False, flags is None]


def test_pairs_whose_samples_have_two_modes_are_flagged(engine: Engine) -> None:
    """Bimodal samples within two or more of six pairs flag the speed-up."""
    random = np.random.default_rng(1)
    steady = [2 + 0.02 * random.normal(size=30) for _ in range(6)]
    torn = [np.where(np.arange(30) % 5 < 2, each / 2, each) for each in steady]
    for divided, flags in ((0, None), (1, None), (2, "bimodal"), (6, "bimodal")):
        samples = [*torn[:divided], *steady[divided:]]
        pairs = [float(np.median(each)) for each in samples]
        rows = rows_of(engine("torch", [0.02]), engine("onnxruntime", [0.01], pairs, samples=samples))
        assert rows["onnxruntime"]["speedup_flags"] in (flags, f"{flags}, disagrees with separate latencies"), divided


@pytest.mark.parametrize(
    ("layers", "share"), [((0.0006, 0.0005), 1.1), ((0.0006, 0.0008), 1.4), ((0.0004,), 0.4), ((), None)]
)
def test_layers_that_do_not_add_up_to_the_latency_are_flagged(
    engine: Engine, layers: tuple[float, ...], share: float | None
) -> None:
    """A sum of layers far from the latency at the same batch size is flagged."""
    times = [
        Measurement(
            metric="infer.node_time",
            unit="s",
            better="lower",
            values=(s,) * 3,
            tags={"batch_size": 32, "layer": str(n)},
        )
        for n, s in enumerate(layers)
    ]
    for batch_size, wanted in ((1, None), (32, share)):
        found = engine("onnxruntime", [0.001] * 3, batch_size=batch_size)
        row = rows_of(found.model_copy(update={"measurements": (*found.measurements, *times)}))["onnxruntime"]
        assert row["layers_share"] == (wanted and pytest.approx(wanted))
        assert bool(row["layers_flag"]) == (wanted in (1.4, 0.4))


def test_the_mark_of_doubt_has_its_footnote(engine: Engine) -> None:
    """A flagged speed-up has a mark in its cell and a footnote with engine, batch size and reason."""
    table = engine_table({"suite/run": (engine("torch", [0.03]), engine("onnxruntime", [0.010], STEADY))})
    (column,) = [column for column in EngineRow.columns() if column.name == "speedup"]
    cells = [_readable.cell_text(column, row) for row in table.rows]
    assert cells == ["1.00", "2.00 [1.90–2.10] †"]
    assert _readable.footnotes(table) == ["† lenet onnxruntime batch 8: speed-up: disagrees with separate latencies"]
    several = replace(table, rows=(*table.rows, replace(table.rows[0], run="other/run")))
    assert _readable.footnotes(several)[0].startswith("† suite/run lenet onnxruntime batch 8: speed-up: ")


def test_an_engine_is_best_only_above_what_a_doubtful_one_may_reach(engine: Engine) -> None:
    """An engine is best only if its interval exceeds both figures of a flagged rival."""
    for separate, best in ((1.8, "yes"), (2.5, None)):
        doubtful = engine("torch_compile", [0.02 / separate], [1.5, 1.49, 1.51, 1.5, 1.52, 1.48])
        rows = rows_of(engine("torch", [0.02]), engine("onnxruntime", [0.01], STEADY), doubtful)
        assert rows["torch_compile"]["speedup_flags"] == "disagrees with separate latencies"
        assert (rows["onnxruntime"]["best"], rows["torch_compile"]["best"]) == (best, None)


def test_no_engine_is_best_before_all_that_were_asked_for_have_a_record(engine: Engine) -> None:
    """No engine is best while a requested engine has no record, which may be the fastest."""
    names = ("torch", "onnxruntime", "onnxruntime_int8")
    asked = [{"name": name} for name in names]
    slow = [0.7, 0.71, 0.69, 0.7, 0.72, 0.68]
    made = [
        engine(name, [latency], ratios, engines=asked)
        for name, latency, ratios in zip(names, (0.02, 0.01, 0.02 / 0.7), ((), STEADY, slow), strict=True)
    ]
    rows = rows_of(*made)
    assert {name: rows[name]["best"] for name in names} == dict.fromkeys(names) | {"onnxruntime": "yes"}
    assert {name: rows[name]["pareto"] for name in names} == dict.fromkeys(names, "no") | {"onnxruntime": "yes"}
    rows = rows_of(*made[:2])
    assert [(row["best"], row["pareto"]) for row in rows.values()] == [(None, "no"), (None, None)]
    skipped = made[2].model_copy(update={"status": "skipped", "error": "not installed", "measurements": ()})
    assert rows_of(*made[:2], skipped)["onnxruntime"]["best"] == "yes"


def test_pairs_that_were_never_steady_are_flagged(engine: Engine) -> None:
    """More than a quarter of unsteady pairs flags the speed-up, and excludes the engine from best and front."""
    made = [engine("onnxruntime", [0.010], STEADY, repeat=i) for i in range(2)]
    quarter = rows_of(engine("torch", [0.02]), unsteady(made[0], 2), unsteady(made[1], 1))["onnxruntime"]
    assert (quarter["speedup_flags"], quarter["best"]) == (None, "yes")
    rows = rows_of(engine("torch", [0.02]), *(unsteady(each, 2) for each in made))
    found = rows["onnxruntime"]
    assert found["speedup_flags"] == "4 of 12 pairs not steady"
    assert (found["best"], found["pareto"]) == (None, None)
    assert rows_of(engine("torch", [0.02]), *made)["onnxruntime"]["best"] == "yes"
    table = engine_table({"suite/run": (engine("torch", [0.02]), *(unsteady(each, 2) for each in made))})
    assert _readable.footnotes(table) == ["† lenet onnxruntime batch 8: speed-up: 4 of 12 pairs not steady"]


def unsteady(record: Record, pairs: int) -> Record:
    """Return an engine's record with this number of unsteady pairs."""
    changed = (
        m.model_copy(update={"remarks": {**m.remarks, "unsteady_pairs": pairs}}) if m.metric == "infer.speedup" else m
        for m in record.measurements
    )
    return record.model_copy(update={"measurements": tuple(changed)})


def test_the_title_says_that_its_budget_is_the_training_s(engine: Engine, trained: Trained) -> None:
    """The title of the table of engines says that the budget is the training's."""
    training = trained(seconds=8.0)
    records = {"suite/run": (training, reading(engine("torch", [0.02]), training))}
    assert " · trained for 8 s · " in _readable.title(engine_table(records))
    assert " · 8 s · " in _readable.title(leaderboard(records))
    alone = {"suite/run": (engine("torch", [0.02]),)}
    assert "trained" not in _readable.title(engine_table(alone))


def test_failed_parity_is_shown_and_not_ranked(engine: Engine) -> None:
    """An engine that failed parity is shown with its latency, and is neither best nor on the front."""
    broken = engine("onnxruntime", [0.01] * 3, [2.0] * 6, error="its logits lie elsewhere", fault=True)
    rows = rows_of(engine("torch", [0.02] * 3), broken)
    found = rows["onnxruntime"]
    assert (found["parity"], found["status"], found["best"], found["pareto"]) == ("failed", "failed", None, None)
    assert found["latency_s"] == 0.01
    assert rows["torch"]["pareto"] is None, "it has no rival left"


def test_the_words_of_an_error_decide_no_parity(engine: Engine) -> None:
    """The measurement decides the parity, not the text of the error."""
    rows = rows_of(
        engine("torch", [0.02] * 3, error="parity failed"),
        engine("onnxruntime", [0.01] * 3, accuracy=None, error="parity failed"),
    )
    assert (rows["torch"]["parity"], rows["onnxruntime"]["parity"]) == ("ok", None)


def test_an_engine_that_failed_after_its_parity_is_not_ranked(engine: Engine) -> None:
    """An engine that failed after its parity is neither best nor on the front, and gets no star."""
    foreign = engine("onnxruntime", [0.01] * 3, [2.0] * 6, error="asked for CUDA, and the CPU ran the node conv1")
    rows = rows_of(engine("torch", [0.02] * 3), foreign)
    assert [rows["onnxruntime"][name] for name in ("best", "pareto")] == [None, None]
    columns = [column for column in EngineRow.columns() if column.better]
    assert not any(_readable.best(column, [*rows.values()])[1] for column in columns)


def test_what_failed_parity_is_never_marked_the_best_of_a_column(engine: Engine) -> None:
    """An engine that failed parity gets no star, and is no rival of the other engines."""
    broken = engine("onnxruntime", [0.01] * 3, [2.0] * 6, error="its logits lie elsewhere", fault=True)
    rows = engine_table({"suite/run": (engine("torch", [0.02] * 3), engine("torch_compile", [0.03] * 3), broken)}).rows
    of_size = [replace(row, file_bytes=size) for row, size in zip(rows, (2, 1, 3), strict=True)]
    assert _readable.best(Column("file_bytes", unit="count", better="higher"), of_size) == [True, False, False]


def marks(column: str, *records: Record) -> list[bool]:
    """Return which rows of the table of engines are starred in one column."""
    (found,) = [each for each in EngineRow.columns() if each.name == column]
    return _readable.best(found, engine_table({"suite/run": records}).rows)


def test_speeds_are_marked_from_four_repeats_on_beside_paired_speed_ups(engine: Engine) -> None:
    """The fastest engine is starred only from four repeats on, and only if all engines have a paired speed-up."""

    def repeats(name: str, latency: float, n: int, pairs: int = 6) -> list[Record]:
        ratios = [0.02 / latency] * (0 if name == "torch" else pairs)
        return [engine(name, [latency * (1 + i / 100)] * 3, ratios, repeat=i) for i in range(n)]

    for n, expected in ((1, [False, False]), (3, [False, False]), (4, [False, True])):
        assert marks("images_per_s", *repeats("torch", 0.02, n), *repeats("onnxruntime", 0.01, n)) == expected
    assert marks("images_per_s", *repeats("torch", 0.0102, 4), *repeats("onnxruntime", 0.01, 4)) == [False] * 2
    for latency in (0.01, 0.04):  # Faster than torch, and slower: without pairs neither has a mark.
        unpaired = repeats("onnxruntime", latency, 4, pairs=0)
        assert marks("images_per_s", *repeats("torch", 0.02, 4), *unpaired) == [False, False]


def test_accuracies_are_marked_with_all_that_their_interval_reaches(engine: Engine) -> None:
    """All accuracies whose intervals overlap the best one are starred, unless all rows overlap."""
    accuracies = {"torch": 0.40, "onnxruntime": 0.469, "onnxruntime_int8": 0.476}
    records = [engine(name, [0.02], accuracy=accuracy) for name, accuracy in accuracies.items()]
    assert marks("test_accuracy", *records) == [False, True, True]
    assert marks("test_accuracy", *records[1:]) == [False, False], "nothing is told apart"
    row = rows_of(engine("torch", [0.02], accuracy=0.469))["torch"]
    assert (row["test_accuracy_low"], row["test_accuracy_high"]) == pytest.approx((0.438, 0.500), abs=5e-4)


def test_accuracy_is_the_mean_over_repeats_with_the_interval_of_one_test(engine: Engine) -> None:
    """The accuracy is the mean over repeats, and its interval is that of the smallest test."""
    figures = ((0.40, 1000), (0.42, 1000), (0.50, 500))
    records = []
    for i, (accuracy, n) in enumerate(figures):
        made = engine("torch", [0.02], accuracy=accuracy, n=n, repeat=i)
        agreement = single("infer.top1_agreement", "fraction", (0.9, 0.9, 0.6)[i], "higher")
        records.append(made.model_copy(update={"measurements": (*made.measurements, agreement)}))
    row = rows_of(*records)["torch"]
    assert (row["test_accuracy"], row["top1_agreement"]) == (pytest.approx(0.44), pytest.approx(0.8))
    assert (row["test_accuracy_low"], row["test_accuracy_high"]) == pytest.approx((0.397, 0.484), abs=5e-4)
    assert row["test_images"] == 500
    assert row["reason"] == "repeats were tested on 500 to 1,000 images; the interval is that of the fewest"


def test_latencies_have_their_quartiles_and_the_range_of_repeats(engine: Engine) -> None:
    """A latency has the quartiles of all calls, and a range only over several repeats."""
    row = rows_of(engine("torch", [0.01, 0.02, 0.03, 0.04, 0.05]))["torch"]
    names = ("latency_q25_s", "latency_s", "latency_q75_s", "latency_min_s", "latency_max_s", "images_per_s_min")
    assert [row[name] for name in names] == [pytest.approx(s) for s in (0.02, 0.03, 0.04)] + [None] * 3
    row = rows_of(*(engine("torch", [s] * 3, repeat=i) for i, s in enumerate((0.01, 0.02))))["torch"]
    assert (row["latency_min_s"], row["latency_max_s"]) == (0.01, 0.02)
    assert (row["images_per_s_min"], row["images_per_s_max"]) == (400, 800)


def test_repeats_are_those_that_hold_the_latency(engine: Engine) -> None:
    """The number of repeats counts those with a latency, and is None without any."""
    timed = [engine("torch", [0.02] * 3, repeat=i) for i in range(2)]
    failed = engine("torch", [0.02] * 3, repeat=2, error="boom").model_copy(update={"measurements": ()})
    row = rows_of(*timed, failed)["torch"]
    assert (row["repeats"], row["status"], row["latency_s"]) == (2, "ok 2/3", 0.02)
    assert rows_of(failed)["torch"]["repeats"] is None


def test_the_front_holds_what_no_other_engine_is_proved_to_beat(engine: Engine) -> None:
    """A slower engine is off the front if it is no more accurate, and on it if it is surely more accurate."""
    slow = [0.7, 0.71, 0.69, 0.7, 0.72, 0.68]
    rows = rows_of(
        engine("torch", [0.02] * 3, accuracy=0.6),
        engine("onnxruntime", [0.01] * 3, STEADY, accuracy=0.5),
        engine("onnxruntime_int8", [0.02 / 0.7] * 3, slow, accuracy=0.55),
    )
    assert [rows[name]["pareto"] for name in ("torch", "onnxruntime", "onnxruntime_int8")] == ["yes", "yes", "no"]


def test_no_front_is_drawn_from_noise(engine: Engine) -> None:
    """A difference in accuracy or speed within its interval does not decide the front."""
    even = [1.02, 0.99, 1.01, 0.98, 1.03, 1.0]
    torch = engine("torch", [0.02] * 3, accuracy=0.476)
    rows = rows_of(torch, engine("onnxruntime", [0.02] * 3, even, accuracy=0.469))
    assert [row["pareto"] for row in rows.values()] == ["yes", "yes"]
    rows = rows_of(torch, engine("onnxruntime", [0.01] * 3, STEADY, accuracy=0.469))
    assert [row["pareto"] for row in rows.values()] == ["no", "yes"]


def test_without_pairs_there_is_no_front(engine: Engine) -> None:
    """Without pairs there is no front, neither between engines nor between networks."""
    records = [engine("torch", [0.02]), engine("onnxruntime", [0.01]), engine("torch", [0.001], model="mlp")]
    assert {row["pareto"] for row in engine_table({"suite/run": records}).rows} == {None}


def test_all_networks_of_a_dataset_and_device_share_a_table(engine: Engine, trained: Trained) -> None:
    """Networks share a table, also if trained for different budgets, which is then a column and not in the title."""
    training = trained(seconds=8.0)
    short = [reading(engine("torch", [0.02], model=model), training) for model in ("nin", "mlp")]
    long = engine("torch", [0.01], model="vgg")
    other = engine("torch", [0.02], dataset="mnist")
    groups = engine_table({"suite/run": (training, *short, other)}).groups()
    assert [[row.model for row in group.rows] for group in groups] == [["nin", "mlp"], ["lenet"]]
    assert "trained for 8 s" in _readable.title(groups[0])
    assert "budget" not in [column.name for column in _readable.visible(groups[0])]
    training_of_long = trained(seconds=60.0)
    [group] = engine_table(
        {"suite/run": (training, training_of_long, *short, reading(long, training_of_long))}
    ).groups()
    assert [row.model for row in group.rows] == ["nin", "mlp", "vgg"]
    assert "trained for" not in _readable.title(group)
    assert "budget" in [column.name for column in _readable.visible(group)]


def test_the_table_of_engines_is_sorted_by_its_columns(engine: Engine, trained: Trained) -> None:
    """A report sorted by latency begins with the table of engines, the fastest of all networks first."""
    training = trained()
    latencies = {"nin": 0.03, "mlp": 0.01, "vgg": 0.02}
    records = {"suite/run": (training, *(engine("torch", [s], model=model) for model, s in latencies.items()))}
    folders = {"suite/run": Path("suite/run")}
    tables = report_of_records(records, folders, "latency_s").tables
    assert [table.name for table in tables[:3]] == ["engines", "leaderboard", "curves"]
    assert [row.model for row in tables[0].rows] == ["mlp", "vgg", "nin"]
    assert report_of_records(records, folders, "test_accuracy").tables[0].name == "leaderboard"
    assert [table.name for table in report_of_records(records, folders).tables[:3]] == [
        "leaderboard",
        "curves",
        "engines",
    ]
    with pytest.raises(UsageError, match="`by`: unknown column 'latency'; did you mean 'latency_s'"):
        report_of_records(records, folders, "latency")
    with pytest.raises(UsageError, match="unknown column 'step'"):
        report_of_records(records, folders, "step")


def test_a_speed_up_is_starred_among_the_engines_of_its_network(engine: Engine) -> None:
    """A higher speed-up of another network, over its own baseline, takes no star from this network's engine."""
    far = [each + 5 for each in STEADY]
    records = [
        *(engine("torch", [0.02]), engine("onnxruntime", [0.01], STEADY)),
        *(engine("torch", [0.07], model="nin"), engine("onnxruntime", [0.01], far, model="nin")),
    ]
    assert marks("speedup", *records) == [False, True, False, True]


def test_an_accuracy_is_starred_among_those_of_its_budget(engine: Engine, trained: Trained) -> None:
    """The most accurate network of each budget is starred."""
    records: list[Record] = []
    for seconds, accuracies in ((8.0, (0.4, 0.6)), (60.0, (0.7, 0.9))):
        training = trained(seconds=seconds)
        networks = zip(("nin", "mlp"), accuracies, strict=True)
        made = [reading(engine("torch", [0.02], model=model, accuracy=share), training) for model, share in networks]
        records += [training, *made]
    assert marks("test_accuracy", *records) == [False, True, False, True]


def test_unlike_machines_are_in_no_group_and_no_plot_together(
    engine: Engine, on: Trained, unlike_hardware: tuple[str, dict[str, Any], dict[str, Any]]
) -> None:
    """Machines with one name and unlike hardware have separate groups and plots."""
    device, facts, others = unlike_hardware
    first, second = (engine("torch", [0.02], model=model, device=device) for model in ("nin", "mlp"))
    for machine, groups in ((facts, 1), (others, 2)):
        rows = engine_table({"suite/run": (on(first, **facts), on(second, **machine))}).rows
        assert len({tuple(row.trait(name) for name in ENGINE_GROUP) for row in rows}) == groups


def test_engines_that_were_to_wait_otherwise_are_in_no_group_and_no_plot_together(engine: Engine) -> None:
    """The requested way of waiting divides groups and plots; the engine's actual way does not."""

    def waiting(record: Record, asked: str, own: str) -> Record:
        task = record.task.model_copy(update={"waiting": asked})
        told = single("infer.threads", "count", 1, None, {"waiting": own})
        return record.model_copy(update={"task": task, "key": task.key, "measurements": (*record.measurements, told)})

    torch, other = engine("torch", [0.02]), engine("onnxruntime", [0.01])
    records = [waiting(torch, "brief", "brief"), waiting(other, "brief", "passive"), waiting(torch, "spin", "spin")]
    table = engine_table({"suite/run": records})
    assert [[row.engine for row in group.rows] for group in table.groups()] == [["torch", "onnxruntime"], ["torch"]]
    assert ["waiting spin" in _readable.title(group) for group in table.groups()] == [False, True]
    assert "passive" not in _readable.title(replace(table, rows=table.rows[1:2]))
    assert [len(chart.charts) for chart in tradeoffs(Report((table,), ()))] == [1, 1]


def test_logits_are_told_from_torch_s_by_their_largest_difference(engine: Engine) -> None:
    """Each difference of the logits is the largest over the batch sizes."""
    figures = {
        "max_difference": (3e-5, 2e-5),
        "relative_difference": (3e-6, 2e-6),
        "max_error_to_float64": (5e-5, 4e-5),
        "torch_error_to_float64": (2e-7, 1e-7),
    }
    record = engine("onnxruntime", [0.01] * 3)
    more = tuple(
        Measurement(metric=f"infer.{name}", unit="1", better="lower", values=(value,), tags={"batch_size": batch_size})
        for name, values in figures.items()
        for batch_size, value in enumerate(values, 1)
    )
    record = record.model_copy(update={"measurements": record.measurements + more})
    found = rows_of(record)["onnxruntime"]
    assert {name: found[name] for name in figures} == {name: max(values) for name, values in figures.items()}
    assert rows_of(engine("torch", [0.02] * 3))["torch"]["max_error_to_float64"] is None


def counted(record: Record, lost: int, gained: int, images: int, *, is_exact: bool = False) -> Record:
    """Add the images that only one side has right; an exact engine has a count of other classes too."""
    counts = {"right_in_torch_only": lost, "right_in_engine_only": gained}
    counts |= {"class_disagreements": 0} if is_exact else {}
    more = tuple(single(f"infer.{name}", "count", count, None, {"n": images}) for name, count in counts.items())
    return record.model_copy(update={"measurements": record.measurements + more})


@pytest.mark.parametrize(
    ("lost", "gained", "images", "parity"), [(33, 27, 2000, "ok"), (30, 12, 1000, "undecided"), (70, 4, 2000, "failed")]
)
def test_an_engine_of_another_precision_is_ranked_where_its_drop_is_within_the_limit(
    engine: Engine, lost: int, gained: int, images: int, parity: str
) -> None:
    """The interval of the drop in accuracy decides parity; an undecided one gets the images needed."""
    rows = rows_of(
        engine("torch", [0.02] * 3), counted(engine("onnxruntime_int8", [0.01] * 3, [2.0] * 6), lost, gained, images)
    )
    found = rows["onnxruntime_int8"]
    assert found["parity"] == parity
    assert found["accuracy_drop_low"] < (lost - gained) / images < found["accuracy_drop_high"]
    assert (found["right_in_torch_only"], found["right_in_engine_only"]) == (lost, gained)
    assert (found["best"], found["pareto"]) == (("yes", "yes") if parity == "ok" else (None, None))
    assert (found["images_to_decide"] is not None) == (parity == "undecided")
    if parity == "undecided":
        words = f"about {found['images_to_decide']:,} would decide (test_images)"
        assert found["reason"].startswith("parity undecided: on 1,000 test images the accuracy drops by 0.")
        assert words in found["reason"]


def test_a_remark_names_the_engine_and_the_batch_size(engine: Engine) -> None:
    """A remark names the engine and the batch size of its row."""
    undecided = counted(engine("onnxruntime_int8", [0.01] * 3), 30, 12, 1000)
    failed = engine("onnxruntime", [0.01] * 3, batch_size=64, error="it computes something else")
    told = _readable.remarks(engine_table({"suite/run": (undecided, failed)}))
    assert told[0].startswith("lenet onnxruntime_int8 batch 8: ok: parity undecided: on 1,000 test images")
    assert told[1] == "lenet onnxruntime batch 64: failed: it computes something else"


def test_an_exact_engine_answers_for_its_classes(engine: Engine) -> None:
    """An exact engine without class disagreements has parity, though few images leave a wide interval."""
    rows = rows_of(engine("torch", [0.02] * 3), counted(engine("onnxruntime", [0.01] * 3), 0, 0, 40, is_exact=True))
    found = rows["onnxruntime"]
    assert found["accuracy_drop_high"] > 0.02
    assert (found["parity"], found["class_disagreements"], found["reason"]) == ("ok", 0, None)


def test_the_repeat_with_the_largest_drop_counts(engine: Engine) -> None:
    """The repeat with the largest drop decides the parity, and its drop is shown with the interval."""
    records = []
    for i, lost in enumerate((12, 12, 30)):
        record = counted(engine("onnxruntime_int8", [0.01] * 3, repeat=i), lost, 12, 1000)
        drop = Measurement(metric="infer.accuracy_drop", unit="1", better="lower", values=((lost - 12) / 1000,))
        records.append(record.model_copy(update={"measurements": (*record.measurements, drop)}))
    found = rows_of(*records)["onnxruntime_int8"]
    assert (found["parity"], found["right_in_torch_only"]) == ("undecided", 30)
    assert found["accuracy_drop"] == pytest.approx(0.018)
    assert found["accuracy_drop_low"] < 0.018 < found["accuracy_drop_high"]


def test_records_without_counts_are_shown_as_they_were_judged(engine: Engine) -> None:
    """Records without counts keep their stored parity, without an interval, with the largest drop."""
    records = []
    for i, lost in enumerate((0.0, 0.004, 0.001)):
        made = engine("onnxruntime_int8", [0.01] * 3, repeat=i)
        drop = single("infer.accuracy_drop", "1", lost, "lower")
        records.append(made.model_copy(update={"measurements": (*made.measurements, drop)}))
    found = rows_of(*records)["onnxruntime_int8"]
    assert (found["parity"], found["accuracy_drop_low"], found["images_to_decide"]) == ("ok", None, None)
    assert found["accuracy_drop"] == 0.004


def test_records_tell_whether_a_parity_is_undecided(engine: Engine) -> None:
    """`is_undecided` is true if the parity of any record is undecided."""
    decided, undecided = (counted(engine("onnxruntime_int8", [0.01] * 3), lost, 27, 2000) for lost in (33, 60))
    for records, told in (((), False), ((decided,), False), ((undecided,), True), ((decided, undecided), True)):
        assert is_undecided(records) == told


def test_a_percentile_needs_calls_that_support_it(engine: Engine) -> None:
    """64 equal calls support a p90 but no p99; 128 drifting calls support neither."""
    row = rows_of(engine("torch", [0.02] * 64))["torch"]
    assert (row["latency_p90_s"], row["latency_p99_s"]) == (pytest.approx(0.02), None)
    row = rows_of(engine("torch", np.linspace(0.01, 0.02, 128).tolist()))["torch"]
    assert (row["latency_p90_s"], row["latency_s"]) == (None, pytest.approx(0.015))


def test_the_leaderboard_says_at_which_batch_sizes_its_best_engine_stands(trained: Trained, engine: Engine) -> None:
    """The leaderboard gives the best engine's latency where it is first best, and its largest throughput."""
    sizes = {4: 0.004, 64: 0.016}
    fast = [
        engine("onnxruntime", [s] * 3, [2.0] * 6 if size == 4 else (), batch_size=size) for size, s in sizes.items()
    ]
    slow = [engine("torch", [2 * s] * 3, batch_size=size) for size, s in sizes.items()]
    merged = [
        first.model_copy(update={"measurements": first.measurements + second.measurements})
        for first, second in (fast, slow)
    ]
    training = trained()
    records = {"suite/run": (training, *(reading(each, training) for each in merged))}
    (row,) = leaderboard(records, engine_table(records)).rows
    assert (row["best_engine_batch_size"], row["best_engine_latency_s"]) == (4, 0.004)
    assert (row["best_engine_offline_batch_size"], row["best_engine_images_per_s"]) == (64, pytest.approx(4000))
    unlike = replace(row.best, repeats=1, offline_repeats=3)
    assert [unlike.repeats_of(f"best_engine_{name}") for name in ("latency_s", "images_per_s")] == [1, 3]


def test_the_smallest_batch_size_names_the_best_engine(engine: Engine) -> None:
    """The smallest batch size gives the best engine, in any order of the rows."""
    records = [
        engine(name, [s * size] * 3, [2.0] * 6 if name == "onnxruntime" else (), batch_size=size)
        for size in (1, 64)
        for name, s in (("torch", 0.002), ("onnxruntime", 0.001))
    ]
    rows = engine_table({"suite/run": records}).rows
    assert [row.batch_size for row in rows if row.best] == [1, 64]
    for given in (rows, rows[::-1]):
        (best,) = best_engines(given).values()
        assert best.best_engine_batch_size == 1


def test_the_head_over_the_best_engine_counts_the_engine_s_repeats(trained: Trained, engine: Engine) -> None:
    """The head of a best engine's column has the engine's number of repeats, not the training's."""
    training = trained()
    engines = [engine("torch", [0.02] * 3, repeat=i) for i in (0, 1)]
    engines += [engine("onnxruntime", [0.01] * 3, [2.0] * 6, repeat=i) for i in (0, 1)]
    records = {"suite/run": (training, *(reading(each, training) for each in engines))}
    board = leaderboard(records, engine_table(records))
    heads = {column.name: _readable.head(column, board.rows) for column in _readable.visible(board)}
    assert heads["best_engine_latency_s"].endswith("\nn=2")
    assert heads["best_engine_images_per_s"].endswith("\nn=2")
    assert heads["images_per_s"].endswith("\nn=1")
    assert heads["best_engine_offline_batch_size"] == "at offline batch"


def test_the_leaderboard_names_the_best_engine(trained: Trained, engine: Engine) -> None:
    """The leaderboard has the columns of the best engine only where engines ran."""
    training = trained()
    engines = engine("torch", [0.02] * 3), engine("onnxruntime", [0.01] * 3, [2.0] * 6)
    records = {"suite/run": (training, *(reading(each, training) for each in engines))}
    (row,) = leaderboard(records, engine_table(records)).rows
    assert (row["best_engine"], row["best_engine_latency_s"], row["best_engine_parity"]) == ("onnxruntime", 0.01, "ok")
    assert (row["best_engine_batch_size"], row["best_engine_offline_batch_size"]) == (8, 8)
    board = leaderboard(records)
    assert "best_engine" not in {column.name for column in board.columns}
    assert board.rows[0]["best_engine"] is None


def test_the_best_engine_is_that_of_the_row_s_own_training(trained: Trained, engine: Engine) -> None:
    """A row's best engine is of its own training, and absent for a training without engines."""
    before, after = (trained(seconds=None, steps=steps) for steps in (100, 200))
    engines = engine("torch", [0.02] * 3), engine("onnxruntime", [0.01] * 3, [2.0] * 6)
    records = {"suite/run": (before, after, *(reading(each, after) for each in engines))}
    rows = leaderboard(records, engine_table(records)).rows
    assert {row["budget"]: row["best_engine"] for row in rows} == {"100 steps": None, "200 steps": "onnxruntime"}


def test_speed_ups_at_two_batch_sizes_are_not_compared(engine: Engine) -> None:
    """The best speed-up is starred within each batch size, run and sitting, and never across networks."""
    (speedup,) = (each for each in EngineRow.columns() if each.name == "speedup")
    (row,) = engine_table({"suite/run": (engine("onnxruntime", [0.01] * 3, [2.0] * 6),)}).rows
    figures = ((1, 2.0), (1, 1.5), (64, 1.3), (64, 1.1))
    rows = [
        replace(row, batch_size=size, parity="ok", speedup=x, speedup_low=x - 0.01, speedup_high=x + 0.01)
        for size, x in figures
    ]
    assert _readable.best(speedup, rows) == [True, False, True, False]
    for apart in ("run", "sitting"):
        two = [replace(each, **{"batch_size": 1, apart: f"{i // 2}"}) for i, each in enumerate(rows)]  # type: ignore[arg-type]
        assert _readable.best(speedup, two) == [True, False, True, False]
    (of_board,) = (each for each in BestEngine.columns() if each.name == "best_engine_speedup")
    assert of_board.better is None


def test_latencies_of_two_sittings_are_not_compared(engine: Engine) -> None:
    """Engines measured in two sittings are not compared, and their rows give the sitting.

    Their latencies have no ratio, and cannot contradict a paired speed-up.
    """
    speeds = {"torch": 0.02, "onnxruntime": 0.01}
    for sittings, told in ((("a", "a"), [None, None]), (("a", "b"), ["1", "2"])):
        records = [
            engine(name, [s * (1 + repeat / 1000)] * 3, repeat=repeat).model_copy(update={"sitting": sitting})
            for (name, s), sitting in zip(speeds.items(), sittings, strict=True)
            for repeat in range(4)
        ]
        table = engine_table({"suite/run": records})
        assert [row.sitting for row in table.rows] == told
        (column,) = (each for each in table.columns if each.name == "images_per_s")
        proved = [replace(row, speedup_low=1.0) for row in table.rows]
        assert _readable.best(column, proved) == [False, told[0] is None]
        assert [row.speedup for row in table.rows] == [1.0, None if told[0] else pytest.approx(2.0)]
        paired = engine("onnxruntime", [0.01] * 3, [4.0] * 6).model_copy(update={"sitting": sittings[1]})
        (row,) = engine_table({"suite/run": (records[0], paired)}).rows[1:]
        assert (row.speedup, row.speedup_flags is None) == (pytest.approx(4.0), told[0] is not None)


@pytest.mark.parametrize(
    "facts",
    [{"host": "shed"}, {"cpu": "Another Processor"}, {"packages": {"torch": "2.9.0", "onnxruntime": "9"}}],
    ids=["host", "cpu", "onnxruntime"],
)
def test_engines_of_unlike_places_are_no_rivals(
    engine: Engine, trained: Trained, on: Callable[..., Record], facts: dict[str, Any]
) -> None:
    """An engine that a resumed run measured elsewhere, or with other software, has no speed-up over the first's torch.

    Its repeats are no repeats of the first's, and it is not the best engine of the training there.
    """
    steady, training = [1.9, 2.0, 2.1, 2.0, 1.95, 2.05], trained()
    there = [
        reading(engine("torch", [0.02] * 3), training),
        reading(engine("onnxruntime", [0.01] * 3), training),
        on(reading(engine("onnxruntime", [0.001] * 3, steady, repeat=1), training), **facts),
        training,
    ]
    table = engine_table({"suite/run": there})
    assert [(row["engine"], row["latency_s"], row["repeats"]) for row in table.rows] == [
        ("torch", 0.02, 1),
        ("onnxruntime", 0.01, 1),
        ("onnxruntime", 0.001, 1),
    ]
    assert [(row["speedup"], row["best"]) for row in table.rows[:2]] == [(1.0, None), (2.0, None)]
    if "packages" not in facts:
        assert leaderboard({"suite/run": there}, table).rows[0]["best_engine"] is None
    separate = [reading(engine("torch", [0.02] * 3), training), on(reading(engine("ort", [0.001]), training), **facts)]
    assert engine_table({"suite/run": separate}).rows[1]["speedup"] is None


def test_an_engine_added_by_a_suite_of_another_name_is_a_rival(engine: Engine) -> None:
    """Engines from suites of two names, or from two copies of the images, are compared."""
    torch, other = engine("torch", [0.02] * 3), engine("onnxruntime", [0.01] * 3)
    assert other.task.data
    copied = other.task.data.model_copy(update={"source": "a copy"})
    for changes in ({"suite": "renamed"}, {"data": copied}):
        renamed = other.model_copy(update={"task": other.task.model_copy(update=changes)})
        assert rows_of(torch, renamed)["onnxruntime"]["speedup"] == 2.0


def test_the_notes_say_on_which_images_an_onnx_file_is_tested(engine: Engine) -> None:
    """The notes name the normalisation of images for an ONNX file, and only where there is one."""
    of_file, of_network = (
        engine_notes(list(rows_of(engine("onnxruntime", [0.01] * 3, **model)).values()))
        for model in ({"model": "net.onnx"}, {})
    )
    assert any("normalised by the mean" in note for note in of_file)
    assert of_file[1:-1] == of_network[1:]


def disturbed(record: Record, share: float = 0.4) -> Record:
    """Return an engine's record of which a thread waited for a core for this share of the time."""
    remarks = {"waited_share": share}
    measured = [
        m.model_copy(update={"remarks": {**m.remarks, **remarks}}) if m.metric == "infer.latency" else m
        for m in record.measurements
    ]
    return record.model_copy(update={"measurements": tuple(measured)})


def test_a_disturbed_engine_is_neither_marked_nor_best_nor_on_the_front(engine: Engine) -> None:
    """The cells of a disturbed engine have the mark of doubt and a footnote, and a rival may be slower than it."""
    base, fast = engine("torch", [0.026] * 3), engine("onnxruntime", [0.013] * 3, [2.0, 2.01, 2.02, 1.99, 1.98, 2.03])
    slow = engine("onnxruntime_int8", [0.02] * 3, [1.3, 1.31, 1.32, 1.29, 1.28, 1.33])
    quiet = rows_of(*(disturbed(record, 0.01) for record in (base, fast, slow)))
    assert [row["disturbed"] for row in quiet.values()] == ["no"] * 3
    assert [(row["best"], row["pareto"]) for row in quiet.values()] == [(None, "no"), ("yes", "yes"), (None, "no")]
    rows = rows_of(*(disturbed(record, share) for record, share in ((base, 0.01), (fast, 0.4), (slow, 0.01))))
    words = "a thread waited for a core for 40.0 % of the time"
    assert [row["disturbed"] for row in rows.values()] == ["no", words, "no"]
    assert [(row["best"], row["pareto"]) for row in rows.values()] == [(None, "no"), (None, None), (None, "yes")]
    columns = {column.name: column for column in EngineRow.columns()}
    assert _readable.best(columns["speedup"], list(quiet.values())) == [False, True, False]
    assert _readable.best(columns["speedup"], list(rows.values())) == [False] * 3
    table = engine_table({"suite/run": [disturbed(base, 0.01), disturbed(fast), disturbed(slow, 0.01)]})
    assert _readable.footnotes(table) == [
        f"† lenet onnxruntime batch 8: latency, images/s, images/s in all, speed-up: disturbed: {words}"
    ]
    assert [_readable.cell_text(columns["latency_s"], row) for row in table.rows] == ["26.0 ms", "13.0 ms †", "20.0 ms"]


def test_a_disturbed_baseline_spoils_the_ratio_of_separate_latencies_alone(engine: Engine) -> None:
    """Without pairs a speed-up over a disturbed baseline is doubtful; with pairs it stands."""
    base, unpaired = disturbed(engine("torch", [0.026] * 3)), disturbed(engine("onnxruntime", [0.013] * 3), 0.0)
    assert rows_of(base, unpaired)["onnxruntime"]["speedup_flags"] == "baseline disturbed"
    paired = disturbed(engine("onnxruntime", [0.013] * 3, [2.0, 2.01, 2.02, 1.99, 1.98, 2.03]), 0.0)
    rows = rows_of(base, paired)
    assert (rows["onnxruntime"]["speedup_flags"], rows["onnxruntime"]["best"]) == (None, "yes")
    assert rows["torch"]["pareto"] is None


def test_an_accuracy_no_better_than_chance_is_flagged_and_compared(engine: Engine) -> None:
    """Accuracies whose interval holds 1 of 10 classes have one footnote a network; the others are marked as before."""
    figures = {"torch": 0.30, "onnxruntime": 0.095, "onnxruntime_int8": 0.05}
    records = [engine(name, [0.02], accuracy=accuracy) for name, accuracy in figures.items()]
    flag = "no better than chance, which is 1 in 10"
    assert [row["accuracy_flag"] for row in rows_of(*records).values()] == [None, flag, flag]
    assert marks("test_accuracy", *records) == [True, False, False]
    notes = _readable.footnotes(engine_table({"suite/run": records}))
    assert [note for note in notes if flag in note] == [f"† lenet: test accuracy: {flag}"]
