"""Runs with everything that the page can show, at the size of real ones, made without any training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnperf import record as store
from cnnperf.record import PARITY, Artifact, Measurement, Record
from cnnperf.roofline import MEMORY_PROBE
from cnnperf.task import Task

Trained = Callable[..., Record]

HOSTILE = "<script>alert('model')</script>"
ERROR = "<img src=x onerror=alert('error')> & \"quotes\" </script>"
NETWORKS = (HOSTILE, "lenet", "nin", "alexnet", "vgg", "resnet", "trashnet")
CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LAYERS = ("conv1", "act1", "pool1", "conv2", "act2", "linear1")
POINTS = 20
BATCH = 32


def m(
    metric: str,
    unit: str,
    *values: float,
    better: str | None = "lower",
    remarks: Mapping[str, Any] = {},
    **tags: Any,
) -> Measurement:
    """Make a measurement."""
    return Measurement.model_validate(
        {"metric": metric, "unit": unit, "better": better, "values": values, "tags": tags, "remarks": remarks}
    )


def furnish(
    folder: Path, trained: Trained, *, networks: Sequence[str] = NETWORKS, repeats: int = 1, shift: float = 0.0
) -> Path:
    """Write a run of these networks through every stage, a failure and a skip at its end; return its folder."""
    folder.mkdir(parents=True)
    for index, network in enumerate(networks):
        rng = np.random.default_rng(index)
        for repeat in range(repeats):
            store.append(folder, _training(folder, trained, network, index, repeat, shift, rng))
        mode = "infer" if index % 2 else "train"
        store.append(folder, _staged(trained, network, "profile", _profile(mode, index), mode=mode))
        for engine in ("torch", "onnxruntime"):
            measured = _inference(engine, index, rng)
            store.append(folder, _staged(trained, network, "infer", measured, variant={"engine": engine}))
    store.append(folder, trained("mlp", status="failed", error=ERROR, seconds=None, steps=500))
    store.append(folder, trained("googlenet", device="cuda", status="skipped", error="no CUDA device"))
    return folder


def disturb(folder: Path, network: str) -> None:
    """Let a thread wait for a core in everything that was measured of a network of a run."""
    for record in store.read(folder):
        if record.task.cell.model.name == network:
            waiting = [
                each.model_copy(update={"remarks": {**each.remarks, "waited_share": 0.4}})
                for each in record.measurements
            ]
            store.append(folder, record.model_copy(update={"measurements": tuple(waiting)}))


def _training(
    folder: Path, trained: Trained, network: str, index: int, repeat: int, shift: float, rng: np.random.Generator
) -> Record:
    accuracy = 0.5 + index / 20 + repeat / 500 + shift
    counts = rng.integers(0, 40, (10, 10)) + np.diag([800] * 10)
    base = trained(
        network,
        accuracy=accuracy,
        n=10_000,
        repeat=repeat,
        step_s=rng.uniform(0.01, 0.02, 200),
        seconds=None,
        steps=500,
        measured=[
            *_curve(index, accuracy),
            m("train.loss", "1", *np.geomspace(2.3, 0.4, 500)),
            m("train.seconds", "s", 60.0 + index, better=None),
            m("train.steps", "count", 500, better=None),
            m("train.parameters", "count", 60_000 * (index + 1)),
            m("train.peak_above_start_bytes", "bytes", 2**25 + 1024 * index),
            m(
                "train.confusion", "count", *counts.ravel().tolist(), better=None,
                num_classes=10, rows="label", columns="prediction", remarks={"n": 10_000, "images": "all"},
            ),
        ],
    )  # fmt: skip
    path = f"artifacts/{base.key}/examples.npz"
    (folder / path).parent.mkdir(parents=True)
    label = rng.integers(0, 10, 50)
    np.savez_compressed(
        folder / path,
        image=rng.integers(0, 256, (50, 3, 32, 32), dtype=np.uint8),
        label=label,
        prediction=np.where(np.arange(50) < 25, label, (label + 1) % 10),
        probability=rng.uniform(0.3, 1, 50).astype(np.float32),
        classes=np.array(CLASSES),
    )
    return base.model_copy(update={"artifacts": {"examples": Artifact(path=path)}})


def _curve(index: int, accuracy: float) -> Iterator[Measurement]:
    for point in range(1, POINTS + 1):
        step = 500 * point // POINTS
        on = {"step": step, "samples": 128 * step, "seconds": 3.1 * point, "epoch": step / 351, "n": 2000}
        reached = accuracy * (1 - 0.7**point)
        yield m("train.validation_accuracy", "fraction", reached, better="higher", remarks=on)
        if index:  # One network was asked for less.
            yield m("train.train_accuracy", "fraction", reached + 0.01, better="higher", remarks=on)


def _staged(
    trained: Trained, network: str, stage: str, measured: Sequence[Measurement], *, variant: Any = None, **settings: Any
) -> Record:
    base = trained(network)
    changed = {"stage": stage, "settings": settings, "variant": variant or {}}
    task = Task.model_validate(base.task.model_dump() | changed)  # A copy would keep the key.
    return base.model_copy(update={"task": task, "key": task.key, "measurements": tuple(measured)})


def _profile(mode: str, index: int) -> tuple[Measurement, ...]:
    on = {"mode": mode, "batch_size": BATCH}
    directions = ("forward", "backward") if mode == "train" else ("forward",)
    measured = [
        m("profile.probe_flops_per_s", "FLOP/s", 9e10, 1e11, better=None, probe="matmul 1024"),
        m("profile.probe_bytes_per_s", "bytes/s", 1e10, better=None, probe=MEMORY_PROBE),
        m("profile.parameters", "count", 60_000, better=None, remarks={"weights": "trained"}, **on),
        m("profile.step_seconds", "s", 0.05 + index / 1000, **on),
        m("profile.instrumented_step_seconds", "s", 0.06, **on),
        m("profile.peak_above_start_bytes", "bytes", 2**24, remarks={"at": "conv2 backward"}, **on),
        m("profile.seconds", "s", 0.002, layer="(data)", **on),
    ]
    for order, layer in enumerate(LAYERS):
        where = {"layer": layer, **on}
        described = {"order": order, "type": "Conv2d", "outputs": "32×8×14×14"}
        measured.append(m("profile.calls", "count", 1, better=None, remarks=described, **where))
        measured.append(m("profile.saved_bytes", "bytes", 4096 * (order + 1), **where))
        for direction in directions:
            measured.append(m(f"profile.{direction}_seconds", "s", 0.001 * (order + 1) + index / 9000, **where))
            measured.append(m(f"profile.{direction}_macs", "count", 10_000 * (order + 1) ** 2, **where))
            measured.append(m(f"profile.{direction}_moved_bytes", "bytes", 50_000 + 7000 * order, **where))
    return tuple(measured)


def _inference(engine: str, index: int, rng: np.random.Generator) -> tuple[Measurement, ...]:
    speed = 1.0 if engine == "torch" else 0.6
    tested = {"n": 2000, "images": "subset"}
    measured = [
        m("infer.test_accuracy", "fraction", 0.5 + index / 20, better="higher", remarks=tested, engine=engine),
        m("infer.accuracy_drop", "1", 0.0, remarks=tested, engine=engine),
        m(PARITY, "1", 1.0, better=None, engine=engine),
        m("infer.peak_bytes", "bytes", 2**29 + 2**24 * index, better=None, engine=engine),
    ]
    for size in (1, 8, BATCH):
        on = {"engine": engine, "batch_size": size}
        disturbed = {"disturbed": "2 % of samples lost the CPU for > 1 ms"} if size == 8 else {}
        calls = speed * (index + 1) * 1e-3 * size**0.6 * rng.uniform(1, 1.1, 64)
        measured.append(m("infer.latency", "s", *calls, remarks=disturbed, **on))
        measured.append(m("infer.error_to_float64", "1", 1e-7, **on))
        if engine != "torch":
            ratios = rng.uniform(1.5, 1.7, 6) if size != 8 else rng.uniform(1.2, 1.22, 6)
            measured.append(m("infer.speedup", "1", *ratios, better="higher", **on))
            for pair, ratio in enumerate(ratios):
                for side, seconds in (("baseline", ratio / 1e3), ("candidate", 1e-3)):
                    of_pair = {**on, "pair": pair, "side": side}
                    measured.append(m("infer.pair_seconds", "s", seconds, better=None, **of_pair))
    if engine != "torch":
        for layers, operator in (
            ("conv1+act1", "Conv"),
            ("pool1", "MaxPool"),
            ("conv2+act2", "Conv"),
            ("linear1", "Gemm"),
        ):
            on = {"engine": engine, "batch_size": BATCH, "layer": layers, "operator": operator, "reorder": False}
            measured.append(m("infer.node_time", "s", 0.0007, 0.0008, **on))
        measured.append(m("infer.mapped_share", "fraction", 1.0, better=None, engine=engine, batch_size=BATCH))
    else:
        for layer in LAYERS:
            on = {"engine": engine, "batch_size": BATCH, "layer": layer, "operator": "Conv2d", "reorder": False}
            measured.append(m("infer.node_time", "s", 0.001, 0.0012, **on))
    return tuple(measured)
