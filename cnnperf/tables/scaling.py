"""How the speed of a training grows with its processes: efficiencies against one process of the same run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from cnnperf import registry
from cnnperf.errors import UsageError
from cnnperf.tables.repeats import Repeats
from cnnperf.tables.table import Value
from cnnperf.training.recipe import images_per_step, number_of

RATES = ("lr", "bias_lr", "muon_lr")
SHARED = "gloo"
"""Backend of processes that share a processor."""


def processes_of_training(repeats: Repeats) -> int:
    """Return the processes that train the network together."""
    number = number_of(repeats.task.settings, "processes")
    return number if isinstance(number, int) and number > 0 else 1


def fact_of_processes(repeats: Repeats, name: str) -> Value:
    """Return a remark about the processes of a training; None for one process, or if no repeat ended well."""
    return next((m.remarks[name] for r in repeats.ok for m in r.find("train.processes") if name in m.remarks), None)


def spread_of_ranks(repeats: Repeats) -> float | None:
    """Return the largest difference between the speeds of a training's processes, over their median."""
    found = [m.values for r in repeats.ok for m in r.find("train.rank_images_per_s")]
    spreads = [(max(speeds) - min(speeds)) / median(speeds) for speeds in found]
    return median(spreads) if spreads else None


@dataclass(frozen=True, slots=True)
class Scaling:
    """The efficiencies of a training by several processes; None for one process, or without a row to compare with."""

    strong: float | None = None
    weak: float | None = None

    @classmethod
    def of(cls, repeats: Repeats, of_run: Iterable[Repeats]) -> Scaling:
        """Compare a training with those by one process of its run that take the same steps, other rates or budgets."""
        number, images = processes_of_training(repeats), images_per_step(repeats.task.settings)
        if number == 1 or not images:
            return cls()
        work = _work(repeats)
        alone = [each for each in of_run if processes_of_training(each) == 1 and _work(each) == work]
        by_batch = {images_per_step(each.task.settings): each for each in reversed(alone)}
        return cls(_efficiency(repeats, by_batch.get(images)), _efficiency(repeats, by_batch.get(images // number)))


def _work(repeats: Repeats) -> str:
    """Return all that decides the work of an image in a step, but for the batch size and the processes, as JSON."""
    task = repeats.task
    try:
        untimed = registry.declared("stages", task.stage).get("UNTIMED", ())
    except UsageError:
        untimed = ()
    left_out = {*untimed, *RATES, "batch_size", "processes"}
    plain = task.cell.model_copy(update={"model": task.cell.model.model_copy(update={"sections": {}})})
    settings = {name: value for name, value in task.settings.items() if name not in left_out}
    same = task.model_copy(update={"cell": plain, "settings": settings, "repeat": 0, "seed": 0, "needs": ()})
    return json.dumps([same.content, repeats.place, repeats.sitting], sort_keys=True, default=str)


def _efficiency(repeats: Repeats, alone: Repeats | None) -> float | None:
    """Return the speed per device, on the CPU per thread, over that of one process; None if either is unknown."""
    if alone is None or not (repeats.median_speeds and alone.median_speeds):
        return None
    number, threads = processes_of_training(repeats), repeats.task.threads
    resources: float = number
    if fact_of_processes(repeats, "backend") == SHARED and threads:
        resources = number * max(1, threads // number) / threads
    return median(repeats.median_speeds) / median(alone.median_speeds) / resources
