"""The cost of each waiting policy of torch's threads: training steps, quiet and beside a busy neighbour.

python tests/bench/waiting.py OUT.csv [ROUNDS]: one row per round, policy, network and condition. One process
a round and policy, in random order; the neighbour is a loop that keeps one core busy. Takes about six minutes a round
on two cores, which must have nothing else to do.
"""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from cnnperf import models, registry
from cnnperf.ipc.process import Launch
from cnnperf.machine.fingerprint import cpu_name, usable_cores
from cnnperf.task import Cell, Choice, Task

POLICIES: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    **{
        f"spin {rounds}": {"GOMP_SPINCOUNT": str(rounds)} for rounds in (1000, 3000, 10_000, 30_000, 100_000, 1_000_000)
    },
}
"""The variables of GNU's OpenMP that decide how a thread waits."""
COLUMNS = ("round", "policy", "network", "batch_size", "condition", "step_s", "images_per_s", "threads", "cpu")
BATCH_SIZE = 32
STEPS = 3
"""At least so many steps are timed …"""
SECONDS = 1.0
"""… for at least so long."""
LIMIT_S = 1200.0
"""Seconds after which a process counts as hung: many times what it takes."""


def main(out: Path, rounds: int) -> None:
    """Measure every policy in each round, and write each figure as one row at once."""
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for number in range(rounds):
            for policy in random.sample(list(POLICIES), len(POLICIES)):
                for network, condition, step_s in _measured(policy):
                    speed = BATCH_SIZE / step_s
                    row = (number, policy, network, BATCH_SIZE, condition, step_s, speed, usable_cores(), cpu_name())
                    writer.writerow(row)
                    file.flush()
                    print(*row[:7], sep="\t", flush=True)


def _measured(policy: str) -> Iterator[tuple[str, str, float]]:
    """Yield network, condition and seconds per step, from one process."""
    environment = Launch(threads=usable_cores(), waiting="spin").variables()
    command = [sys.executable, __file__, "--child"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment | POLICIES[policy], **pipes) as child, _limited(child):
        assert child.stdin is not None
        assert child.stdout is not None
        for network in registry.names("models"):
            for condition in ("quiet", "busy"):
                with _neighbour(condition):
                    print(network, file=child.stdin, flush=True)
                    yield network, condition, float(json.loads(child.stdout.readline()))
        child.stdin.close()


@contextmanager
def _limited(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kill a process at the end of the block or after the time limit, which ends every wait for its output."""
    timer = threading.Timer(LIMIT_S, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        process.kill()


@contextmanager
def _neighbour(condition: str) -> Iterator[None]:
    if condition == "quiet":
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            yield
        finally:
            busy.kill()


def _answer() -> None:
    """Time the steps of each network that is named on stdin; a repeated name continues with the same network."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    steps: dict[str, Any] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in steps:
            steps = {name: prepared(name)[0]}
        print(json.dumps(_timed(steps[name])), flush=True)


def prepared(name: str) -> tuple[Callable[[], Any], Any, Any]:
    """Return a function that takes a network's training step, the network, and a batch of its images, N×3×32×32."""
    from cnnperf.bench import Bench
    from cnnperf.datasets import Roots
    from cnnperf.devices.cpu import acquire
    from cnnperf.training.recipe import Recipe
    from cnnperf.training.setup import Data, Network

    choice = Choice(name=name)
    recommended = models.recipe(choice, "cifar10", "cpu")
    recipe = Recipe.resolve(recommended, {"steps": 1, "batch_size": BATCH_SIZE, "validation_images": 0}, {})
    with tempfile.TemporaryDirectory() as folder:
        load = registry.find("datasets", "synthetic")
        dataset = load(Roots(cache=Path(folder)), None, shape=(3, 32, 32), train=2048, test=32)
        cell = Cell(dataset=Choice(name="synthetic"), model=choice, device=Choice(name="cpu"))
        task = Task(cell=cell, stage="train", seed=0, threads=usable_cores(), timeout_s=60)
        bench = Bench(task, acquire(), dataset, Path(folder), lambda **_: None)
        data = Data.load(bench, recipe)
        network = Network.build(bench, recipe, data)
    step, batches = network.step(recipe, "cpu"), data.batches(recipe, 0)

    def call() -> None:
        step(*next(batches), 0.0)[0].item()

    return call, network.model, next(batches)[0]


def _timed(call: Any) -> float:
    for _ in range(STEPS):
        call()
    times: list[float] = []
    while len(times) < STEPS or sum(times) < SECONDS:
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return median(times)


if __name__ == "__main__":
    if sys.argv[1:] == ["--child"]:
        _answer()
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
