"""Benchmark convolutional networks: trained on real data, each in its own process, every raw sample kept.

    suite = cnnperf.load_suite("cifar")
    for record in cnnperf.run(suite, Path("results/mine")):
        print(record.task.label, record.status)
    print(cnnperf.rank([Path("results/mine")]))

Names are imported when they are first used, so that `import cnnperf` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnperf.check import compare as compare
    from cnnperf.errors import CnnperfError as CnnperfError
    from cnnperf.errors import CnnperfWarning as CnnperfWarning
    from cnnperf.layer_table import layers as layers
    from cnnperf.leaderboard import curves as curves
    from cnnperf.leaderboard import rank as rank
    from cnnperf.record import Machine as Machine
    from cnnperf.record import Measurement as Measurement
    from cnnperf.record import Record as Record
    from cnnperf.record import read as read
    from cnnperf.runner import run as run
    from cnnperf.suite import Suite as Suite
    from cnnperf.suite import load_suite as load_suite
    from cnnperf.suite import plan as plan
    from cnnperf.task import Cell as Cell
    from cnnperf.task import Choice as Choice
    from cnnperf.task import Provenance as Provenance
    from cnnperf.task import Task as Task
    from cnnperf.verdict import Comparison as Comparison
    from cnnperf.verdict import Verdict as Verdict

_HOMES = {
    "CnnperfError": "errors",
    "CnnperfWarning": "errors",
    "compare": "check",
    "curves": "leaderboard",
    "layers": "layer_table",
    "rank": "leaderboard",
    "Machine": "record",
    "Measurement": "record",
    "Record": "record",
    "read": "record",
    "run": "runner",
    "Cell": "task",
    "Choice": "task",
    "Provenance": "task",
    "Suite": "suite",
    "Task": "task",
    "Comparison": "verdict",
    "Verdict": "verdict",
    "load_suite": "suite",
    "plan": "suite",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - the names stand once, above


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cnnperf' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cnnperf.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
