"""The table of engines: speed-ups from pairs, who may be called best, and what is shown and not ranked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cnnperf.engine_table import engine_table, is_undecided
from cnnperf.leaderboard import leaderboard
from cnnperf.record import Measurement, Record
from cnnperf.reports import _readable
from cnnperf.stats import supports_quantile
from cnnperf.table import Column, Report, Row

Trained = Callable[..., Record]


@pytest.fixture
def engine(trained: Trained) -> Callable[..., Record]:
    """Return a maker of an engine's record."""

    def make(
        name: str,
        latency: Sequence[float],
        ratios: Sequence[float] = (),
        *,
        accuracy: float | None = 0.5,
        batch_size: int = 8,
        error: str | None = None,
        **changes: Any,
    ) -> Record:
        tags = {"engine": name, "batch_size": batch_size}
        measured = [
            Measurement(metric="infer.latency", unit="s", better="lower", values=tuple(latency), tags=tags),
            Measurement(metric="infer.error_to_float64", unit="1", better="lower", values=(1e-7,), tags=tags),
        ]
        if accuracy is not None:
            measured.append(
                Measurement(
                    metric="infer.test_accuracy",
                    unit="fraction",
                    better="higher",
                    values=(accuracy,),
                    tags={"engine": name},
                )
            )
        if ratios:
            measured.append(
                Measurement(metric="infer.speedup", unit="1", better="higher", values=tuple(ratios), tags=tags)
            )
        record = trained(**changes)
        task = record.task.model_copy(update={"stage": "infer", "variant": {"engine": name}})
        status = "failed" if error else "ok"
        made = record.model_copy(
            update={"task": task, "status": status, "error": error, "measurements": tuple(measured)}
        )
        return made.model_copy(update={"key": task.key})

    return make


Engine = Callable[..., Record]


def rows_of(*records: Record) -> dict[str, Row]:
    """Return the rows of one run by engine."""
    return {row["engine"]: row for row in engine_table({"suite/run": records}).rows}


def test_six_pairs_give_an_interval_and_a_best_engine(engine: Engine) -> None:
    """Hodges–Lehmann of the pairs; with six of them the exact 95 % interval is their whole range."""
    ratios = [1.9, 2.0, 2.1, 2.0, 1.95, 2.05]
    rows = rows_of(engine("torch", [0.02] * 3), engine("onnxruntime", [0.013] * 3, ratios))
    found = rows["onnxruntime"]
    assert found["speedup"] == pytest.approx(2.0, rel=0.01)
    assert (found["speedup_low"], found["speedup_high"]) == pytest.approx((1.9, 2.1))
    assert (found["speedup_pairing"], found["best"]) == ("paired", "yes")
    assert (rows["torch"]["speedup"], rows["torch"]["best"]) == (1.0, None)
    assert found["images_per_s"] == pytest.approx(8 / 0.013)


def test_an_interval_that_holds_one_makes_no_engine_best(engine: Engine) -> None:
    """Two engines that are the same are told apart by nothing."""
    ratios = [1.02, 0.99, 1.01, 0.98, 1.03, 1.0]
    rows = rows_of(engine("torch", [0.02] * 3), engine("onnxruntime", [0.01] * 3, ratios))
    assert rows["onnxruntime"]["speedup_low"] < 1 < rows["onnxruntime"]["speedup_high"]
    assert {row["best"] for row in rows.values()} == {None}


def test_the_best_engine_is_proved_faster_than_the_next(engine: Engine) -> None:
    """Both beat torch; the first is best only where their intervals lie apart."""
    steady = [1.9, 2.0, 2.1, 2.0, 1.95, 2.05]
    near, far = [each - 0.1 for each in steady], [each - 0.5 for each in steady]
    for second, best in ((near, None), (far, "yes")):
        rows = rows_of(
            engine("torch", [0.02] * 3),
            engine("onnxruntime", [0.010] * 3, steady),
            engine("torch_compile", [0.011] * 3, second),
        )
        assert min(row["speedup_low"] or 1 for row in rows.values()) == 1
        assert (rows["onnxruntime"]["best"], rows["torch_compile"]["best"]) == (best, None)


