"""The choice of a network, its engine and its batch size: bounds, intervals, margins, and what is not judged."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnnperf import record as store
from cnnperf.errors import UsageError
from cnnperf.record import Record, single
from cnnperf.tables.choice import Selection, choose

Engine = Callable[..., Record]
STEADY = [1.9, 2.0, 2.1, 2.0, 1.95, 2.05]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that stores records as a run."""

    def make(*records: Record, name: str = "run") -> Path:
        folder = tmp_path / "suite" / name
        folder.mkdir(parents=True)
        for each in records:
            store.append(folder, each)
        return folder

    return make


Run = Callable[..., Path]


def states(selection: Selection) -> list[tuple[str, str]]:
    """Return the model and the state of each cell, in order."""
    return [(standing.row.model, standing.state) for standing in selection.standings]


def sized(record: Record, **figures: int) -> Record:
    """Return an engine's record with a size of its file or a peak of memory."""
    more = tuple(single(f"infer.{name}", "bytes", value, "lower") for name, value in figures.items())
    return record.model_copy(update={"measurements": (*record.measurements, *more)})


def test_the_most_accurate_one_within_the_bounds_is_chosen(engine: Engine, run: Run) -> None:
    """The most accurate of the networks that are fast enough is chosen, and its margins over the others are told."""
    folder = run(
        engine("torch", [0.001] * 3, model="mlp", accuracy=0.55),
        engine("torch", [0.002] * 3, model="lenet", accuracy=0.65),
        engine("torch", [0.009] * 3, model="vgg", accuracy=0.95),
    )
    found = choose([folder], max_latency="5ms", min_accuracy=0.5, batch=8)
    assert states(found) == [("lenet", "chosen"), ("mlp", "beaten"), ("vgg", "misses")]
    assert (found.exit_code, found.nearest) == (0, None)
    assert found.bounds == "latency ≤ 5.00 ms, test accuracy ≥ 50.0 %, batch 8"
    assert found.summary == (
        "lenet torch batch 8 satisfies every bound with its intervals, and beats 1 more that do → exit 0"
    )
    margin = found.standings[1].margin
    assert margin
    assert (margin.accuracy, margin.is_apart, margin.interval) == (pytest.approx(0.1), True, None)
    assert found.standings[1].words == "test accuracy +10.0 points (apart), images/s × 0.5 (separate)"
    assert found.standings[2].words == "latency 9.00 ms ≤ 5.00 ms, missed by 4.00 ms"


def test_of_equally_accurate_ones_the_fastest_is_chosen(engine: Engine, run: Run) -> None:
    """Where intervals of accuracy overlap the most accurate one's, images/s decide; a column given decides alone."""
    folder = run(
        engine("torch", [0.002] * 3, model="vgg", accuracy=0.66),
        engine("torch", [0.001] * 3, model="nin", accuracy=0.65),
        engine("torch", [0.0001] * 3, model="mlp", accuracy=0.50),
    )
    found = choose([folder], min_accuracy="0.4")
    assert [model for model, _ in states(found)] == ["nin", "vgg", "mlp"]
    assert "overlap" in found.standings[1].words
    for column, model in (("latency_s", "mlp"), ("test_accuracy", "vgg"), ("model", "mlp")):
        assert choose([folder], min_accuracy="0.4", by=column).standings[0].row.model == model
    with pytest.raises(UsageError, match="`by`: unknown column 'latency'; did you mean 'latency_s'"):
        choose([folder], min_accuracy="0.4", by="latency")


def test_a_bound_is_satisfied_by_the_worse_end(engine: Engine, run: Run) -> None:
    """A latency whose quartiles, or an accuracy whose interval, reaches past the bound holds it by its middle only."""
    folder = run(
        engine("torch", [0.001, 0.002, 0.003], model="wide", accuracy=0.9),
        engine("torch", [0.002] * 3, model="unsure", accuracy=0.51),
    )
    assert states(choose([folder], max_latency="2.6ms")) == [("wide", "chosen"), ("unsure", "beaten")]
    assert states(choose([folder], max_latency="2.2ms")) == [("unsure", "chosen"), ("wide", "by middle")]
    found = choose([folder], max_latency="2.2ms", min_accuracy=0.5)
    assert states(found) == [("unsure", "by middle"), ("wide", "by middle")]
    assert found.exit_code == 1
    assert found.nearest is found.standings[0]
    assert found.summary == (
        "none of 2 judged satisfies every bound with its intervals; by its middle only: unsure torch batch 8: "
        "test accuracy 51.0 % [47.9 %–54.1 %] ≥ 50.0 % → exit 1"
    )


