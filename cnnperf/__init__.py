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
    from cnnperf.errors import CnnperfError as CnnperfError
    from cnnperf.errors import CnnperfWarning as CnnperfWarning
    from cnnperf.measuring.infer import infer as infer
    from cnnperf.measuring.profile import profile as profile
    from cnnperf.measuring.suite import run as run
    from cnnperf.record import Machine as Machine
    from cnnperf.record import Measurement as Measurement
    from cnnperf.record import Record as Record
    from cnnperf.record import read as read
    from cnnperf.regression.ab import ab as ab
    from cnnperf.regression.check import compare as compare
    from cnnperf.regression.verdict import Comparison as Comparison
    from cnnperf.regression.verdict import Verdict as Verdict
    from cnnperf.suite import Suite as Suite
    from cnnperf.suite import load_suite as load_suite
    from cnnperf.suite import plan as plan
    from cnnperf.tables.curves import curves as curves
    from cnnperf.tables.layers import layers as layers
    from cnnperf.tables.leaderboard import rank as rank
    from cnnperf.task import Cell as Cell
    from cnnperf.task import Choice as Choice
    from cnnperf.task import Provenance as Provenance
    from cnnperf.task import Task as Task

_HOMES = {
    "CnnperfError": "errors",
    "CnnperfWarning": "errors",
    "ab": "regression.ab",
    "compare": "regression.check",
    "curves": "tables.curves",
    "layers": "tables.layers",
    "rank": "tables.leaderboard",
    "Machine": "record",
    "Measurement": "record",
    "Record": "record",
    "read": "record",
    "run": "measuring.suite",
    "infer": "measuring.infer",
    "profile": "measuring.profile",
    "Cell": "task",
    "Choice": "task",
    "Provenance": "task",
    "Suite": "suite",
    "Task": "task",
    "Comparison": "regression.verdict",
    "Verdict": "regression.verdict",
    "load_suite": "suite",
    "plan": "suite",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - the names are listed once, above


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cnnperf' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cnnperf.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
