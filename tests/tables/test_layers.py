"""Tables of profiles: one row per layer, with times that add up."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from cnnperf.record import Record, single
from cnnperf.reports._layers import bar, folded, profile_remarks, sentences, write
from cnnperf.reports._readable import cell_text, footnotes
from cnnperf.tables.layers import layer_table, profiles
from cnnperf.tables.profiles import profile_table
from cnnperf.tables.report import report_of_records
from cnnperf.task import Choice


def test_a_layer_has_a_row_with_all_that_was_measured(profiled: Record) -> None:
    """A layer's row has medians, FLOPs, rates and the roofline; a missing measurement is None."""
    rows = {row["layer"]: row for row in layer_table({"run": (profiled,)}).rows}
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


def test_samples_are_the_values_behind_each_median(profiled: Record) -> None:
    """`samples` is the smaller count of the two directions, and for `(data)` the count of its own values."""
    [forward] = profiled.find("profile.forward_seconds", layer="block.conv")
    [backward] = profiled.find("profile.backward_seconds", layer="block.conv")
    [data] = profiled.find("profile.seconds", layer="(data)")
    changed = {
        id(forward): forward.model_copy(update={"values": (0.002,) * 2}),
        id(backward): backward.model_copy(update={"values": (0.004,) * 5}),
        id(data): data.model_copy(update={"values": (0.001,) * 7}),
    }
    measured = tuple(changed.get(id(m), m) for m in profiled.measurements)
    table = layer_table({"run": (profiled.model_copy(update={"measurements": measured}),)})
    samples = {row["layer"]: row["samples"] for row in table.rows}
    assert (samples["block.conv"], samples["(data)"]) == (2, 7)
    [meaning] = [column.meaning for column in table.columns if column.name == "samples"]
    assert "without for `(data)` and `(optimizer)`" in meaning


def test_a_metric_without_a_column_is_left_out(profiled: Record) -> None:
    """A metric without a column does not change the table of layers."""
    other = single("profile.registers", "count", 64, layer="block.conv", batch_size=32, mode="train")
    later = profiled.model_copy(update={"measurements": (*profiled.measurements, other)})
    assert layer_table({"run": (later,)}) == layer_table({"run": (profiled,)})


def test_the_network_has_a_row_too(profiled: Record) -> None:
    """The network's row has the sums over its layers, the overhead of the hooks and the MFU."""
    [row] = profile_table({"run": (profiled,)}).rows
    assert row["forward_s"] == pytest.approx(0.0026)
    assert row["overhead"] == pytest.approx(0.1)
    assert row["mfu"] == pytest.approx(1e7 / (0.007 * 1e10))
    assert (row["macs"], row["saved_bytes"], row["peak_at"]) == (5_000_000, 4096, "block.relu backward")


def probed(profiled: Record, factor: float, **changes: Any) -> Record:
    """Return the record of another model whose probes ran at `factor` times the speed."""
    measured = [
        m.model_copy(update={"values": tuple(factor * v for v in m.values)}) if "probe" in m.tags else m
        for m in profiled.measurements
    ]
    cell = profiled.task.cell.model_copy(update={"model": Choice(name=f"model{factor}")})
    task = profiled.task.model_copy(update={"cell": cell, **changes})
    return profiled.model_copy(update={"task": task, "key": task.key, "measurements": tuple(measured)})


def test_the_profiles_of_a_run_are_held_against_one_peak(profiled: Record) -> None:
    """Rows of one machine and thread count share the best of all their probes; other threads and runs do not."""
    records = [profiled, probed(profiled, 2.0), probed(profiled, 4.0, threads=7)]
    rows = profile_table({"run": records, "other": [probed(profiled, 8.0)]}).rows
    assert [row["peak_flops_per_s"] for row in rows] == pytest.approx([2e10, 2e10, 4e10, 8e10])
    assert [row["mfu"] for row in rows] == pytest.approx([1e7 / (0.007 * peak) for peak in (2e10, 2e10, 4e10, 8e10)])
    assert rows[0]["peak_bytes_per_s"] == rows[1]["peak_bytes_per_s"]
    [first, *_] = layer_table({"run": records[:2]}).rows
    assert first["forward_share"] == pytest.approx(5e9 / 2e10)