def test_the_range_of_the_repeats_widens_a_latency_and_a_memory(engine: Engine, run: Run) -> None:
    """The slowest of several repeats, and the largest of their peaks, must satisfy the bound."""
    repeats = [
        sized(engine("torch", [s] * 3, repeat=i), peak_bytes=peak)
        for i, (s, peak) in enumerate(((0.001, 100), (0.001, 100), (0.003, 400)))
    ]
    folder = run(*repeats)
    for bounds, state in (
        ({"max_latency": "2ms"}, "by middle"),
        ({"max_latency": "3ms"}, "chosen"),
        ({"max_memory": "399B"}, "by middle"),
        ({"max_memory": "400B"}, "chosen"),
        ({"max_memory": "99B"}, "misses"),
    ):
        assert [standing.state for standing in choose([folder], **bounds).standings] == [state], bounds
    assert "n=1" not in "".join(choose([folder], max_latency="3ms").notes)
    alone = run(repeats[0], name="alone")
    assert "n=1" in "".join(choose([alone], max_latency="3ms").notes)


def test_the_nearest_misses_by_the_least_of_its_bounds(engine: Engine, run: Run) -> None:
    """Without a satisfying one, the nearest has the smallest relative miss, and says of each bound by how much."""
    folder = run(
        sized(engine("torch", [0.004] * 3, model="slow"), file_bytes=2**20),
        sized(engine("torch", [0.001] * 3, model="large"), file_bytes=5 * 2**20),
        sized(engine("torch", [0.003] * 3, model="both"), file_bytes=3 * 2**20),
    )
    found = choose([folder], max_latency="2ms", max_size="2MiB")
    assert states(found) == [("both", "misses"), ("slow", "misses"), ("large", "misses")]
    assert found.nearest
    assert found.nearest.miss == pytest.approx(0.5)
    assert found.summary == (
        "none of 3 judged satisfies every bound with its intervals; nearest: both torch batch 8: latency 3.00 ms ≤ "
        "2.00 ms, missed by 1.00 ms; size 3.00 MiB ≤ 2.00 MiB, missed by 1.00 MiB → exit 1"
    )
    shares = choose([folder], min_accuracy=0.9)
    assert shares.standings[0].words == "test accuracy 50.0 % [46.9 %–53.1 %] ≥ 90.0 %, missed by 43.1 points"


def test_what_failed_parity_or_is_flagged_is_not_chosen(engine: Engine, run: Run) -> None:
    """A cell with failed parity, a failed task, a † or without a bounded figure is not judged, and says why."""
    folder = run(
        engine("torch", [0.03], model="nin"),
        engine("onnxruntime", [0.010], STEADY, model="nin"),
        engine("onnxruntime", [0.001], model="vgg", error="its logits lie elsewhere", fault=True),
        engine("torch", [0.001], model="mlp", error="boom"),
        engine("torch", [0.001], model="lenet", accuracy=None),
    )
    found = choose([folder], max_latency="50ms", min_accuracy=0.4)
    assert (found.standings[0].row.row_label, found.standings[0].state) == (
        "nin torch batch 8",
        "chosen",
    )
    assert {standing.row.row_label: standing.words for standing in found.standings[1:]} == {
        "nin onnxruntime batch 8": "† speed-up: disagrees with separate latencies",
        "vgg onnxruntime batch 8": "failed: its logits lie elsewhere",
        "mlp torch batch 8": "failed: boom",
        "lenet torch batch 8": "parity unknown",
    }
    assert {standing.state for standing in found.standings[1:]} == {"not judged"}
    none = choose([run(engine("torch", [0.001], error="boom"), name="none")], max_latency="1s")
    assert (none.exit_code, none.nearest) == (1, None)
    assert none.summary == "none of 0 judged satisfies every bound with its intervals → exit 1"


def test_a_figure_that_was_not_measured_satisfies_no_bound(engine: Engine, run: Run) -> None:
    """A network without a size is not judged where the size is bounded, and is where it is not."""
    folder = run(engine("torch", [0.001]))
    assert choose([folder], max_latency="1s").exit_code == 0
    found = choose([folder], max_size="1GB")
    assert [(standing.state, standing.words) for standing in found.standings] == [("not judged", "not measured: size")]


