"""Conditions of two runs that must be equal, those that only memory needs, and those that are listed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from compared import CELL, Held, Repeats, of, once

from cnnperf.errors import UsageError
from cnnperf.record import Libraries, Record


@pytest.mark.parametrize(
    ("facts", "words"),
    [({"memory_bytes": 2**33}, "memory (16 GiB against 8 GiB)"), ({"cores": 4}, "cores (2 against 4)")],
)
def test_memory_of_two_machines_is_not_compared(
    repeats: Repeats, held: Held, facts: dict[str, int], words: str
) -> None:
    """Memory on unlike machines is inconclusive and names the difference; counts are still compared."""
    [before] = repeats(0.9, measured=[once("x.bytes", "bytes", 100.0), once("x.count", "count", 7)])
    after = before.model_copy(update={"machine": before.machine.model_copy(update=facts)})
    comparison = held([before], [after])
    assert of(comparison, "x.bytes").outcome == "inconclusive"
    assert words in of(comparison, "x.bytes").remark
    assert of(comparison, "x.count").outcome == "same"
    assert any("machines differ" in note for note in comparison.notes)


def test_memory_of_two_names_of_like_machines_is_compared(repeats: Repeats, held: Held) -> None:
    """Another host name or slightly less memory does not prevent the comparison; a note lists the name."""
    memory = [once("x.bytes", "bytes", 100.0)]
    before, after = (repeats(0.9, 0.9, measured=memory, host=host) for host in ("box", "shed"))
    smaller = after[0].machine.model_copy(update={"memory_bytes": 2**34 - 2**24})
    comparison = held(before, [each.model_copy(update={"machine": smaller}) for each in after])
    assert of(comparison, "x.bytes").outcome == "same"
    assert "differences (allowed): host (box against shed)" in comparison.notes


def test_memory_of_unlike_hardware_of_one_name_is_not_compared(
    repeats: Repeats,
    held: Held,
    on: Callable[..., Record],
    unlike_hardware: tuple[str, dict[str, Any], dict[str, Any]],
) -> None:
    """Memory is inconclusive where processor or instruction sets differ, or the GPU of a cell that ran on one."""
    device, *sides = unlike_hardware
    [record] = repeats(0.9, measured=[once("x.bytes", "bytes", 100.0)], device=device)
    verdict = of(held(*([on(record, **facts)] for facts in sides)), "x.bytes")
    assert verdict.outcome == "inconclusive"
    assert "measure both on one machine: " in verdict.remark


ALLOCATORS = {"default": {}, "trimmed late": {"MALLOC_TRIM_THRESHOLD_": "4294967296", "OMP_WAIT_POLICY": "PASSIVE"}}


@pytest.mark.parametrize("after", ALLOCATORS)
def test_memory_under_another_allocator_is_not_compared(
    repeats: Repeats, held: Held, on: Callable[..., Record], after: str
) -> None:
    """Unlike allocator settings make memory incomparable; settings of other libraries are only listed."""
    records = repeats(0.9, 0.9, measured=[once("x.bytes", "bytes", 100.0)])
    sides = ([on(each, environment=ALLOCATORS[name]) for each in records] for name in ("default", after))
    comparison = held(*sides)
    verdict = of(comparison, "x.bytes")
    if after == "default":
        assert verdict.outcome == "same"
    else:
        assert "allocator (default against MALLOC_TRIM_THRESHOLD_=4294967296)" in verdict.remark
        assert any("OMP_WAIT_POLICY (none against PASSIVE)" in note for note in comparison.notes)


def test_the_gpu_of_the_machine_does_not_matter_to_what_ran_on_the_cpu(
    repeats: Repeats, held: Held, on: Callable[..., Record]
) -> None:
    """A cell on the CPU has the memory of its process, so an unlike GPU does not prevent the comparison."""
    records = repeats(0.9, 0.9, measured=[once("x.bytes", "bytes", 100.0)])
    assert of(held(records, [on(each, gpu="NVIDIA H100") for each in records]), "x.bytes").outcome == "same"


@pytest.mark.parametrize(("after", "note"), [("3.7.1", None), ("3.8.0", "onednn (3.7.1 against 3.8.0)")])
def test_processes_of_one_run_may_tell_of_unlike_libraries(
    repeats: Repeats, held: Held, on: Callable[..., Record], after: str, note: str | None
) -> None:
    """Processes of one run may record unlike libraries; only differences between the runs are listed."""
    first, second = repeats(0.9, 0.9)

    def run(onednn: str) -> list[Record]:
        torch = Libraries(openmp=("libgomp.so.1",), onednn=onednn)
        return [on(first, environment={"OMP_A": "1"}, libraries=torch), on(second, libraries=Libraries(openmp=()))]

    listed = [each for each in held(run("3.7.1"), run(after)).notes if each.startswith("differences (")]
    assert listed == ([f"differences (allowed): {note}"] if note else [])


UNLIKE = {
    "settings": ({"batch_size": 64}, r"train.batch_size \(128 against 64\)"),
    "a new setting": ({"momentum": 0.9}, r"train.momentum \(none against 0.9\)"),
    "data": (
        {"data": {"name": "synthetic", "sha256": "cd" * 32}},
        r"data.name \(cifar10 against synthetic\), data.sha",
    ),
}


@pytest.mark.parametrize(("changes", "words"), UNLIKE.values(), ids=UNLIKE)
def test_what_differs_is_named_and_refused(repeats: Repeats, held: Held, changes: dict[str, Any], words: str) -> None:
    """The refusal of unlike settings or data names the cell, the setting and both values."""
    with pytest.raises(UsageError, match=rf"{CELL} train: the runs differ in {words}"):
        held(repeats(0.9, 0.9), repeats(0.9, 0.9, **changes))


@pytest.mark.parametrize(("change", "words"), [({"seed": 8}, "seed .7 against 8"), ({"threads": 4}, "threads .2 aga")])
def test_seed_and_threads_must_be_equal(repeats: Repeats, held: Held, change: dict[str, int], words: str) -> None:
    """Runs with unlike seed or threads are refused."""
    [record] = repeats(0.9)
    with pytest.raises(UsageError, match=words):
        held([record], [record.model_copy(update={"task": record.task.model_copy(update=change)})])


def test_where_the_data_lay_does_not_matter(repeats: Repeats, held: Held) -> None:
    """Runs on the same data from unlike folders are compared."""
    assert held(repeats(*[0.9] * 3), repeats(*[0.9] * 3, data={"source": "elsewhere"})).exit_code == 0


def test_versions_may_differ_and_are_listed(repeats: Repeats, held: Held) -> None:
    """Unlike versions of Python, torch or the commit are allowed and listed in a note."""
    records = repeats(0.9, 0.9, 0.9)
    machine = records[0].machine.model_copy(
        update={"packages": {"torch": "2.10.0", "cnnperf": "0.1.0"}, "commit": "abc", "python": "3.12.1"}
    )
    comparison = held(records, [each.model_copy(update={"machine": machine}) for each in records])
    assert comparison.exit_code == 0
    [note] = [note for note in comparison.notes if note.startswith("differences (allowed)")]
    for words in ("python (3.11.4 against 3.12.1)", "commit (none against abc)", "torch (2.9.0 against 2.10.0)"):
        assert words in note
