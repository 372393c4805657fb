"""One of several processes that train a network together: any rank but 0, which is the process of the task."""

from __future__ import annotations

import sys
from pathlib import Path

from cnnperf import registry
from cnnperf.bench import Bench, settings_of
from cnnperf.datasets import open_arrays
from cnnperf.errors import in_words
from cnnperf.ipc.channel import Line, single_request
from cnnperf.ipc.messages import Failed, Loaded, RankRequest
from cnnperf.training.augment import Part
from cnnperf.training.distributed import follow
from cnnperf.training.recipe import Recipe


def main(descriptor: int) -> None:
    """Train by the orders of rank 0; say why if that fails, and end with status 1."""
    line = Line(descriptor)
    request = single_request()
    assert isinstance(request, RankRequest)
    task = request.task
    try:
        device = registry.make("devices", request.device.name, **request.device.options)
        bench = Bench(task, device, open_arrays(request.folder, task.data), Path(), lambda **_: None)
        recipe = settings_of(task.stage).model_validate(task.settings)
        assert isinstance(recipe, Recipe)
        follow(bench, recipe, Part(request.rank, recipe.processes), request.port, lambda: line.say(Loaded()))
    except Exception as fault:
        line.say(Failed(reason=in_words(fault)))
        sys.exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
