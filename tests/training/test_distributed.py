"""Training by several processes, joined by gloo: copies of this process, with one thread each."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
from forked import Copy, limited, workers_forked
from torch import Tensor, nn

from cnnperf.bench import Bench
from cnnperf.datasets import Dataset, Roots, synthetic
from cnnperf.devices.cpu import acquire
from cnnperf.errors import StageError
from cnnperf.ipc.family import adopting
from cnnperf.ipc.messages import RankRequest
from cnnperf.ipc.process import Launch, WorkerProcess
from cnnperf.record import Measurement
from cnnperf.stages.train import measure
from cnnperf.tables.leaderboard_row import OF_SEVERAL_PROCESSES, LeaderboardRow
from cnnperf.task import Choice
from cnnperf.training import distributed
from cnnperf.training.augment import Part
from cnnperf.training.distributed import LOOPBACK, Connection, OtherRanks, connected, served
from cnnperf.training.recipe import Recipe

MakeBench = Callable[..., Bench]
MakeRecipe = Callable[..., Recipe]
LIMIT_S = 120.0
SYNCHRONISED = {"sync_batch_norm": True}


@pytest.fixture
def stored(tmp_path: Path) -> Dataset:
    """Return generated images whose arrays other processes can map."""
    return synthetic.load(Roots(cache=tmp_path), None, shape=(1, 28, 28), train=300, test=100)


@pytest.fixture
def _forked() -> Iterator[None]:
    """Fork this process for each other rank, and leave none behind."""
    with adopting():  # It starts a process that stays.
        before = psutil.Process().children()
    with workers_forked():
        yield
    gc.collect()  # What is left of a process group ends here, not in a copy of this process.
    assert psutil.Process().children() == before
    assert not dist.is_initialized()


def named(found: list[Measurement], metric: str) -> Measurement:
    """Return the one measurement of a metric."""
    [one] = [each for each in found if each.metric == f"train.{metric}"]
    return one


def values(found: list[Measurement], metric: str) -> list[float]:
    """Return all values of a metric."""
    return [value for each in found if each.metric == f"train.{metric}" for value in each.values]


def weights(made: Bench) -> dict[str, Tensor]:
    """Return the weights that a training has saved."""
    found: dict[str, Tensor] = torch.load(made.run / made.artifacts["weights"], weights_only=True)
    return found


def of_both(folder: Path, work: Callable[[Connection, Part], Any], **options: Any) -> tuple[Any, Any]:
    """Do work in this process and in a copy of it, ranks 0 and 1 of two, and return what either returns."""
    listener = socket.create_server((LOOPBACK, 0))
    port = listener.getsockname()[1]
    result, log = folder / "result.pt", folder / "log"

    def run() -> None:
        torch.set_num_threads(1)
        other = dist.TCPStore(LOOPBACK, port, 2, False)
        with connected(acquire(), Part(1, 2), other, LIMIT_S, **options) as connection:
            torch.save(work(connection, Part(1, 2)), result)

    with open(os.devnull, "rb") as nothing, open(log, "wb") as output:
        copy = Copy(run, (nothing.fileno(), output.fileno(), output.fileno()), env=os.environ)
    store = served(listener, 2, LIMIT_S)
    with limited(copy, "rank 1"), connected(acquire(), Part(0, 2), store, LIMIT_S, **options) as connection:
        mine = work(connection, Part(0, 2))
        assert copy.wait() == 0, log.read_text()
    return mine, torch.load(result)


def gradients(model: nn.Module, forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> list[Tensor]:
    """Return the gradients of the mean loss, of those parameters that have one."""
    nn.functional.cross_entropy(forward(images), labels).backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def without_norms() -> nn.Module:
    """Build a small network without batch norm, of equal weights each time."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10)
    ).double()


