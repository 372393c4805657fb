"""The speed of the training stage beside loops by hand, in fresh pairs of processes that take turns.

CNNPERF_BENCH_CSV=OUT.csv pytest --benchmark-only tests/bench/test_train.py: one row per round, as in
`results/reference`.
"""

from __future__ import annotations

import csv
import json
import math
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from processes import started
from pytest_benchmark.fixture import BenchmarkFixture

from cnnperf import registry
from cnnperf.ipc.process import Launch
from cnnperf.machine.fingerprint import cpu_name, usable_cores
from cnnperf.stats import quartiles

CHILD = Path(__file__).with_name("training.py")
ROUNDS = int(os.environ.get("CNNPERF_BENCH_ROUNDS", "8"))
"""Fresh pairs of processes."""
TURN_S = 0.05
"""How long a turn takes at least; what else the machine does falls on both sides."""
TOTAL_S = 2.5
"""How long each side trains in a round …"""
TURNS = (16, 60)
"""… in no fewer and no more turns than these; the first two are not counted."""
COLUMNS = (
    *("loop", "network", "round", "batch_size", "stage_images_per_s", "loop_images_per_s", "ratio", "wall_ratio"),
    *("threads", "cpu"),
)
Ratio = Callable[..., float]


class Side:
    """A process on one side of a benchmark."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._to: IO[str] = process.stdin
        self._of: IO[str] = process.stdout

    def tell(self, message: object) -> None:
        """Send the process a message as one line."""
        print(json.dumps(message), file=self._to, flush=True)

    def hear(self) -> Any:
        """Wait for a line of the process and return its message."""
        line = self._of.readline()
        assert line, "the process ended; what it said last stands above"
        return json.loads(line)

    def turn(self, message: object) -> dict[str, float]:
        """Let the process take a turn, and return its seconds."""
        self.tell(message)
        answer: dict[str, float] = self.hear()
        return answer


@contextmanager
def side(*words: str) -> Iterator[Side]:
    """Start a process in the environment of measuring processes, and end it after the block."""
    launch = Launch(threads=usable_cores()).variables()
    with started([sys.executable, CHILD, *words], env=launch, stdin=subprocess.PIPE, stderr=None) as process:
        yield Side(process)


def one_round(other: str, words: tuple[str, ...]) -> dict[str, float]:
    """Return each side's seconds per step and the median ratios of the turns, above 1 if the stage is faster.

    `clock` is by the training's own clock, which images/s are computed from; `wall` is by one around the whole turn.
    """
    with side(other, *words) as loop, side("stage", *words) as stage:
        assert (loop.hear(), stage.hear()) == ("ready", "ready")
        step_s = statistics.median(loop.turn(1)["wall_s"] for _ in range(7))
        steps = math.ceil(TURN_S / step_s)
        turns = min(max(int(TOTAL_S / (steps * step_s)), TURNS[0]), TURNS[1])
        stage.tell((steps, turns))
        found: list[tuple[float, dict[str, float]]] = []
        for _ in range(turns):
            if random.random() < 0.5:
                bare, own = loop.turn(steps), stage.turn("go")
            else:
                own, bare = stage.turn("go"), loop.turn(steps)
            found.append((bare["wall_s"], own))
    return {
        "loop": statistics.median(bare for bare, _ in found[2:]) / steps,
        "stage": statistics.median(own["clock_s"] for _, own in found[2:]) / steps,
        "clock": statistics.median(bare / own["clock_s"] for bare, own in found[2:]),
        "wall": statistics.median(bare / own["wall_s"] for bare, own in found[2:]),
    }


def keep(other: str, model: str, batch_size: int, rounds: Iterable[Mapping[str, float]]) -> None:
    """Append one row per round to the file that CNNPERF_BENCH_CSV names, if it is set."""
    if not (name := os.environ.get("CNNPERF_BENCH_CSV")):
        return
    path = Path(name)
    is_new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        for number, of in enumerate(rounds):
            speeds = batch_size / of["stage"], batch_size / of["loop"]
            row = (other, model, number, batch_size, *speeds, of["clock"], of["wall"], usable_cores(), cpu_name())
            writer.writerow(row)


@pytest.fixture
def speed_ratio(benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]) -> Ratio:
    """Return a function that compares the stage with a loop, and returns the median speed ratio over rounds.

    The function prints a row: network, images/s of the stage, of the loop, their ratio with its quartiles and range
    over the rounds, and the same ratio by a clock around the stage's whole turns.
    """

    def ratio(other: str, model: str, shape: str, memory_format: str, batch_size: int) -> float:
        rounds: list[dict[str, float]] = []
        words = model, shape, memory_format
        benchmark.pedantic(lambda: rounds.extend(one_round(other, words) for _ in range(ROUNDS)), rounds=1)
        keep(other, model, batch_size, rounds)
        middle = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        ratios = sorted(each["clock"] for each in rounds)
        low, _, high = quartiles(ratios)
        benchmark.extra_info |= {"rounds": rounds, "ratio": middle["clock"], "wall_ratio": middle["wall"]}
        speeds = (f"{batch_size / middle[name]:,.0f}" for name in ("stage", "loop"))
        spread = f"{low:.3f}–{high:.3f} | {ratios[0]:.3f}–{ratios[-1]:.3f}"
        with capsys.disabled():
            print("\n|", " | ".join((model, *speeds, f"{middle['clock']:.3f}", spread, f"{middle['wall']:.3f}")), "|")
        return middle["clock"]

    return ratio


@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", registry.names("models"))
def test_stage_keeps_up_with_an_expert_s_loop(benchmark: BenchmarkFixture, speed_ratio: Ratio, model: str) -> None:
    """The stage's images/s are at least 0.99 of those of a loop with the same network, batch, optimizer and threads."""
    benchmark.group = "train stage ÷ expert's loop ≥ 0.99"
    shape = "1x28x28" if model in ("lenet", "mlp") else "3x32x32"
    memory_format = registry.module("models", model).recipe("cifar10").get("memory_format", "contiguous")
    assert speed_ratio("loop", model, shape, memory_format, 32) >= 0.99


@pytest.mark.realdata
@pytest.mark.timeout(900)
def test_stage_is_faster_than_the_usual_loop(benchmark: BenchmarkFixture, speed_ratio: Ratio) -> None:
    """On MNIST, the stage trains LeNet at least 1.5 times as fast as a DataLoader over torchvision's dataset."""
    benchmark.group = "train stage ÷ DataLoader loop ≥ 1.5 (LeNet, MNIST)"
    assert speed_ratio("dataloader", "lenet", "mnist", "channels_last", 128) >= 1.5
