"""Data-parallel training: several processes of one machine train one network, by torch.distributed.

Each process draws the same batches and takes its part of every batch, so that together they train on the batches of one
process. The backward pass gives all of them the mean gradient (DistributedDataParallel). Rank 0 is the process of the
task and holds the clock: before each lap it broadcasts the learning rates of its steps, so that all processes take
equally many, whatever their clocks say, and at last it broadcasts the end. It validates alone, while the others sleep
in the kernel.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from enum import IntEnum, auto
from itertools import chain
from statistics import median
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cnnperf import registry
from cnnperf.bench import Bench
from cnnperf.devices import Device
from cnnperf.errors import CnnperfError, StageError
from cnnperf.ipc.messages import Failed, Loaded, MalformedError, RankRequest
from cnnperf.ipc.process import PYTHON, Launch, WorkerProcess, listen
from cnnperf.record import Measurement, single
from cnnperf.task import Scalar
from cnnperf.timing.clock import Clock
from cnnperf.training.augment import Part
from cnnperf.training.loop import numbers, right_of_each
from cnnperf.training.optimise import trainable
from cnnperf.training.processes import Forward, OneProcess
from cnnperf.training.recipe import Recipe
from cnnperf.training.setup import Data, Network, frozen_heap, has_idle_parameters
from cnnperf.training.synchronised import batch_norms, synchronise

LOOPBACK = "127.0.0.1"
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
"""Torch's backend by the type of the device."""
INTERFACE = "GLOO_SOCKET_IFNAME"
"""Variable that names gloo's network interface; without it gloo looks the host's name up, which may have no address."""
SEED_STRIDE = 2**31
"""Distance between the seeds of two processes, above all seeds of tasks: each has its own dropout."""
GRACE_S = 3.0
"""Seconds for which the process that notices a failure waits for its cause: another's end."""
OTHERS_S = 0.5
"""Seconds in which the other processes notice the end of one, and end too."""
LEAVING_S = 30.0
"""Seconds that the others may take to end after the training; torch takes a busy machine some seconds to leave."""


class Order(IntEnum):
    """An order of rank 0 to the other processes."""

    BEGIN = auto()
    """Take new optimizers, and the batches from the first on."""
    LAP = auto()
    """Take steps with the learning rates that follow."""
    SUM = auto()
    """Add up the losses and the correct predictions of the last lap."""
    ALIGN = auto()
    """Take rank 0's weights and statistics."""
    END = auto()
    """Report the seconds of a step, and end."""


class Connection:
    """The place of this process among those of a training, and what they exchange."""

    def __init__(self, device: Device, part: Part, limit: timedelta, *, has_whole_norms: bool) -> None:
        """has_whole_norms: whether batch norm is over the parts of all processes."""
        self.backend = dist.get_backend()
        self.allreduced_bytes = 0
        """Bytes of gradients that each process contributes to a step's all-reduce."""
        self._device = device
        self._part = part
        self._has_whole_norms = has_whole_norms
        # Orders and figures are numbers of the CPU; NCCL would keep a waiting GPU busy.
        self._orders: Any = dist.new_group(backend="gloo", timeout=limit)

    def averaging(self, forward: Forward, model: nn.Module, has_idle: Callable[[], bool]) -> Forward:
        """Return a forward function whose backward pass gives every process the mean gradient.

        Weights and statistics of rank 0's model replace those of the others.
        """
        is_on_gpu = self.backend == BACKENDS["cuda"]
        if self._has_whole_norms:
            synchronise(model, is_on_gpu=is_on_gpu)
        [is_idle] = self.summed([float(has_idle())])
        self.allreduced_bytes = sum(each.numel() * each.element_size() for each in trainable(model))
        averaged: Forward = DistributedDataParallel(
            _Logits(forward, model),
            device_ids=[self._device.index] if is_on_gpu else None,
            find_unused_parameters=is_idle > 0,
        )
        return averaged

    def give(self, order: Order, rates: Sequence[float] = ()) -> None:
        """Send an order of rank 0 to all others."""
        dist.broadcast(torch.tensor([order, len(rates)]), 0, group=self._orders)
        if rates:
            dist.broadcast(torch.tensor(rates, dtype=torch.float64), 0, group=self._orders)

    def order(self) -> tuple[Order, list[float]]:
        """Wait for rank 0's next order, and return it with its learning rates."""
        head = torch.zeros(2, dtype=torch.int64)
        dist.broadcast(head, 0, group=self._orders)
        kind, count = head.tolist()
        rates = torch.zeros(count, dtype=torch.float64)
        if count:
            dist.broadcast(rates, 0, group=self._orders)
        return Order(kind), rates.tolist()

    def summed(self, values: Sequence[float]) -> list[float]:
        """Return the sums of these values over all processes."""
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self._orders)
        found: list[float] = total.tolist()
        return found

    def gathered(self, value: float) -> tuple[float, ...]:
        """Return this value of each process, by rank."""
        values = [torch.zeros(1, dtype=torch.float64) for _ in range(self._part.size)]
        dist.all_gather(values, torch.tensor([value], dtype=torch.float64), group=self._orders)
        return tuple(map(float, values))

    def align(self, model: nn.Module) -> None:
        """Replace weights and statistics by those of rank 0's model."""
        with torch.no_grad():
            for tensor in chain(model.parameters(), model.buffers()):
                value = tensor.contiguous()
                dist.broadcast(value, 0)
                tensor.copy_(value)


