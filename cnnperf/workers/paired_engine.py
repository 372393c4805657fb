"""One engine of a pair, the child's side: it takes requests on stdin and answers on a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter, sleep
from typing import Any

from cnnperf import registry
from cnnperf.bench import Bench
from cnnperf.datasets import open_arrays
from cnnperf.duet.turns import Baton, play, settled
from cnnperf.inference.pairs import ENGINE_WARMUP_S
from cnnperf.ipc.channel import Line
from cnnperf.ipc.messages import Bind, Bound, Load, Loaded, Settle, Settled, Taken, Turns
from cnnperf.timing.sampling import Plan
from cnnperf.workers.verbs import Verbs, serve

REST_S = 0.02
"""Pause before a turn if threads wait by spinning: the threads of the side whose turn has ended occupy a core for some
milliseconds (300,000 iterations of GNU OpenMP)."""
READY_S = 0.02
"""Duration of the untimed calls at the start of a turn, so that the wake-up of an engine is not measured."""


class LoadedEngine:
    """The loaded engine, and the batch that was bound last and is timed."""

    def __init__(self, baton: Baton) -> None:
        self._baton = baton
        self._rest_s = 0.0
        self._inputs: Any = None
        self._engine: Any = None
        self._call: Callable[[], object] = lambda: None
        self.verbs: Verbs = {Load: self._load, Bind: self._bind, Settle: self._settle, Turns: self._play}

    def _load(self, load: Load) -> Loaded:
        from cnnperf.inference.inputs import Inputs
        from cnnperf.inference.source import loaded, source_of

        task = load.task
        device = registry.make("devices", task.cell.device.name, **task.cell.device.options)
        dataset = open_arrays(load.folder, task.data)
        needs = {record.task.stage: record for record in load.needs}
        bench = Bench(task, device, dataset, load.run, lambda **_: None, {}, needs)
        self._rest_s = REST_S if task.waiting == "spin" else 0.0
        self._engine = loaded(source_of(bench, reuses=True), load.engine)
        inputs = Inputs.of(bench)
        self._inputs = replace(inputs, are_pixels=True) if self._engine.takes_pixels else inputs
        return Loaded()

    def _bind(self, bind: Bind) -> Bound:
        """Bind a batch; a call is complete when it returns, like the single calls of `infer.latency`.

        Otherwise a sample of several calls would time the queue of one engine against the latency of another.
        """
        run, synchronize = self._engine.bind(self._inputs.batch(bind.batch_size)), self._engine.synchronize

        def call() -> None:
            run()
            synchronize()

        self._call = call
        self._call()
        return Bound()

    def _settle(self, _: Settle) -> Settled:
        return settled(self._call, self._engine.synchronize, Plan(warmup_s=ENGINE_WARMUP_S))

    def _play(self, turns: Turns) -> Taken:
        return play(self._call, self._engine.synchronize, turns, self._baton, get_ready=self._get_ready)

    def _get_ready(self) -> None:
        """Wake threads and refill caches; otherwise the first call after the other's turn may take twice its time."""
        sleep(self._rest_s)
        until = perf_counter() + READY_S
        while perf_counter() < until:
            self._call()


if __name__ == "__main__":
    serve(Line(int(sys.argv[2])), LoadedEngine(Baton(int(sys.argv[1]))).verbs)
