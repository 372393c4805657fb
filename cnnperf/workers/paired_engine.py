"""One engine of a pair, the child's side: told on stdin what to load and when to work, it answers on a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from time import perf_counter, sleep
from typing import Any

from cnnperf import registry
from cnnperf.bench import Bench
from cnnperf.datasets import open_arrays
from cnnperf.duet.turns import Baton, PartnerGoneError, Turns, play
from cnnperf.errors import in_words
from cnnperf.inference.pairs import WARMUP_S, Arm
from cnnperf.ipc.channel import Line
from cnnperf.timing.sampling import SPAN, Plan, collector_off, settle

REST_S = 0.02
"""Where threads wait by spinning, those of the side whose turn is over keep a core for some milliseconds (GNU's OpenMP
for 300,000 rounds): so long a turn waits before it begins."""
READY_S = 0.02
"""A turn begins with calls that are not timed, for so long: what is asked is how an engine works, not how it wakes."""


class Side:
    """Answers what it is told; the batch that it bound last is what it times."""

    def __init__(self, arm: Arm, baton: Baton) -> None:
        from cnnperf.inference.samples import Inputs
        from cnnperf.inference.source import loaded, source_of

        cell = arm.task.cell
        device = registry.find("devices", cell.device.name)(**cell.device.options)
        dataset = open_arrays(arm.folder, arm.task.data)
        needs = {record.task.stage: record for record in arm.needs}
        bench = Bench(arm.task, device, dataset, arm.run, lambda **_: None, {}, needs)
        self._baton = baton
        self._rest_s = REST_S if arm.task.waiting == "spin" else 0.0
        self._inputs = Inputs.of(bench)
        self._engine = loaded(source_of(bench), arm.engine)
        self._call: Callable[[], object] = lambda: None
        self.verbs = {"open": self._open, "settle": self._settle, "play": self._play}

    def _open(self, request: dict[str, Any]) -> dict[str, Any]:
        self._call = self._engine.bind(self._inputs.batch(request["batch_size"]))
        self._call()
        return {}

    def _settle(self, _: dict[str, Any]) -> dict[str, Any]:
        with collector_off():
            calls, warmup = settle(self._call, self._engine.synchronize, Plan(warmup_s=WARMUP_S))
        last = sorted(each.wall_s for each in warmup.samples[-SPAN:])[SPAN // 2]
        return {"calls": calls, "call_s": last / calls}

    def _play(self, request: dict[str, Any]) -> dict[str, Any]:
        turns = Turns.model_validate(request)
        done = play(self._call, self._engine.synchronize, turns, self._baton, get_ready=self._get_ready)
        return done.model_dump(mode="json")

    def _get_ready(self) -> None:
        """Find threads and caches again, which a first call after the other's turn pays for with up to its own time."""
        sleep(self._rest_s)
        until = perf_counter() + READY_S
        while perf_counter() < until:
            self._call()
            self._engine.synchronize()


def main(line: Line, baton: Baton) -> None:
    """Load what the first line names, then answer until there is nothing more to answer."""
    try:
        side = Side(Arm.model_validate_json(sys.stdin.readline()), baton)
        line.say(hello={})
        for text in sys.stdin:
            request = json.loads(text)
            line.say(**{request["do"]: side.verbs[request["do"]](request["with"])})
    except PartnerGoneError:
        return  # Why it is gone is the parent's to find out.
    except Exception as fault:
        line.say(error=in_words(fault))


if __name__ == "__main__":
    main(Line(int(sys.argv[2])), Baton(int(sys.argv[1])))