class _Logits(nn.Module):
    """A network whose only output are the logits: auxiliary outputs would count as used in the backward pass."""

    def __init__(self, forward: Forward, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._logits = forward

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of N×C×H×W images."""
        return self._logits(images)


@contextmanager
def connected(
    device: Device, part: Part, store: Any, timeout_s: float, *, has_whole_norms: bool = False
) -> Iterator[Connection]:
    """Join torch's process group, and leave it at the end of the block. timeout_s: of each exchange.

    After an exception only gloo's groups are left: NCCL may wait for a process that has ended.
    """
    backend, limit = BACKENDS[torch.device(device.torch_name).type], timedelta(seconds=timeout_s)
    with _over_loopback():
        dist.init_process_group(backend, store=store, rank=part.rank, world_size=part.size, timeout=limit)
        connection = Connection(device, part, limit, has_whole_norms=has_whole_norms)
    is_over = False
    try:
        yield connection
        is_over = True
    finally:
        if is_over or backend == BACKENDS["cpu"]:
            dist.destroy_process_group()


@contextmanager
def _over_loopback() -> Iterator[None]:
    """Let gloo use the interface of this machine alone, unless the user names another."""
    addresses = psutil.net_if_addrs().items()
    name = next((name for name, found in addresses if any(each.address == LOOPBACK for each in found)), None)
    if name is None or INTERFACE in os.environ:
        yield
        return
    os.environ[INTERFACE] = name
    try:
        yield
    finally:
        del os.environ[INTERFACE]


@contextmanager
def processes_of(bench: Bench, recipe: Recipe) -> Iterator[OneProcess]:
    """Start the other processes of a training, if it has several, and end them with the block.

    Raises StageError if one of them fails or is killed.
    """
    if recipe.processes == 1:
        yield OneProcess()
        return
    if not dist.is_available():
        raise StageError("this torch has no torch.distributed; install a build that has it, or set processes = 1")
    size = recipe.processes
    threads = max(1, (bench.task.threads or torch.get_num_threads()) // size)
    torch.set_num_threads(threads)
    with ExitStack() as stack:
        # The others can connect before the store answers.
        listener = stack.enter_context(socket.create_server((LOOPBACK, 0)))
        port, ranks = listener.getsockname()[1], range(1, size)
        workers = [stack.enter_context(_process(bench, recipe, rank, port, threads)) for rank in ranks]
        store = served(listener, size, bench.task.timeout_s)
        others = stack.enter_context(OtherRanks(workers, bench.abandon))
        others.wait_until_ready()
        norms, part = recipe.sync_batch_norm, Part(0, size)
        with connected(bench.device, part, store, bench.task.timeout_s, has_whole_norms=norms) as connection:
            yield FirstOfSeveral(connection, others, part, recipe.batch_size, threads)
        others.wait_for_ends()


def served(listener: socket.socket, size: int, timeout_s: float) -> Any:
    """Return the store by which the processes find each other, served at a socket that only this machine reaches."""
    limit, port = timedelta(seconds=timeout_s), listener.getsockname()[1]
    fd = listener.detach()
    return dist.TCPStore(  # type: ignore[attr-defined]
        LOOPBACK, port, size, is_master=True, timeout=limit, wait_for_workers=False, master_listen_fd=fd
    )


def _process(bench: Bench, recipe: Recipe, rank: int, port: int, threads: int) -> WorkerProcess:
    """Return the process of another rank, not started yet."""
    options = bench.task.cell.device.options
    if bench.device.is_asynchronous:
        options = {**options, "index": bench.device.index + rank}
    task = bench.task.model_copy(update={"threads": threads, "settings": recipe.model_dump(mode="json")})
    request = RankRequest(
        task=task,
        device=bench.task.cell.device.model_copy(update={"options": options}),
        folder=bench.dataset.folder,
        rank=rank,
        port=port,
    )
    logs = bench.run / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    launch = Launch.of(task, command=(*PYTHON, "cnnperf.workers.rank"))
    return WorkerProcess(request, log=logs / f"{bench.task.key}-rank-{rank}.log", launch=launch)


class FirstOfSeveral(OneProcess):
    """Rank 0 of several processes: it tells the others what to do before it does the same."""

    def __init__(self, connection: Connection, others: OtherRanks, part: Part, batch_size: int, threads: int) -> None:
        self.part = part
        self._connection = connection
        self._others = others
        self._images = batch_size // part.size
        self._threads = threads
        self._has_norms = False

    def averaging(self, forward: Forward, model: nn.Module, has_idle: Callable[[], bool]) -> Forward:
        """Return the forward function of training steps, whose gradients are the mean over the processes."""
        averaged = self._connection.averaging(forward, model, has_idle)
        self._has_norms = bool(batch_norms(model))
        return averaged

    def begin(self) -> None:
        """Begin a training in all processes."""
        self._connection.give(Order.BEGIN)

    def tell(self, rate: float) -> None:
        """Tell the others that a step with this learning rate follows."""
        self._connection.give(Order.LAP, (rate,))

    def told(self, rates: Iterable[float]) -> Iterable[float]:
        """Send the learning rates of the next steps to the others, and return them."""
        told = list(rates)
        self._connection.give(Order.LAP, told)
        return told

    def summed(self, losses: list[float], right: list[int]) -> tuple[list[float], list[int]]:
        """Return the mean losses and the numbers of correct predictions over all parts of the last steps' batches."""
        self._connection.give(Order.SUM)
        values = self._connection.summed([*losses, *right])
        count = len(losses)
        return [value / self.part.size for value in values[:count]], [round(value) for value in values[count:]]

    def align(self, model: nn.Module) -> None:
        """Give the others the weights and statistics of this model."""
        self._connection.give(Order.ALIGN)
        self._connection.align(model)

    def end(self, step_times: Sequence[float]) -> Iterator[Measurement]:
        """End the others; yield their number, the speed of each by its own clock, and the bytes that they exchange."""
        self._others.let_end()
        self._connection.give(Order.END)
        seconds = self._connection.gathered(median(step_times))
        remarks: dict[str, Scalar] = {"backend": self._connection.backend, "threads_each": self._threads}
        if self._has_norms:
            remarks["batch_norm"] = "each process normalises by the statistics of its part of the batch"
        yield single("train.processes", "count", self.part.size, None, remarks)
        yield single("train.allreduced_bytes", "bytes", self._connection.allreduced_bytes)
        speeds = tuple(self._images / each for each in seconds)
        yield Measurement(metric="train.rank_images_per_s", unit="images/s", better=None, values=speeds)


class OtherRanks:
    """Listens to the other processes in a thread, which sleeps until one of them says something or ends.

    An exception in the block becomes a StageError if another process is its cause. If the main thread hangs in a call
    that waits for a process that has ended, the thread gives the task up.
    """

    def __init__(self, workers: Sequence[WorkerProcess], abandon: Callable[[str], None]) -> None:
        """abandon: ends this process with an error for the record."""
        self._workers = workers
        self._abandon = abandon
        self._reasons: dict[int, str] = {}
        self._endings: dict[int, str] = {}
        """By rank, how processes ended that did not end well, in the order of their ends."""
        self._loading = len(workers)
        self._may_end = False
        self._is_ready, self._has_ended = threading.Event(), threading.Event()
        self._deadline: float | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="cnnperf-ranks", daemon=True)

    def __enter__(self) -> OtherRanks:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        words = self._cause() if isinstance(error, Exception) and not isinstance(error, CnnperfError) else None
        self._is_over.set()
        for worker in self._workers:
            worker.kill()
        self._thread.join()
        if words:
            raise StageError(words) from error

    def wait_until_ready(self) -> None:
        """Wait until all others are about to join. Raises StageError if one has ended instead."""
        self._is_ready.wait()
        if words := self._words():
            raise StageError(words)

    def let_end(self) -> None:
        """Let the others end; before that, any end is a failure."""
        self._may_end = True

    def wait_for_ends(self) -> None:
        """Wait until the others have ended, as they were told. Raises StageError if one ended otherwise."""
        self._thread.join(LEAVING_S)
        if words := self._words():
            raise StageError(words)

    def _listen(self) -> None:
        try:
            for worker, message in listen(self._workers, self._patience):
                rank = 1 + self._workers.index(worker)
                if isinstance(message, Failed):
                    self._reasons[rank] = message.reason
                elif message is None and (worker.returncode or not self._may_end):
                    self._endings[rank] = worker.ending
                    self._deadline = self._deadline or time.monotonic() + GRACE_S
                    self._has_ended.set()
                    self._is_ready.set()
                elif isinstance(message, Loaded):
                    self._loading -= 1
                    if not self._loading:
                        self._is_ready.set()
        except (TimeoutError, MalformedError):
            pass
        if self._deadline and not self._is_over.wait(max(0.0, self._deadline - time.monotonic())):
            self._abandon(self._words() or "")

    def _patience(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _cause(self) -> str | None:
        """Return how another process ended, if one ends soon; None if the failure is this one's own."""
        if not self._has_ended.wait(GRACE_S):
            return None
        time.sleep(OTHERS_S)
        return self._words()

    def _words(self) -> str | None:
        """Say how the process ended that ended first; those that were killed before those that failed thereby."""
        endings = sorted(self._endings.items(), key=lambda ending: ending[0] in self._reasons)
        if not endings:
            return None
        rank, ending = endings[0]
        how = f"failed: {self._reasons[rank]}" if rank in self._reasons else ending
        return f"rank {rank} of {1 + len(self._workers)} processes {how}"


def follow(bench: Bench, recipe: Recipe, part: Part, port: int, is_loaded: Callable[[], None]) -> None:
    """Train as a rank other than 0, by the orders of rank 0, until the end.

    is_loaded: called when images and network are loaded, before this process joins the others.
    """
    bench.device.ready_torch()
    torch.manual_seed(bench.task.seed)
    registry.find("models", bench.task.cell.model.name)
    data = Data.load(bench, recipe, part)
    network = Network.build(bench, recipe, data)
    timeout_s = bench.task.timeout_s
    is_loaded()
    limit = timedelta(seconds=timeout_s)
    store = dist.TCPStore(LOOPBACK, port, part.size, is_master=False, timeout=limit)  # type: ignore[attr-defined]
    with connected(bench.device, part, store, timeout_s, has_whole_norms=recipe.sync_batch_norm) as connection:
        forward = connection.averaging(
            network.forward, network.model, lambda: has_idle_parameters(bench, recipe, data, network)
        )
        torch.manual_seed(bench.task.seed + SEED_STRIDE * part.rank)
        with frozen_heap():
            _Follower(bench, recipe, data, replace(network, trained=forward), connection).obey()


class _Follower:
    """The training of a rank other than 0."""

    def __init__(self, bench: Bench, recipe: Recipe, data: Data, network: Network, connection: Connection) -> None:
        self._bench = bench
        self._recipe = recipe
        self._data = data
        self._network = network
        self._connection = connection
        self._begin()

    def obey(self) -> None:
        """Carry out orders until the end."""
        while True:
            order, rates = self._connection.order()
            match order:
                case Order.BEGIN:
                    self._begin()
                case Order.LAP:
                    self._take(rates)
                case Order.SUM:
                    self._connection.summed([*numbers(self._losses), *right_of_each(self._answers)])
                case Order.ALIGN:
                    self._connection.align(self._network.model)
                case Order.END:
                    self._connection.gathered(median(self._clock.step_times))
                    return

    def _begin(self) -> None:
        self._step = self._network.step(self._recipe, self._bench.device.torch_name)
        self._batches = self._data.batches(self._recipe, self._bench.task.seed)
        self._clock = Clock(self._bench.device)
        self._losses: list[Tensor] = []
        self._answers: list[tuple[Tensor, Tensor]] = []

    def _take(self, rates: Sequence[float]) -> None:
        self._losses, self._answers = [], []
        self._clock.start()
        for rate in rates:
            images, labels = next(self._batches)
            loss, logits = self._step(images, labels, rate)
            self._losses.append(loss)
            self._answers.append((logits, labels))
            self._clock.tick()
        self._clock.read()