def test_torch_itself_is_best_where_all_others_are_proved_slower(engine: Engine) -> None:
    """Its speed-up is one by definition, and theirs lie below."""
    slower = [0.9, 0.8, 0.85, 0.8, 0.9, 0.7]
    rows = rows_of(engine("torch", [0.02] * 3), engine("onnxruntime", [0.025] * 3, slower))
    assert (rows["torch"]["best"], rows["onnxruntime"]["best"]) == ("yes", None)


def test_pairs_give_an_interval_without_a_row_of_torch(engine: Engine) -> None:
    """Each pair has a torch of its own."""
    (row,) = rows_of(engine("onnxruntime", [0.013] * 3, [1.9, 2.0, 2.1, 2.0, 1.95, 2.05])).values()
    assert (row["speedup_pairing"], row["best"]) == ("paired", None)


def test_the_engines_of_an_onnx_file_are_compared_with_onnxruntime(engine: Engine) -> None:
    """There is no torch to compare them with."""
    records = [
        engine(name, [s] * 3, model="some.onnx") for name, s in (("onnxruntime", 0.02), ("onnxruntime_int8", 0.01))
    ]
    rows = rows_of(*records)
    assert (rows["onnxruntime"]["speedup"], rows["onnxruntime_int8"]["speedup"]) == (1.0, pytest.approx(2.0))


def test_scenarios_go_by_their_names(engine: Engine) -> None:
    """Batch 1 is single_stream, the batch size with the largest throughput is offline; they may be one."""
    latencies = {1: 0.001, 8: 0.004, 32: 0.020}
    records = [engine("torch", [s] * 3, batch_size=size) for size, s in latencies.items()]
    merged = records[0].model_copy(update={"measurements": tuple(m for r in records for m in r.measurements)})
    rows = engine_table({"suite/run": (merged,)}).rows
    assert [row["scenario"] for row in rows] == ["single_stream", "offline", None]
    (only,) = engine_table({"suite/run": (records[0],)}).rows
    assert only["scenario"] == "single_stream offline"


def test_an_engine_that_ended_before_its_accuracy_is_not_ranked(engine: Engine) -> None:
    """Such as one whose output became NaN on some image."""
    rows = rows_of(engine("torch", [0.02] * 3), engine("onnxruntime", [0.01] * 3, accuracy=None, error="not finite"))
    assert (rows["onnxruntime"]["parity"], rows["onnxruntime"]["pareto"]) == (None, None)


def test_fewer_pairs_are_unpaired_and_prove_nothing(engine: Engine) -> None:
    """Their own ratio stands without an interval, even where two separate medians say the opposite."""
    rows = rows_of(engine("torch", [0.02] * 3), engine("onnxruntime", [0.025] * 3, [1.5] * 5))
    found = rows["onnxruntime"]
    assert (found["speedup"], found["speedup_pairs"]) == (pytest.approx(1.5), 5)
    assert (found["speedup_low"], found["speedup_pairing"], found["best"]) == (None, "unpaired", None)


def test_unpaired_leads_only_in_every_repeat(engine: Engine) -> None:
    """Two repeats in which the same engine is the faster."""

    def repeats(name: str, *latencies: float) -> list[Record]:
        return [engine(name, [latency] * 3, repeat=i) for i, latency in enumerate(latencies)]

    rows = rows_of(*repeats("torch", 0.02, 0.03), *repeats("onnxruntime", 0.01, 0.01))
    assert rows["onnxruntime"]["best"] == "yes"
    rows = rows_of(*repeats("torch", 0.02, 0.009), *repeats("onnxruntime", 0.01, 0.01))
    assert {row["best"] for row in rows.values()} == {None}


