"""The cost of each allocator setting: training step, forward pass and page faults of each network.

python tests/bench/allocators.py OUT.csv [ROUNDS]: one row per round, setting, network and call. One process a round and
setting, in random order. Takes about 40 seconds a round and setting on two cores, which must have nothing else to do.
"""

from __future__ import annotations

import csv
import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, get_args

from waiting import BATCH_SIZE, LIMIT_S, prepared

from cnnperf import registry
from cnnperf.ipc.process import Launch
from cnnperf.machine.fingerprint import cpu_name, usable_cores
from cnnperf.task import Allocator

COLUMNS = ("round", "allocator", "network", "call", "batch_size", "seconds", "page_faults", "threads", "cpu")
WARM_UP, CALLS = 5, 5
"""Calls that are not timed, and the least number of timed ones."""
SECONDS = 1.0
"""The least time of the timed calls together."""


def main(out: Path, rounds: int) -> None:
    """Measure both settings in each round, and write each figure as one row at once."""
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for number in range(rounds):
            for allocator in random.sample(get_args(Allocator), 2):
                for network, call, seconds, faults in _measured(allocator):
                    row = (number, allocator, network, call, BATCH_SIZE, seconds, faults, usable_cores(), cpu_name())
                    writer.writerow(row)
                    file.flush()
                    print(*row[:7], sep="\t", flush=True)


def _measured(allocator: Allocator) -> Iterator[tuple[str, str, float, float]]:
    """Yield network, call, seconds and page faults of each call, from one process per network."""
    environment = Launch(threads=usable_cores(), allocator=allocator).variables()
    for network in registry.names("models"):
        command = [sys.executable, __file__, "--child", network]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT_S)
        for call, figures in json.loads(done.stdout).items():
            yield network, call, *figures


def _answer(network: str) -> None:
    """Print the median seconds and page faults of a network's training step and forward pass."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    step, model, images = prepared(network)
    found = {"train.step": _timed(step)}
    model.eval()
    with torch.inference_mode():
        found["infer.forward"] = _timed(lambda: model(images))
    print(json.dumps(found))


def _timed(call: Callable[[], Any]) -> tuple[float, float]:
    for _ in range(WARM_UP):
        call()
    times: list[float] = []
    faults: list[int] = []
    while len(times) < CALLS or sum(times) < SECONDS:
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, perf_counter()
        call()
        times.append(perf_counter() - start)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return median(times), median(faults)


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        _answer(sys.argv[2])
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