def test_a_paired_speed_up_is_the_margin_over_its_baseline(engine: Engine, run: Run) -> None:
    """The margin of an engine over its baseline, or of the baseline over an engine, is the paired ratio."""
    folder = run(engine("torch", [0.02] * 3), engine("onnxruntime", [0.01] * 3, STEADY))
    found = choose([folder], max_latency="1s")
    assert [standing.row.engine for standing in found.standings] == ["onnxruntime", "torch"]
    assert found.standings[1].words == "test accuracy +0.0 points (overlap), images/s × 2 (paired [1.9–2.1])"
    slower = [1 / each for each in STEADY]
    folder = run(engine("torch", [0.01] * 3), engine("onnxruntime", [0.02] * 3, slower), name="slower")
    found = choose([folder], max_latency="1s")
    assert [standing.row.engine for standing in found.standings] == ["torch", "onnxruntime"]
    assert found.standings[1].words == "test accuracy +0.0 points (overlap), images/s × 2 (paired [1.9–2.1])"
    other = run(
        engine("torch", [0.02] * 3, model="nin"), engine("onnxruntime", [0.01] * 3, STEADY), name="another network"
    )
    margin = choose([other], max_latency="1s").standings[1].margin
    assert margin
    assert (margin.speed, margin.interval) == (pytest.approx(2.0), None)


def test_any_batch_size_may_be_chosen(engine: Engine, run: Run) -> None:
    """Without a batch size the one with the most images/s within the bounds is chosen."""
    of_sizes = [engine("torch", [s] * 3, batch_size=size) for size, s in ((1, 0.001), (8, 0.004), (32, 0.010))]
    record = of_sizes[0].model_copy(update={"measurements": tuple(m for each in of_sizes for m in each.measurements)})
    folder = run(record)
    assert choose([folder], max_latency="5ms").standings[0].row.batch_size == 8
    assert choose([folder], max_latency="20ms").standings[0].row.batch_size == 32
    assert [each.row.batch_size for each in choose([folder], max_latency="20ms", batch="1").standings] == [1]
    with pytest.raises(UsageError, match="`batch`: no engine was timed at 4; give one of 1, 8, 32"):
        choose([folder], max_latency="5ms", batch=4)


def test_several_datasets_or_machines_are_told_apart(engine: Engine, run: Run) -> None:
    """Engines of two datasets are refused unless one is chosen, those of unlike threads with another cure."""
    folder = run(engine("torch", [0.001]), engine("torch", [0.002], dataset="mnist"))
    with pytest.raises(
        UsageError, match=r"unlike dataset \(cifar10, mnist\); choose one with `only`, such as 'cifar10'"
    ):
        choose([folder], max_latency="1s")
    assert [each.row.dataset for each in choose([folder], max_latency="1s", only="mnist").standings] == ["mnist"]
    assert [each.row.dataset for each in choose([folder], max_latency="1s", only="cifar10/*").standings] == ["cifar10"]
    with pytest.raises(UsageError, match=r"`only`: nothing matches 'vgg'; give a glob .*cifar10/lenet/cpu"):
        choose([folder], max_latency="1s", only="vgg")
    record = engine("torch", [0.001])
    task = record.task.model_copy(update={"threads": 8})
    more = run(record.model_copy(update={"task": task, "key": task.key}), name="more")
    with pytest.raises(UsageError, match=r"unlike threads \(2, 8\); give runs that are alike"):
        choose([folder, more], max_latency="1s", only="cifar10")


def test_cells_of_several_runs_are_named_by_their_run(engine: Engine, run: Run) -> None:
    """The names of cells have the run if there are several."""
    folders = [run(engine("torch", [s] * 3), name=name) for name, s in (("slow", 0.002), ("fast", 0.001))]
    found = choose(folders, max_latency="1s")
    assert [found.name(standing) for standing in found.standings] == [
        "suite/fast lenet torch batch 8",
        "suite/slow lenet torch batch 8",
    ]


