"""The division of cores, on processors with one and two threads a core."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cnnperf.machine.cores import shares

SMT = {0: "0,4", 1: "1,5", 2: "2,6", 3: "3,7", 4: "0,4", 5: "1,5", 6: "2,6", 7: "3,7"}
NEIGHBOURS = {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}


@pytest.mark.parametrize(
    ("siblings", "allowed", "count", "expected"),
    [
        (SMT, range(8), 2, ((0, 1, 4, 5), (2, 3, 6, 7))),
        (SMT, range(8), 3, ((0, 4), (1, 5), (2, 6))),
        (SMT, (1, 2, 3, 5, 6), 2, ((1, 5), (2, 6))),
        (NEIGHBOURS, range(4), 2, ((0, 1), (2, 3))),
        ({}, range(4), 2, ((0, 1), (2, 3))),
        (NEIGHBOURS, range(2), 2, ((), ())),
    ],
)
def test_parts_have_whole_cores(
    tree: Callable[[Mapping[str, str]], Path],
    monkeypatch: pytest.MonkeyPatch,
    siblings: dict[int, str],
    allowed: range | tuple[int, ...],
    count: int,
    expected: tuple[tuple[int, ...], ...],
) -> None:
    """Each part has as many physical cores, with the threads of each that this process may use."""
    folder = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    root = tree({folder.format(core): f"{text}\n" for core, text in siblings.items()})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(allowed))
    assert shares(count, root / "sys") == expected
