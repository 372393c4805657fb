"""Fixtures for tests of claims: a context, a simulated lagging device, and one export for all engines."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_process import Worker, workers_here
from stand_ins import SMALL, Lagging

from cnnperf.claims import Context, _stages, _torch_work
from cnnperf.devices.cpu import acquire
from cnnperf.ipc.messages import TaskRequest
from cnnperf.ipc.process import WorkerProcess
from cnnperf.timing import sampling


@pytest.fixture
def lagging(monkeypatch: pytest.MonkeyPatch) -> Lagging:
    """Return the lagging device, whose time replaces every clock that the claims read."""
    device = Lagging()
    monkeypatch.setattr(time, "clock_gettime", lambda which: device.host_s)
    monkeypatch.setattr(sampling, "perf_counter_ns", lambda: round(1e9 * device.host_s))
    monkeypatch.setattr(_torch_work, "perf_counter", lambda: device.host_s)
    monkeypatch.setattr(_torch_work, "product", lambda name: device.call)
    monkeypatch.setattr(_torch_work, "waiting", lambda name: device.wait)
    return device


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., Context]:
    """Return a function that makes contexts, by default on the CPU."""

    def make(acquired: Any = None, /, **others: Any) -> Context:
        given = {"device": "cpu", "acquire": lambda: acquired or acquire(), "scratch": tmp_path}
        return Context(**{**given, "seconds": 100.0, "threads": 1, **others})

    return make


@pytest.fixture(scope="session")
def engines(once: Callable[[str, Callable[[Path], Any]], Any]) -> _stages.Made:
    """Train, export and infer once; training and inference run in separate processes, whose imports a claim checks."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)

    def make(folder: Path) -> _stages.Made:
        context = Context(device="cpu", acquire=acquire, scratch=folder, seconds=280.0, threads=1)
        with workers_here(), pytest.MonkeyPatch.context() as patch:
            patch.setattr("cnnperf.running.runner.WorkerProcess", worker)
            return _stages.ran(context, "engines", {**_stages.ENGINES, **SMALL})

    def worker(request: TaskRequest, **given: Any) -> Worker | WorkerProcess:
        kind = Worker if request.task.stage == "export" else WorkerProcess
        return kind(request, **given)

    made: _stages.Made = once("engines", make)
    return made