def test_a_block_is_a_subtotal_and_nothing_is_lost(profiled: Record) -> None:
    """At depth 1 both layers of a block are one row, and the sum of the seconds is unchanged."""
    [profile] = profiles({"run": (profiled,)})
    rows = list(folded(profile.rows, 1))
    assert [row["layer"] for row in rows] == ["block", "(data)", "(unattributed)"]
    assert sum(row["seconds"] for row in rows) == pytest.approx(profile.total("seconds"))


def test_whatever_adds_up_has_a_subtotal(profiled: Record) -> None:
    """A block's row has sums of FLOPs, bytes and calls, but no rate, share or peak."""
    [profile] = profiles({"run": (profiled,)})
    block = next(iter(folded(profile.rows, 1)))
    assert (block["forward_flops"], block["forward_moved_bytes"], block["calls"]) == (10_000_000, 200_000, 2)
    assert (block["forward_share"], block["forward_flops_per_s"], block["peak_at"]) == (None, None, None)


def test_a_module_that_was_never_called_is_said_to_be(profiled: Record) -> None:
    """An uncalled module has a row without a time, and a remark names it."""
    described = {"order": 2, "type": "Linear"}
    idle = single("profile.calls", "count", 0, None, described, layer="block.idle", batch_size=32, mode="train")
    [profile] = profiles({"run": (profiled.model_copy(update={"measurements": (*profiled.measurements, idle)}),)})
    row = next(row for row in profile.rows if row["layer"] == "block.idle")
    assert (row["calls"], row["seconds"]) == (0, None)
    assert "Never called: block.idle." in profile_remarks(profile)
    assert not any(
        remark.startswith("Never called") for remark in profile_remarks(next(profiles({"run": (profiled,)})))
    )


def test_three_sentences_say_what_a_reader_wants(profiled: Record) -> None:
    """Three sentences name the layers with half of the time, the memory peak and the lowest share of the roofline."""
    [profile] = profiles({"run": (profiled,)})
    time, memory, roofline = sentences(profile)
    assert time == "Half of the time goes to block.conv: 88.2 % of 6.80 ms."
    assert memory == "The memory peak, 8.00 KiB above the step's start, is in block.relu backward."
    assert "block.relu forward, at 20.0 % of the attainable rate (memory-bound)" in roofline


def written(profiled: Record, direction: str, seconds: float) -> tuple[str, str]:
    """Return the line of `block.conv` and the whole text, for a given time in one direction."""
    measured = tuple(
        m.model_copy(update={"values": (seconds,)})
        if m.metric == f"profile.{direction}_seconds" and m.tags["layer"] == "block.conv"
        else m
        for m in profiled.measurements
    )
    [profile] = profiles({"run": (profiled.model_copy(update={"measurements": measured}),)})
    out = io.StringIO()
    write(profile, out)
    return next(line for line in out.getvalue().splitlines() if line.startswith("block.conv")), out.getvalue()


def test_a_layer_above_the_measured_peak_says_so(profiled: Record) -> None:
    """A share above 100 % is printed in full with a remark, and a line names the missing probe."""
    row, text = written(profiled, "forward", 0.0008)
    assert "125.0 % > measured peak" in row
    missing = (
        "Above the measured peak: block.conv forward; the missing probe is a product or convolution faster than matmul."
    )
    assert missing in text