def test_failed_parity_is_shown_and_not_ranked(engine: Engine) -> None:
    """Neither best nor on the front, its figures there."""
    broken = engine("onnxruntime", [0.01] * 3, [2.0] * 6, error="onnxruntime: parity failed at batch size 1: …")
    rows = rows_of(engine("torch", [0.02] * 3), broken)
    found = rows["onnxruntime"]
    assert (found["parity"], found["status"], found["best"], found["pareto"]) == ("failed", "failed", None, None)
    assert found["latency_s"] == 0.01
    assert rows["torch"]["pareto"] == "yes"


def test_an_engine_that_failed_after_its_parity_is_not_ranked(engine: Engine) -> None:
    """Such as one with a node that another provider ran, or a side of a pair that crashed; nothing of it is marked."""
    foreign = engine("onnxruntime", [0.01] * 3, [2.0] * 6, error="asked for CUDA, and the CPU ran the node conv1")
    rows = rows_of(engine("torch", [0.02] * 3), foreign)
    assert [rows["onnxruntime"][name] for name in ("best", "pareto")] == [None, None]
    assert rows["torch"]["pareto"] == "yes"


def test_what_failed_parity_is_never_marked_the_best_of_a_column(engine: Engine) -> None:
    """Nor is it a rival for those that did not."""
    broken = engine("onnxruntime", [0.01] * 3, [2.0] * 6, error="onnxruntime: parity failed at batch size 1: …")
    rows = engine_table({"suite/run": (engine("torch", [0.02] * 3), engine("torch_compile", [0.03] * 3), broken)}).rows
    assert _readable.best(Column("images_per_s", unit="images/s", better="higher"), rows) == [True, False, False]


def test_the_front_holds_what_nothing_beats_in_both(engine: Engine) -> None:
    """Slower and less accurate than another is off it; slower and more accurate is on it."""
    rows = rows_of(
        engine("torch", [0.02] * 3, accuracy=0.6),
        engine("onnxruntime", [0.01] * 3, accuracy=0.5),
        engine("onnxruntime_int8", [0.03] * 3, accuracy=0.55),
    )
    assert [rows[name]["pareto"] for name in ("torch", "onnxruntime", "onnxruntime_int8")] == ["yes", "yes", "no"]


def test_the_front_is_of_all_networks_on_the_same_images(engine: Engine) -> None:
    """A network that another beats in both is off it in every engine; on another dataset it is the only one."""
    large, small = {"model": "nin", "accuracy": 0.6}, {"model": "mlp", "accuracy": 0.5}
    records = [engine("torch", [0.02], **large), engine("torch", [0.03], **small)]
    records.append(engine("torch", [0.03], model="mlp", accuracy=0.5, dataset="mnist"))
    assert [row["pareto"] for row in engine_table({"suite/run": records}).rows] == ["yes", "no", "yes"]


def test_logits_are_told_from_torch_s_by_their_largest_difference(engine: Engine) -> None:
    """In float32 and in float64, as it is and in units of the largest logit; the worst batch size counts."""
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
    more = tuple(
        Measurement(metric=f"infer.{name}", unit="count", better=None, values=(count,), tags={"n": images})
        for name, count in counts.items()
    )
    settings = {**record.task.settings, "max_accuracy_drop": 0.02}
    task = record.task.model_copy(update={"settings": settings})
    return record.model_copy(update={"task": task, "measurements": record.measurements + more})


@pytest.mark.parametrize(
    ("lost", "gained", "images", "parity"), [(33, 27, 2000, "ok"), (30, 12, 1000, "undecided"), (70, 4, 2000, "failed")]
)
def test_an_engine_of_another_precision_is_ranked_where_its_drop_is_within_the_limit(
    engine: Engine, lost: int, gained: int, images: int, parity: str
) -> None:
    """By the upper end of its interval; one that holds the limit is shown with the images that would decide."""
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


