"""A Ray cluster: each cell on one node, which runs nothing else meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from cnnperf.errors import CnnperfWarning, RunError, UsageError, shorten
from cnnperf.executors import SuiteWork
from cnnperf.executors._distribution import Contents, Event, Lost, distribute
from cnnperf.executors._node import serve_cell
from cnnperf.ipc.messages import CellEnded, CellRequest, Refused, decode, encode
from cnnperf.machine.fingerprint import usable_cores
from cnnperf.record import Record
from cnnperf.running.runner import Run, Watcher
from cnnperf.task import THREAD_VARIABLES

IS_REMOTE = True
PACKAGES: tuple[str, ...] = ("ray",)
RESOURCE = "cnnperf"
"""Custom resource of which a node may offer 1, for one cell at a time: `ray start --resources '{"cnnperf": 1}'`."""
LOOK_S = 10.0
"""Seconds after which the nodes are counted again, if no node says anything."""
REACH_S = 10.0
"""Seconds within which the head of a cluster must answer; Ray itself would try for minutes."""
HERE: Mapping[str, Any] = {
    "address": "local",
    "include_dashboard": False,
    "_system_config": {"worker_niceness": 0},  # Ray's default lets all other processes go first.
}
"""Settings of a cluster of this machine alone."""


def run_tasks(work: SuiteWork, run: Run, watcher: Watcher, *, address: str = "") -> Iterator[Record]:
    """Run the pending cells on a Ray cluster.

    address: of the cluster, or `auto` for the one to which this machine belongs; empty: a cluster of this machine
    alone, which ends with the run. Raises UsageError if the cluster is not there.
    """
    with RayCluster(address) as cluster:
        yield from distribute(work, run, watcher, cluster)


class RayCluster:
    """The nodes of a Ray cluster; within the `with` block this process is connected to it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._running: dict[Any, int] = {}
        """Generators of messages, each with the number of its start."""
        self._held: dict[int, Any] = {}
        """Generators of nodes that have refused a cell, by the number of the start."""
        self._names: dict[int, str] = {}
        """Names of the nodes by the number of the start."""

    def __enter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Read on import: Ray would report its use to its makers.
        import ray

        self._ray: Any = ray
        given = {"address": self._address} if self._address else {"num_cpus": usable_cores(), **HERE}
        try:
            _reach(self._address)
            with _signals_kept():
                self._ray.init(**given, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError) as error:
            where = f"no Ray cluster at {self._address!r}" if self._address else "Ray does not start"
            raise UsageError(f"{where} ({shorten(error)}); start a cluster with ray start") from error
        try:
            self._check_nodes()
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for messages in (*self._running, *self._held.values()):
            self._ray.cancel(messages, force=True)
        self._ray.shutdown()

    def capacity(self) -> int:
        """Return the number of nodes that can run a cell, without those that have refused one."""
        return len(self._usable()) - len(self._held)

    def start(self, number: int, request: CellRequest, files: Contents) -> None:
        """Give a cell to the next free node."""
        demand = self._demand() | self._gpus(request)
        task = self._ray.remote(_serve).options(
            num_returns="streaming",
            max_retries=0,
            num_cpus=demand.pop("CPU", 0),
            num_gpus=demand.pop("GPU", 0),
            resources=demand,
        )
        self._running[task.remote(encode(request), dict(files))] = number

    def wait(self) -> Iterable[Event]:
        """Block until a node says something or is lost, and yield it. Raises RunError if all nodes are lost."""
        ready: Sequence[Any] = ()
        while not ready:
            ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=LOOK_S)
            if not ready and not self._usable():
                raise RunError("no node of the Ray cluster can run a cell any more; start nodes and resume the run")
        for messages in ready:
            yield self._next(messages)

    def release(self, number: int) -> None:
        """End what keeps a node from taking cells."""
        if messages := self._held.pop(number, None):
            self._ray.cancel(messages, force=True)

    def _next(self, messages: Any) -> Event:
        number = self._running[messages]
        try:
            node, line, files = self._ray.get(next(messages))
        except StopIteration:
            return self._lost(messages, "the node ended the cell without its last message")
        except self._ray.exceptions.RayError as error:
            return self._lost(messages, shorten(error, 200))
        self._names[number] = node
        message: Any = decode(line)
        if isinstance(message, CellEnded | Refused):
            del self._running[messages]
        if isinstance(message, Refused):
            self._held[number] = messages
        return Event(number, message, files, node)

    def _lost(self, messages: Any, reason: str) -> Event:
        number = self._running.pop(messages)
        return Event(number, Lost(reason), node=self._names.get(number, "its node"))

    def _nodes(self) -> Sequence[dict[str, float]]:
        """Return the resources of each node that is alive."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _usable(self) -> Sequence[dict[str, float]]:
        """Return the resources of each node that can run a cell."""
        demand = self._demand()
        return [node for node in self._nodes() if all(node.get(name, 0) >= of for name, of in demand.items())]

    def _demand(self) -> dict[str, float]:
        """Return the amounts of a node that a cell takes, so that no second cell fits beside it.

        The custom resource where a node offers it, else all CPUs of a node. If the nodes have different numbers of
        CPUs, a cell takes more than half of the CPUs of the largest, and nodes with fewer are not used. Ray's resources
        are bookkeeping: a cell's processes have as many threads as the suite says.
        """
        nodes = self._nodes()
        if any(RESOURCE in node for node in nodes):
            return {RESOURCE: 1.0}
        cores = [node["CPU"] for node in nodes if node.get("CPU")]
        least, most = min(cores, default=1.0), max(cores, default=1.0)
        return {"CPU": least if 2 * least > most else most // 2 + 1}

    def _gpus(self, request: CellRequest) -> dict[str, float]:
        """Return the GPUs that a cell takes; none where no node has them, and the node says that they are absent."""
        device = request.cell.device
        index = device.options.get("index", 0)
        number = 0.0 if device.name == "cpu" or not isinstance(index, int) else index + 1.0
        return {"GPU": number} if number and any(node.get("GPU", 0) >= number for node in self._usable()) else {}

    def _check_nodes(self) -> None:
        """Name the nodes that are not used. Raises UsageError if none is."""
        nodes, usable = self._nodes(), self._usable()
        if not usable:
            raise UsageError(f"no node of the Ray cluster at {self._address!r} can run a cell: none has a CPU")
        # The head of a cluster often offers nothing on purpose.
        if unused := sum(1 for node in nodes if node.get("CPU") and node not in usable):
            words = f"{unused} of {len(nodes)} nodes are not used; offer the resource {RESOURCE!r} on each to use all"
            warnings.warn(words, CnnperfWarning, stacklevel=2)


def _serve(line: bytes, files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes, dict[str, bytes]]]:
    """Run a cell in a process of Ray's; yield the node's name with each message and its files."""
    import ray

    for variable in THREAD_VARIABLES:  # Ray sets one of them.
        os.environ.pop(variable, None)
    node = f"{os.uname().nodename} ({ray.get_runtime_context().get_node_id()[:6]})"
    for message, left in serve_cell(line, files):
        yield node, message, left
        if isinstance(decode(message), Refused):
            threading.Event().wait()  # Until the head cancels it: this node takes no other cell.


def _reach(address: str) -> None:
    """Raise OSError if nobody listens at an address `host:port`; others are found by Ray."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Restore this process's handler of SIGTERM, for which Ray sets its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