def test_gradients_are_those_of_one_process_on_the_whole_batch(tmp_path: Path) -> None:
    """In double precision the gradients of two processes, each on its part, are those of the whole batch."""
    torch.manual_seed(1)
    images, labels = torch.randn(24, 1, 9, 9, dtype=torch.float64), torch.arange(24) % 10
    alone = without_norms()
    expected = gradients(alone, alone, images, labels)

    def work(connection: Connection, part: Part) -> list[Tensor]:
        model = without_norms()
        forward = connection.averaging(model, model, lambda: False)
        return gradients(model, forward, images[part.rank :: part.size], labels[part.rank :: part.size])

    for found in of_both(tmp_path, work):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def with_norms(**options: Any) -> nn.Module:
    """Build a small network with batch norm of images and of features, of equal weights each time."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4, **options), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(64, 8), nn.BatchNorm1d(8, **options), nn.Linear(8, 10)).double()


@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}])
def test_synchronised_batch_norm_is_that_of_one_process(tmp_path: Path, options: dict[str, Any]) -> None:
    """In double precision gradients and running statistics of two steps are those of one process, and so is a test."""
    torch.manual_seed(1)
    images, labels = 3 + torch.randn(2, 24, 1, 9, 9, dtype=torch.float64), torch.arange(24) % 10

    def after(model: nn.Module, forward: Callable[[Tensor], Tensor], part: Part) -> list[Tensor]:
        found: list[Tensor] = []
        for batch in images:
            found += gradients(model, forward, batch[part.rank :: part.size], labels[part.rank :: part.size])
            model.zero_grad()
        return [*found, *model.buffers(), model.eval()(images[0]).detach()]

    alone = with_norms(**options)
    expected = after(alone, alone, Part())

    def work(connection: Connection, part: Part) -> list[Tensor]:
        model = with_norms(**options)
        return after(model, connection.averaging(model, model, lambda: False), part)

    for found in of_both(tmp_path, work, has_whole_norms=True):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_the_bytes_all_reduced_are_those_of_the_buckets(tmp_path: Path) -> None:
    """The bytes of a step's gradients equal the sum of the buckets that DistributedDataParallel all-reduces."""

    def work(connection: Connection, part: Part) -> tuple[int, int]:
        model, seen = without_norms(), [0]

        def counted(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
            seen[0] += bucket.buffer().nbytes
            done: torch.futures.Future[Tensor] = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        forward: Any = connection.averaging(model, model, lambda: False)
        counted.__annotations__ = {"bucket": dist.GradBucket, "return": torch.futures.Future[Tensor]}  # No text.
        forward.register_comm_hook(None, counted)
        gradients(model, forward, torch.randn(4, 1, 9, 9, dtype=torch.float64), torch.arange(4))
        return connection.allreduced_bytes, seen[0]

    for told, counted in of_both(tmp_path, work):
        assert told == counted == 8 * sum(each.numel() for each in without_norms().parameters())


@pytest.mark.usefixtures("_forked")
@pytest.mark.parametrize(
    ("network", "norms"), [("heavy", {}), ("with_auxiliary", {}), ("part_frozen", {}), ("convolutional", SYNCHRONISED)]
)
def test_two_processes_train_the_network_of_one(
    bench: MakeBench, recipe: MakeRecipe, stored: Dataset, network: str, norms: dict[str, bool]
) -> None:
    """Losses, accuracies and weights are those of one process, to rounding; an idle head changes nothing."""
    settings = {"steps": 6, "flip": "random", "crop": 2, "optimizer": "muon", "validation_images": 0}
    one, two = bench(network, data=stored), bench(network, data=stored)
    expected = list(measure(one, recipe(**settings)))
    alone = weights(one)
    found = list(measure(two, recipe(**settings, **norms, processes=2)))
    for metric in ("loss", "train_accuracy", "test_accuracy"):
        assert values(found, metric) == pytest.approx(values(expected, metric), abs=1e-4), metric
    for name, tensor in weights(two).items():
        torch.testing.assert_close(tensor, alone[name], rtol=1e-3, atol=1e-4)
    own = {each.metric for each in found} - {each.metric for each in expected}
    assert {each for each in own if "stretch" not in each} == {  # Stretches depend on the speed.
        "train.processes",
        "train.allreduced_bytes",
        "train.rank_images_per_s",
    }
    number = named(found, "processes")
    assert (number.values, number.remarks) == ((2,), {"backend": "gloo", "threads_each": 1})
    assert named(found, "samples").values == (6 * 32,)
    columns = {column.name: column for column in LeaderboardRow.columns() if column.name in OF_SEVERAL_PROCESSES}
    for metric in ("processes", "allreduced_bytes"):
        assert (columns[metric].unit, columns[metric].better) == (
            named(found, metric).unit,
            named(found, metric).better,
        )
    speeds = named(found, "rank_images_per_s").values
    assert len(speeds) == 2
    assert min(speeds) > 0


@pytest.mark.usefixtures("_forked")
def test_the_budget_in_seconds_is_that_of_rank_0(bench: MakeBench, recipe: MakeRecipe, stored: Dataset) -> None:
    """Two processes end together when the seconds of rank 0 are used, and say that batch norm is each one's own."""
    found = list(measure(bench(data=stored), recipe(seconds=0.3, processes=2)))
    assert named(found, "seconds").values[0] >= 0.3
    assert len(named(found, "step_time").values) == named(found, "steps").values[0] > 1
    assert "its part" in named(found, "processes").remarks["batch_norm"]


@pytest.mark.usefixtures("_forked")
def test_a_loss_that_is_not_finite_ends_all_processes(bench: MakeBench, recipe: MakeRecipe, stored: Dataset) -> None:
    """An error of rank 0's own is raised as it is."""
    settings = {"optimizer": "sgd", "lr": 1e6, "schedule": "constant", "validation_images": 0, "steps": 50}
    with pytest.raises(StageError, match=r"loss became (nan|inf) at step \d"):
        list(measure(bench(data=stored), recipe(**settings, processes=2)))


def test_a_main_thread_that_hangs_is_given_up(
    tmp_path: Path, bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another process is killed and the main thread does not notice, the task is given up with its name."""
    monkeypatch.setattr(distributed, "GRACE_S", 0.1)
    given_up, words = threading.Event(), []

    def abandon(error: str) -> None:
        words.append(error)
        given_up.set()

    launch = Launch(command=(sys.executable, "-c", "import time; time.sleep(600)"))
    request = RankRequest(task=bench().task, device=Choice(name="cpu"), folder=tmp_path, rank=1, port=1)
    with WorkerProcess(request, log=tmp_path / "log", launch=launch) as worker, OtherRanks([worker], abandon):
        worker.kill()
        assert given_up.wait(LIMIT_S)
    assert words == ["rank 1 of 2 processes was killed (SIGKILL); the system does that when memory runs out"]
