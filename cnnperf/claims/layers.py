"""The layer profile compared with a training step written by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from cnnperf.claims import Bar, CheckedFigure, Context, NotApplicable
from cnnperf.claims._turns import in_turns

if TYPE_CHECKING:
    from cnnperf.bench import Bench
    from cnnperf.record import Measurement, Record
    from cnnperf.tables.layers import LayerProfile

CLAIM = "The rows of a layer profile add up to a step without hooks, and that is a step written by hand."
LIMIT_S = 150.0

BATCH = 32
MODEL = "trashnet"
PROFILING = "profile"
SECTION: dict[str, Any] = {
    "batch_sizes": [BATCH],
    "samples": 6,
    "train": {"optimizer": "sgd", "momentum": 0.9, "validation_images": 0, "memory_format": "contiguous"},
}
ROUNDS, STEPS = 7, 8
ROWS = Bar(low=-0.15, high=0.05, reason="claimed: rows sum up to 1.05 steps at most; hooks hide no more than 15 %")
STEP = Bar.within(0.15, "the profile's steps lie between steps with hooks, those by hand follow each other")


def check(context: Context) -> Iterator[CheckedFigure]:
    """Profile training steps of a small residual network, in turns with steps by hand."""
    from cnnperf import registry
    from cnnperf.profiling.settings import Profile
    from cnnperf.tables.layers import profiles

    bench, measure = _bench(context), registry.find("stages", PROFILING)
    settings = Profile.resolve({}, SECTION, {})
    taken: list[LayerProfile] = []

    def profiled_s() -> float:
        context.progress(f"profile {1 + len(taken)} of {ROUNDS}")
        [profile] = profiles({"": (_record(bench, tuple(measure(bench, settings))),)})
        taken.append(profile)
        return profile.one("step_seconds") or math.nan

    steps, by_hand = in_turns(profiled_s, _bare_step(bench), ROUNDS)
    rows = [profile.total("seconds") for profile in taken]
    if not all(rows) or any(map(math.isnan, steps)):
        raise NotApplicable("the profile holds no times")
    yield CheckedFigure.in_turns(
        f"all rows, {len(taken[0].rows)} of them",
        "s",
        rows,
        steps,
        source=f"steps without hooks of the same {ROUNDS} profiles",
        bar=ROWS,
    )
    yield CheckedFigure.in_turns(
        "a step without hooks",
        "s",
        steps,
        by_hand,
        source=f"a loop by hand: forward, loss, backward, SGD; {ROUNDS} pairs in turns",
        bar=STEP,
    )


def _bench(context: Context) -> Bench:
    import torch

    from cnnperf import registry
    from cnnperf.bench import Bench
    from cnnperf.datasets import Roots
    from cnnperf.task import Cell, Choice, Task

    torch.set_num_threads(context.threads)
    dataset = registry.find("datasets", "synthetic")(
        Roots(cache=context.scratch / "cache"), None, train=1024, test=BATCH
    )
    cell = Cell(dataset=Choice(name="synthetic"), model=Choice(name=MODEL), device=Choice(name=context.device))
    task = Task(
        cell=cell, stage=PROFILING, seed=0, threads=context.threads, timeout_s=context.seconds, data=dataset.provenance
    )
    return Bench(task, context.acquire(), dataset, context.scratch / "runs" / "layers", lambda **numbers: None)


def _record(bench: Bench, measured: tuple[Measurement, ...]) -> Record:
    from datetime import UTC, datetime

    from cnnperf.machine.fingerprint import fingerprint
    from cnnperf.record import Record

    return Record(
        task=bench.task,
        key=bench.task.key,
        machine=fingerprint(),
        started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        duration_s=0.0,
        status="ok",
        measurements=measured,
    )


def _bare_step(bench: Bench) -> Callable[[], float]:
    """Return a function that times a few training steps written without cnnperf, in seconds per step."""
    import torch
    from torch.nn.functional import cross_entropy

    from cnnperf import models
    from cnnperf.claims._torch_work import call_s, waiting

    data, device = bench.dataset, bench.device.torch_name
    channels, height, width = data.train_images.shape[1:]
    model = models.create(bench.task.cell.model, (channels, height, width), len(data.classes)).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    pixels = torch.from_numpy(data.train_images[:BATCH].copy()).to(device)
    labels = torch.from_numpy(data.train_labels[:BATCH].copy()).to(device)
    mean, std = (torch.tensor(each, device=device)[:, None, None] for each in (data.mean, data.std))

    def step() -> None:
        loss = cross_entropy(model((pixels.float() / 255 - mean) / std), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    wait = waiting(device)
    call_s(step, wait, 2 * STEPS)
    return lambda: call_s(step, wait, STEPS)
