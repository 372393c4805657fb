"""Records of the profile stage become rows, a row a layer, that add up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cnnperf.layer_table import layer_table, profiles
from cnnperf.profile_table import profile_table
from cnnperf.record import Measurement, Record
from cnnperf.reports._layers import bar, folded, sentences

TAGS = {"batch_size": 32, "mode": "train"}


def m(quantity: str, unit: str, *values: float, **tags: str | int) -> Measurement:
    """Return a measurement of the profile stage."""
    return Measurement(metric=f"profile.{quantity}", unit=unit, better=None, values=values, tags={**tags, **TAGS})


@pytest.fixture
def record(trained: Callable[..., Record]) -> Record:
    """Return the record of a profile of two layers."""
    base = trained()
    probes = (
        Measurement(
            metric="profile.probe_flops_per_s", unit="FLOP/s", better=None, values=(9e9, 1e10), tags={"probe": "matmul"}
        ),
        Measurement(
            metric="profile.probe_bytes_per_s",
            unit="bytes/s",
            better=None,
            values=(1e9,),
            tags={"probe": "copy 256 MiB"},
        ),
    )
    measured = (
        *probes,
        m("parameters", "count", 80, weights="trained"),
        m("calls", "count", 1, layer="block.conv", order=0, type="Conv2d", outputs="32×8×14×14", dtype="float32"),
        m("calls", "count", 1, layer="block.relu", order=1, type="ReLU", outputs="32×8×14×14", dtype="float32"),
        m("forward_seconds", "s", 0.003, 0.001, 0.002, layer="block.conv"),
        m("forward_seconds", "s", 0.0005, layer="block.relu"),
        m("forward_seconds", "s", 0.0001, layer="(unattributed)"),
        m("backward_seconds", "s", 0.004, layer="block.conv"),
        m("seconds", "s", 0.0002, layer="(data)"),
        m("forward_macs", "count", 5_000_000, layer="block.conv"),
        m("forward_moved_bytes", "bytes", 100_000, layer="block.conv"),
        m("forward_moved_bytes", "bytes", 100_000, layer="block.relu", uncounted="relu"),
        m("saved_bytes", "bytes", 4096, layer="block.relu"),
        m("step_seconds", "s", 0.007, calls=1, disturbed="the load was 9.0 on 2 cores"),
        m("instrumented_step_seconds", "s", 0.0077),
        m("peak_above_start_bytes", "bytes", 8192, at="block.relu backward"),
    )
    task = base.task.model_copy(update={"stage": "profile"})
    return base.model_copy(update={"task": task, "measurements": measured})


def test_a_layer_has_a_row_with_all_that_was_measured(record: Record) -> None:
    """Medians of the samples, FLOPs twice the MACs, rates, the roofline; what was not measured is absent."""
    rows = {row["layer"]: row for row in layer_table({"run": (record,)}).rows}
    assert list(rows) == ["block.conv", "block.relu", "(data)", "(unattributed)"]
    conv, relu = rows["block.conv"], rows["block.relu"]
    assert (conv["forward_s"], conv["backward_s"], conv["seconds"]) == (0.002, 0.004, 0.006)
    assert (conv["forward_macs"], conv["forward_flops"]) == (5_000_000, 10_000_000)
    assert conv["forward_flops_per_s"] == pytest.approx(5e9)
    assert (conv["forward_bound"], conv["forward_share"]) == ("compute-bound", pytest.approx(0.5))
    assert (conv["type"], conv["outputs"], conv["weights"]) == ("Conv2d", "32×8×14×14", "trained")
    assert (relu["forward_macs"], relu["forward_uncounted"]) == (None, "relu")
    assert (relu["peak_above_start_bytes"], relu["peak_at"]) == (8192, "block.relu backward")
    assert conv["peak_at"] is None


def test_the_network_has_a_row_too(record: Record) -> None:
    """Sums over its layers, the step without hooks, what they cost, and MFU."""
    [row] = profile_table({"run": (record,)}).rows
    assert row["forward_s"] == pytest.approx(0.0026)
    assert row["overhead"] == pytest.approx(0.1)
    assert row["mfu"] == pytest.approx(1e7 / (0.007 * 1e10))
    assert (row["macs"], row["saved_bytes"], row["peak_at"]) == (5_000_000, 4096, "block.relu backward")


def test_a_block_is_a_subtotal_and_nothing_is_lost(record: Record) -> None:
    """At depth 1 both layers are one row; the sums are the same."""
    [profile] = profiles({"run": (record,)})
    rows = list(folded(profile.rows, 1))
    assert [row["layer"] for row in rows] == ["block", "(data)", "(unattributed)"]
    assert sum(row["seconds"] for row in rows) == pytest.approx(profile.total("seconds"))


def test_three_sentences_say_what_a_reader_wants(record: Record) -> None:
    """Where half of the time goes, where the peak stands, what is furthest from the roofline."""
    [profile] = profiles({"run": (record,)})
    time, memory, roofline = sentences(profile)
    assert time == "Half of the time goes to block.conv: 88.2 % of 6.80 ms."
    assert memory == "The memory peak, 8.00 KiB above the step's start, stands in block.relu backward."
    assert "block.relu forward: 20.0 % of what is attainable (memory-bound)" in roofline


def test_a_bar_is_as_long_as_its_value() -> None:
    """Eight cells at the most, in eighths."""
    assert (bar(1, 1), bar(0, 1), bar(0.5, 1), bar(1 / 64, 1)) == ("█" * 8, " " * 8, "████    ", "▏       ")
