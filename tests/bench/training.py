"""One side of the benchmarks of training, as a separate process: the training stage, or a loop by hand.

python tests/bench/training.py stage|loop|dataloader MODEL SHAPE FORMAT: JSON lines. The process sends `ready`, is told
how many steps a turn takes (the stage: and how many turns there are), and answers each line that follows with the
seconds of one turn: by a clock around all of it, and by the training's own where it has one.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain, islice, repeat
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn

from cnnperf import models, registry
from cnnperf.datasets import Dataset, Roots
from cnnperf.task import Choice

BATCH_SIZE = {"stage": 32, "loop": 32, "dataloader": 128}
LEARNING_RATE, MOMENTUM = 1e-3, 0.9
WARM_UP = 10
"""Steps of the loop that are not timed."""
Batches = Iterator[tuple[Tensor, Tensor]]


def say(message: object) -> None:
    """Send the parent a message as one line."""
    print(json.dumps(message), flush=True)


def heard() -> Any:
    """Return the parent's next message, or exit if the parent has ended."""
    line = sys.stdin.readline()
    if not line:
        sys.exit()
    return json.loads(line)


def images_of(shape: str, folder: Path) -> Dataset:
    """Return MNIST, or generated images of a shape C×H×W."""
    if shape == "mnist":
        data = Roots(environment=Path(os.environ["CNNPERF_DATA"]), cache=folder)
        mnist: Dataset = registry.find("datasets", "mnist")(data, None)
        return mnist
    sides = tuple(map(int, shape.split("x")))
    synthetic: Dataset = registry.find("datasets", "synthetic")(
        Roots(cache=folder), None, shape=sides, train=10_000, test=32
    )
    return synthetic


def expert_batches(dataset: Dataset, memory_format: str) -> Batches:
    """Yield batches like an expert's code: normalised and laid out once, then one index operation per batch."""
    images = torch.from_numpy(dataset.train_images).float().div_(255)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (dataset.mean, dataset.std))
    images = images.sub_(mean).div_(std)
    channels_last = memory_format == "channels_last"
    if channels_last:
        images = images.permute(0, 2, 3, 1).contiguous()
    labels = torch.from_numpy(dataset.train_labels)
    while True:
        for chosen in torch.randperm(len(images)).split(BATCH_SIZE["loop"])[:-1]:
            batch = images.index_select(0, chosen)
            yield batch.permute(0, 3, 1, 2) if channels_last else batch, labels[chosen]


def usual_batches() -> Batches:
    """Yield batches of MNIST like a tutorial's code: a DataLoader over torchvision's dataset."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    images = datasets.MNIST(os.environ["CNNPERF_DATA"], train=True, transform=transforms.ToTensor())
    return chain.from_iterable(repeat(DataLoader(images, batch_size=BATCH_SIZE["dataloader"], shuffle=True)))


def by_hand(network: nn.Module, batches: Batches) -> Callable[[int], None]:
    """Return a function that takes a number of training steps."""
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, fused=True)

    def train(steps: int) -> None:
        for images, labels in islice(batches, steps):
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()

    return train


def take_turns(train: Callable[[int], None]) -> None:
    """Serve the parent's turns with a loop by hand."""
    train(WARM_UP)
    say("ready")
    while True:
        steps = heard()
        start = perf_counter()
        train(steps)
        say({"wall_s": perf_counter() - start})


def train_by_the_stage(dataset: Dataset, model: str, memory_format: str, batch_size: int, folder: Path) -> None:
    """Serve the parent's turns with the stage, which stops its clock whenever it reports its training accuracy."""
    from cnnperf.bench import Bench
    from cnnperf.devices.cpu import acquire
    from cnnperf.stages.train import measure
    from cnnperf.task import Cell, Task
    from cnnperf.training import loop
    from cnnperf.training.recipe import Recipe

    say("ready")
    steps, turns = heard()
    loop.POINTS = turns
    recipe = Recipe(
        steps=turns * steps,
        batch_size=batch_size,
        optimizer="sgd",
        lr=LEARNING_RATE,
        momentum=MOMENTUM,
        schedule="constant",
        memory_format=memory_format,
        validation_images=0,
        test_images=32,
    )
    cell = Cell(dataset=Choice(name="synthetic"), model=Choice(name=model), device=Choice(name="cpu"))
    task = Task(cell=cell, stage="train", seed=0, threads=torch.get_num_threads(), timeout_s=60)
    clock_s = start = 0.0
    for found in measure(Bench(task, acquire(), dataset, folder, lambda **numbers: None), recipe):
        if found.metric == "train.train_accuracy":
            seconds = float(found.remarks["seconds"])
            say({"wall_s": perf_counter() - start, "clock_s": seconds - clock_s})
            clock_s = seconds
        if found.metric in ("train.warmup_seconds", "train.train_accuracy"):
            heard()
            start = perf_counter()


def main(side: str, model: str, shape: str, memory_format: str) -> None:
    """Serve the parent's turns until the parent ends."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = images_of(shape, folder)
        if side == "stage":
            batch_size = BATCH_SIZE["dataloader" if shape == "mnist" else "loop"]
            train_by_the_stage(dataset, model, memory_format, batch_size, folder)
            return
        network = models.create(Choice(name=model), dataset.train_images.shape[1:], len(dataset.classes))
        if memory_format == "channels_last":
            network = network.to(memory_format=torch.channels_last)
        batches = usual_batches() if side == "dataloader" else expert_batches(dataset, memory_format)
        take_turns(by_hand(network, batches))


if __name__ == "__main__":
    main(*sys.argv[1:])
