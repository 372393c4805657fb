"""Trainings by several processes in the leaderboard: their columns, their efficiencies, and where they have no rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnnperf.record import Measurement, Record, single
from cnnperf.reports import _readable
from cnnperf.tables.leaderboard import PROCESSES_NOTE, leaderboard
from cnnperf.tables.leaderboard_row import OF_SEVERAL_PROCESSES, LeaderboardRow
from cnnperf.tables.report import report_of_records
from cnnperf.tables.table import Table

Trained = Callable[..., Record]


def several(trained: Trained, processes: int, backend: str = "gloo", model: str = "lenet", **changes: Any) -> Record:
    """Return the record of a training by several processes, as a suite names it."""
    measured = [
        single("train.processes", "count", processes, None, {"backend": backend, "threads_each": 1}),
        single("train.allreduced_bytes", "bytes", 4000),
        Measurement(metric="train.rank_images_per_s", unit="images/s", better=None, values=(90.0, 100.0, 110.0)),
    ]
    choice = {"name": model, "train": {"processes": processes}}
    return trained(choice, processes=processes, measured=measured, **changes)


def board(*records: Record) -> Table[LeaderboardRow]:
    """Return the leaderboard of one run."""
    return leaderboard({"suite/run": records})


def row_of_several(*records: Record) -> LeaderboardRow:
    """Return the one row of several processes."""
    [row] = [row for row in board(*records).rows if row.processes != 1]
    return row


def test_one_process_has_none_of_the_columns(trained: Trained) -> None:
    """Without a training by several processes the leaderboard has no column of them, and the report no note."""
    names = [column.name for column in board(trained(), trained("vgg")).columns]
    assert not {*names} & {*OF_SEVERAL_PROCESSES}
    assert PROCESSES_NOTE not in report_of_records({"run": [trained()]}, {"run": Path()}).notes


def test_several_processes_are_described(trained: Trained) -> None:
    """The row has the number, the library, the threads and the bytes; the other rows have one process."""
    table = board(trained(), several(trained, 2))
    assert {*OF_SEVERAL_PROCESSES} < {column.name for column in table.columns}
    assert not [column.name for column in table.columns if column.name in ("train_processes", "train_allreduced_bytes")]
    assert [row.processes for row in table.rows] == [1, 2]
    row = table.rows[1]
    assert (row.backend, row.threads_each, row.allreduced_bytes) == ("gloo", 1, 4000)
    assert row.rank_spread == pytest.approx(0.2)
    assert PROCESSES_NOTE in report_of_records({"run": [several(trained, 2)]}, {"run": Path()}).notes


@pytest.mark.parametrize(("backend", "device", "strong"), [("gloo", "cpu", 0.8), ("nccl", "cuda", 0.4)])
def test_efficiency_is_speed_per_resource(trained: Trained, backend: str, device: str, strong: float) -> None:
    """Two GPUs count twice; on the CPU, two processes of one thread each have the two threads of one process."""
    alone = trained(step_s=[0.04], device=device)
    row = row_of_several(alone, several(trained, 2, backend, step_s=[0.05], device=device))
    assert row.strong_scaling == pytest.approx(strong)
    assert row.weak_scaling is None


def test_weak_scaling_compares_equal_parts(trained: Trained) -> None:
    """A batch of 128 in two processes is compared with one of 64 in one, at any rate and budget."""
    small = trained(step_s=[0.03], batch_size=64, lr=0.1)
    row = row_of_several(small, several(trained, 2, step_s=[0.05], lr=0.2, seconds=30.0))
    assert row.strong_scaling is None
    assert row.weak_scaling == pytest.approx((128 / 0.05) / (64 / 0.03))


@pytest.mark.parametrize(
    "other",
    [
        {"model": {"name": "lenet", "pool": "max"}},
        {"precision": "bf16"},
        {"host": "shed"},
        {"dataset": "mnist"},
        {"status": "failed"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_work_is_not_compared(trained: Trained, other: dict[str, Any]) -> None:
    """One process of another network, precision, machine or dataset, or that failed, is no reference."""
    row = row_of_several(trained(**other), several(trained, 2))
    assert (row.strong_scaling, row.weak_scaling) == (None, None)


def test_another_run_is_not_compared(trained: Trained) -> None:
    """One process of another run is no reference: the two were not measured in turns."""
    rows = leaderboard({"suite/one": (trained(),), "suite/two": (several(trained, 2),)}).rows
    assert [row.strong_scaling for row in rows] == [None, None]


def test_processes_of_one_processor_have_no_rank_and_no_mark(trained: Trained) -> None:
    """A row of gloo follows the ranked rows, however accurate and fast it is."""
    records = [several(trained, 2, accuracy=0.9, step_s=[0.001]), trained(accuracy=0.5), trained("vgg", accuracy=0.4)]
    table = board(*records)
    assert [(row.processes, row.rank) for row in table.rows] == [(1, 1), (1, 2), (2, None)]
    for column in table.columns:
        assert not _readable.best(column, table.rows)[2]


def test_several_gpus_are_ranked_among_themselves(trained: Trained) -> None:
    """Rows of two GPUs are ranked against each other, and not against those of one."""
    pair = [
        several(trained, 2, "nccl", name, device="cuda", accuracy=of) for name, of in (("lenet", 0.9), ("vgg", 0.1))
    ]
    table = board(trained(device="cuda", accuracy=0.5), *pair)
    assert [[(row.processes, row.rank) for row in group.rows] for group in table.groups()] == [
        [(1, 1)],
        [(2, 1), (2, 2)],
    ]
    assert [group.rows[0].budget_label for group in table.groups()] == ["60 s", "60 s on 2 GPUs"]
