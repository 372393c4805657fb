"""The layer profile compared with a training step written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import TYPE_CHECKING, Any

from cnnperf.claims import Bar, CheckedFigure, Context, NotApplicable

if TYPE_CHECKING:
    from cnnperf.bench import Bench
    from cnnperf.record import Measurement, Record

CLAIM = "The rows of a layer profile add up to a step without hooks, and that is a step written by hand."
LIMIT_S = 150.0

BATCH = 32
MODEL = "trashnet"
PROFILING = "profile"
SECTION: dict[str, Any] = {
    "batch_sizes": [BATCH],
    "samples": 12,
    "train": {"optimizer": "sgd", "momentum": 0.9, "validation_images": 0, "memory_format": "contiguous"},
}
ROUNDS, STEPS = 6, 4
ROWS = Bar(low=-0.15, high=0.05, reason="claimed: rows sum up to 1.05 steps at most; hooks hide no more than 15 %")
STEP = Bar.within(0.15, "both are taken in one process, one after the other: what it drifts by in a minute")


def check(context: Context) -> Iterator[CheckedFigure]:
    """Profile training steps of a small residual network, and time bare steps before and after."""
    from cnnperf import registry
    from cnnperf.profiling.settings import Profile
    from cnnperf.tables.layers import profiles

    bench, measure = _bench(context), registry.find("stages", PROFILING)
    bare = _bare_step(bench)
    before = [bare() for _ in range(ROUNDS)]
    context.progress("profiling")
    measured = tuple(measure(bench, Profile.resolve({}, SECTION, {})))
    after = [bare() for _ in range(ROUNDS)]
    record = _record(bench, measured)
    [profile] = profiles({"": (record,)})
    step_s, rows_s = profile.one("step_seconds"), profile.total("seconds")
    if not step_s or not rows_s:
        raise NotApplicable("the profile holds no times")
    [plain] = record.find("profile.step_seconds")
    yield CheckedFigure(
        quantity=f"all rows, {len(profile.rows)} of them",
        unit="s",
        figure=rows_s,
        reading=step_s,
        source="the profile's own steps without hooks",
        bar=ROWS,
        raw={row.layer: (row.seconds,) for row in profile.rows if row.seconds is not None},
    )
    yield CheckedFigure(
        quantity="a step without hooks",
        unit="s",
        figure=step_s,
        reading=median([*before, *after]),
        source="a loop by hand: forward, loss, backward, SGD",
        bar=STEP,
        raw={"figure": plain.values, "before": tuple(before), "after": tuple(after)},
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
