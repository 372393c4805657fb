"""The overhead of a task: from the start of its process to its first training step."""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

import pytest
from processes import started
from pytest_benchmark.fixture import BenchmarkFixture

from cnnperf.ipc.messages import Ready, SuiteRequest, TaskRequest
from cnnperf.ipc.process import Launch, WorkerProcess
from cnnperf.machine.fingerprint import fingerprint
from cnnperf.running.preflight import prepare
from cnnperf.suite import parse

BARE = """
import torch
import torch.nn.functional as F
from torch import nn
model = nn.Sequential(
    nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2),
    nn.Flatten(), nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10),
)
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
loss = F.cross_entropy(model(torch.randn(128, 1, 28, 28)), torch.randint(10, (128,)))
loss.backward()
optimizer.step()
print(float(loss), flush=True)
"""
ROUNDS = 7


@pytest.mark.realdata
def test_a_task_starts_about_as_fast_as_a_bare_script(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """With a warm cache, a LeNet task needs at most 1.2 times a bare script's time from process start to first step."""
    benchmark.group = "spawn to first step ÷ bare script ≤ 1.2 (LeNet, MNIST)"
    document = {"datasets": ["mnist"], "models": ["lenet"], "train": {"steps": 1, "test_images": 128}}
    [ready] = prepare(SuiteRequest(suite=parse(document, where="x", name="x"), where="x")).tasks
    pairs: list[tuple[float, float]] = []

    def take_turns() -> None:
        pairs.extend((_task_s(ready, tmp_path), _bare_s()) for _ in range(ROUNDS))

    take_turns()  # Once for the caches of the disk.
    pairs.clear()
    benchmark.pedantic(take_turns, rounds=1)
    ratio = statistics.median(task / bare for task, bare in pairs)
    task_s, bare_s = map(statistics.median, zip(*pairs, strict=True))
    benchmark.extra_info |= {"ratio": ratio, "task_s": task_s, "bare_s": bare_s}
    assert ratio <= 1.2


def _task_s(ready: Ready, folder: Path) -> float:
    assert ready.folder is not None
    request = TaskRequest(
        task=ready.task,
        machine=fingerprint(),
        run=folder,
        folder=ready.folder,
        answer=folder / "answer.json",
        nonce="0",
    )
    start = time.perf_counter()
    with WorkerProcess(request, log=folder / "log", launch=Launch.of(ready.task)) as worker:
        next(worker.messages(lambda: 60.0))  # Sent right after the only step.
        return time.perf_counter() - start


def _bare_s() -> float:
    start = time.perf_counter()
    with started([sys.executable, "-c", BARE], env=os.environ, stderr=None) as script:
        assert script.stdout is not None
        script.stdout.readline()
        return time.perf_counter() - start