def test_an_exact_engine_answers_for_its_classes(engine: Engine) -> None:
    """Few images leave a wide interval, and nothing undecided."""
    rows = rows_of(engine("torch", [0.02] * 3), counted(engine("onnxruntime", [0.01] * 3), 0, 0, 40, is_exact=True))
    found = rows["onnxruntime"]
    assert found["accuracy_drop_high"] > 0.02
    assert (found["parity"], found["class_disagreements"], found["reason"]) == ("ok", 0, None)


def test_the_repeat_with_the_largest_drop_counts(engine: Engine) -> None:
    """One that is undecided leaves all undecided, and its interval is shown."""
    records = [
        counted(engine("onnxruntime_int8", [0.01] * 3, repeat=i), lost, 12, 1000) for i, lost in enumerate((12, 30))
    ]
    found = rows_of(*records)["onnxruntime_int8"]
    assert (found["parity"], found["right_in_torch_only"]) == ("undecided", 30)


def test_records_without_counts_are_shown_as_they_were_judged(engine: Engine) -> None:
    """Those of an older version: there is no interval."""
    found = rows_of(engine("onnxruntime_int8", [0.01] * 3))["onnxruntime_int8"]
    assert (found["parity"], found["accuracy_drop_low"], found["images_to_decide"]) == ("ok", None, None)


def test_a_report_tells_whether_a_parity_is_undecided(engine: Engine) -> None:
    """Commands that ran engines end in 3 then."""
    for lost, told in ((33, False), (60, True)):
        table = engine_table({"suite/run": (counted(engine("onnxruntime_int8", [0.01] * 3), lost, 27, 2000),)})
        assert is_undecided(Report((table,), ())) == told
    assert not is_undecided(Report((), ()))


def test_a_quantile_needs_its_samples(engine: Engine) -> None:
    """64 for p90 and 662 for p99, 11 for the median."""
    for count, q in ((11, 0.5), (64, 0.9), (662, 0.99)):
        assert supports_quantile(count, q)
        assert not supports_quantile(count - 1, q)
    rows = rows_of(engine("torch", [0.02] * 64))
    assert rows["torch"]["latency_p90_s"] == pytest.approx(0.02)
    assert rows["torch"]["latency_p99_s"] is None


def test_the_leaderboard_says_at_which_batch_sizes_its_best_engine_stands(trained: Trained, engine: Engine) -> None:
    """Latency where it is first best, throughput where it is largest, best there or not."""
    sizes = {4: 0.004, 64: 0.016}
    fast = [
        engine("onnxruntime", [s] * 3, [2.0] * 6 if size == 4 else (), batch_size=size) for size, s in sizes.items()
    ]
    slow = [engine("torch", [2 * s] * 3, batch_size=size) for size, s in sizes.items()]
    merged = [
        first.model_copy(update={"measurements": first.measurements + second.measurements})
        for first, second in (fast, slow)
    ]
    records = {"suite/run": (trained(), *merged)}
    (row,) = leaderboard(records, engine_table(records)).rows
    assert (row["best_engine_batch_size"], row["best_engine_latency_s"]) == (4, 0.004)
    assert (row["best_engine_offline_batch_size"], row["best_engine_images_per_s"]) == (64, pytest.approx(4000))


def test_the_leaderboard_names_the_best_engine(trained: Trained, engine: Engine) -> None:
    """Its columns are there where engines ran, and nowhere else."""
    records = {"suite/run": (trained(), engine("torch", [0.02] * 3), engine("onnxruntime", [0.01] * 3, [2.0] * 6))}
    (row,) = leaderboard(records, engine_table(records)).rows
    assert (row["best_engine"], row["best_engine_latency_s"], row["best_engine_parity"]) == ("onnxruntime", 0.01, "ok")
    assert (row["best_engine_batch_size"], row["best_engine_offline_batch_size"]) == (8, 8)
    (row,) = leaderboard(records).rows
    assert "best_engine" not in row