def test_runs_without_engines_are_refused(
    engine: Engine, trained: Callable[..., Record], run: Run, tmp_path: Path
) -> None:
    """Runs without an engine that was timed are refused; a device that is not there is no second group."""
    skipped = engine("torch", [0.001], device="cuda").model_copy(
        update={"status": "skipped", "error": "no CUDA device", "measurements": ()}
    )
    for name, records in (("trained", [trained()]), ("skipped", [skipped])):
        with pytest.raises(UsageError, match="no engine was timed in these runs; give runs of the stage infer"):
            choose([run(*records, name=name)], max_latency="1s")
    found = choose([run(engine("torch", [0.001]), skipped, name="both")], max_latency="1s")
    assert [standing.state for standing in found.standings] == ["chosen"]


@pytest.mark.parametrize(
    ("bounds", "column", "limit"),
    [
        ({"max_latency": "2ms"}, "latency_s", 0.002),
        ({"max_latency": "2 ms"}, "latency_s", 0.002),
        ({"max_latency": "350us"}, "latency_s", 0.00035),
        ({"max_latency": "350µs"}, "latency_s", 0.00035),
        ({"max_latency": "1.5s"}, "latency_s", 1.5),
        ({"min_accuracy": "0.7"}, "test_accuracy", 0.7),
        ({"min_accuracy": 1}, "test_accuracy", 1.0),
        ({"max_memory": "50MB"}, "peak_bytes", 50_000_000),
        ({"max_memory": "50 MiB"}, "peak_bytes", 50 * 2**20),
        ({"max_size": "1.5kB"}, "file_bytes", 1500),
        ({"max_size": "800B"}, "file_bytes", 800),
    ],
)
def test_bounds_have_units(engine: Engine, run: Run, bounds: dict[str, Any], column: str, limit: float) -> None:
    """Durations and sizes are read with their units, decimal and binary."""
    found = choose([run(engine("torch", [0.001]))], **bounds)
    assert found.limits == {column: pytest.approx(limit)}


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({}, "no bound is given; give one or more of `max_latency`, `min_accuracy`, `max_memory`, `max_size`"),
        ({"batch": "1"}, "no bound is given"),
        *(
            ({"max_latency": text}, f"`max_latency`: {text!r} is no duration; give a number with its unit, such as 2ms")
            for text in ("2", "", "fast", "-2ms", "0ms", "nan", "NaT", "inf", "2 potatoes", "1e400s")
        ),
        *(
            ({"min_accuracy": text}, f"`min_accuracy`: {text!r} is no share of images; give 0.7 for 70 %")
            for text in ("70", "0", "-0.1", "nan", "good", "")
        ),
        *(
            ({"max_memory": text}, f"`max_memory`: {text!r} is no size; give a number with its unit, such as 50MB")
            for text in ("", "50", "0MB", "-5MB", "much", "5 parsecs", "inf", "nanMB")
        ),
        ({"max_size": "0.1B"}, "`max_size`: '0.1B' is no size"),
        *(
            ({"max_latency": "1s", "batch": text}, f"`batch`: {text!r} is no batch size; give a whole number from 1")
            for text in ("0", "-1", "1.5", "all", "")
        ),
    ],
)
def test_a_bound_that_cannot_be_read_is_a_sentence(bounds: dict[str, Any], words: str, tmp_path: Path) -> None:
    """A bound that is missing, without its unit, negative or no number is refused before any record is read."""
    with pytest.raises(UsageError, match=f"^{re.escape(words)}"):
        choose([tmp_path / "nowhere"], **bounds)


def test_a_choice_needs_no_artifacts_and_changes_nothing(engine: Engine, run: Run) -> None:
    """Only records are read, and no file is written."""
    folder = run(engine("torch", [0.001]))
    before = {file: file.read_bytes() for file in folder.rglob("*")}
    choose([folder], max_latency="1s")
    assert {file: file.read_bytes() for file in folder.rglob("*")} == before


def test_a_disturbed_engine_is_not_chosen(engine: Engine, run: Run) -> None:
    """An engine whose latency was disturbed is not judged, and says why."""
    record = engine("torch", [0.001], model="nin")
    latency, *others = record.measurements
    waiting = latency.model_copy(update={"remarks": {"waited_share": 0.4}})
    busy = record.model_copy(update={"measurements": (waiting, *others)})
    found = choose([run(busy, engine("torch", [0.002], model="vgg"))], max_latency="1s")
    assert states(found) == [("vgg", "chosen"), ("nin", "not judged")]
    assert found.standings[1].words == "† disturbed: a thread waited for a core for 40.0 % of the time"