@pytest.mark.parametrize("seconds", [0.001, 0.001 / 1.0003])
def test_a_layer_at_the_measured_peak_is_not_above_it(profiled: Record, seconds: float) -> None:
    """A share that is printed as 100.0 % gets no remark."""
    row, text = written(profiled, "forward", seconds)
    assert "100.0 %" in row
    assert "measured peak" not in row
    assert "Above the measured peak" not in text


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("share", "reason"),
    [
        (1.02, "the excess is at most 5.0 %, too small to assume a missing probe"),
        (1.2, "faster than measured memory; its data stays in cache"),
    ],
)
def test_both_directions_above_the_measured_peak_are_named(
    profiled: Record, direction: str, share: float, reason: str
) -> None:
    """A direction above 100 % is named with the missing probe, or with the reason why none is assumed."""
    [moved] = profiled.find("profile.forward_moved_bytes", layer="block.relu")
    moved = moved.model_copy(update={"metric": f"profile.{direction}_moved_bytes", "tags": dict(moved.tags)})
    moved.tags["layer"] = "block.conv"
    kept = tuple(m for m in profiled.measurements if "macs" not in m.metric and "moved" not in m.metric)
    memory_bound = profiled.model_copy(update={"measurements": (*kept, moved)})
    _, text = written(memory_bound, direction, 100_000 / (share * 1e9))
    assert [line for line in text.splitlines() if line.startswith("Above")] == [
        f"Above the measured peak: block.conv {direction}; {reason}."
    ]


def test_a_bar_is_as_long_as_its_value() -> None:
    """A bar has at most six cells, in steps of an eighth."""
    assert (bar(1, 1), bar(0, 1), bar(0.5, 1), bar(1 / 64, 1)) == ("█" * 6, " " * 6, "███   ", "▏     ")


def test_the_notes_say_that_a_profile_is_eager_where_the_training_compiles(profiled: Record) -> None:
    """The notes name the networks whose training compiles, and nothing where none does."""

    def notes(**train: Any) -> tuple[str, ...]:
        task = profiled.task.model_copy(update={"settings": {"train": train}})
        record = profiled.model_copy(update={"task": task})
        return report_of_records({"suite/run": [record]}, {"suite/run": Path()}).notes

    assert [note for note in notes(compile=True) if note.startswith("eager: the training of lenet ")]
    assert not [note for note in (*notes(compile=False), *notes()) if note.startswith("eager")]


WAITED = "a thread waited for a core for 40.0 % of the time"


def disturbed(profiled: Record) -> Record:
    """Return the record of a profile of whose steps a thread waited for a core for much of the time."""
    measured = [
        m.model_copy(update={"remarks": {**m.remarks, "waited_share": 0.4}})
        if m.metric == "profile.step_seconds"
        else m
        for m in profiled.measurements
    ]
    return profiled.model_copy(update={"measurements": tuple(measured)})


def test_a_disturbed_profile_says_so_wherever_its_times_are(profiled: Record) -> None:
    """Profile and layers name the disturbance, printed times have the mark of doubt, and other figures have none."""
    records = {"run": (disturbed(profiled),)}
    table = profile_table(records)
    assert [row.disturbed for row in (*table.rows, *layer_table(records).rows)] == [WAITED] * 5
    [note] = footnotes(table)
    assert note.startswith("† lenet batch 32: step, forward, backward, MFU, overhead of hooks: disturbed: ")
    columns = {column.name: column for column in table.columns}
    assert cell_text(columns["step_s"], table.rows[0]) == "7.00 ms †"
    assert "†" not in cell_text(columns["parameters"], table.rows[0])
    [profile] = profiles(records)
    out = io.StringIO()
    write(profile, out)
    assert f"† disturbed: {WAITED}." in out.getvalue().splitlines()
    assert all(f"{head} †" in out.getvalue() for head in ("all", "forward", "backward", "GFLOP/s"))
    assert [row.disturbed for row in profile_table({"run": (profiled,)}).rows] == [None]


def test_a_profile_that_stayed_disturbed_has_one_row(profiled: Record) -> None:
    """A profile that ended as `disturbed` has its figures in one row with its status and its reason."""
    ended = disturbed(profiled).model_copy(update={"status": "disturbed", "error": WAITED})
    [row] = profile_table({"run": (ended,)}).rows
    assert (row.status, row.reason, row.disturbed, row.step_s) == ("disturbed", WAITED, WAITED, 0.007)
