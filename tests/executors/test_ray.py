"""The Ray executor on a cluster of three nodes on this machine: real nodes, real workers, real losses."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import completed, environment, interruptible, started, until

from cnnperf import record as store
from cnnperf.record import Record

COMMAND = (sys.executable, "-m", "cnnperf")
LIMIT_S = 1200.0
PYTEST_LIMIT_S = 2400
SUITE = """
datasets = [
    { name = "synthetic", shape = [1, 28, 28], train = 300, test = 100 },
    { name = "synthetic", shape = [1, 28, 28], train = 200, test = 100 },
    { name = "synthetic", shape = [1, 28, 28], train = 250, test = 100 },
]
models = ["mlp", "lenet", { name = "lenet", batch_norm = true }]
threads = 1
stages = ["train", "export"]
train = { steps = 2, validation_images = 50, batch_size = 50 }
"""
CELLS = 9
FEW = ("--only", "*train=300*")
"""A third of the cells."""
NODES = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
print(cluster.address, flush=True)
for _ in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    print(len(nodes), flush=True)
cluster.shutdown()
"""
"""A program that starts three nodes of one CPU, and kills one for each line that it reads."""

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(PYTEST_LIMIT_S)]


class Nodes:
    """Three nodes in a process of their own."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self.address = process.stdout.readline().strip()

    def kill_one(self) -> None:
        """Kill the raylet of a node."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline().strip()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Start three nodes."""
    pytest.importorskip("ray")
    # Ray makes sockets there, whose paths must be short.
    place = tempfile.TemporaryDirectory(prefix="ray", dir="/tmp")
    env = environment(
        RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0", RAY_TMPDIR=place.name, FAULT_MARK=str(tmp_path)
    )
    with (
        place,
        open(tmp_path / "nodes.log", "w") as log,
        started((sys.executable, "-c", NODES), limit_s=2 * LIMIT_S, env=env, stdin=-1, stderr=log) as process,
    ):
        found = Nodes(process)
        assert found.address, (tmp_path / "nodes.log").read_text()
        yield found
        process.stdin.close()
        process.wait(LIMIT_S)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Write the suite."""
    path = tmp_path / "small.toml"
    path.write_text(SUITE)
    return path


def run(*words: object) -> str:
    """Run `cnnperf run` to its end, and return what it told."""
    done = completed(*COMMAND, "run", *words, env=environment(), limit_s=LIMIT_S)
    assert done.returncode == 0, done.stderr
    return done.stderr


def spans(records: tuple[Record, ...], told: str) -> dict[str, list[tuple[float, float]]]:
    """Return when tasks ran, by the node on which the command said that they began."""
    nodes = dict(re.findall(r"^… (.+)  on (.+)$", told, re.MULTILINE))
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for record in records:
        start = datetime.fromisoformat(record.started).timestamp()
        found[nodes[record.task.label]].append((start, start + record.duration_s))
    return found


def rows(folder: Path) -> list[tuple[str, ...]]:
    """Return the tasks of a run, with their status and the kinds of their artifacts."""
    return sorted((each.task.label, each.status, *sorted(each.artifacts)) for each in store.read(folder))


def columns(folder: Path) -> set[str]:
    """Return the columns of a run's leaderboard, without those that only a disturbed training has."""
    found = (folder / "leaderboard.csv").read_text().split("\n")[0].split(",")
    return {name for name in found if "stretch" not in name}


@pytest.mark.long
def test_cells_run_on_nodes_of_their_own(nodes: Nodes, suite: Path, tmp_path: Path) -> None:
    """No two tasks overlap on a node, and the run has the rows, files and threads of a local one."""
    told = run(suite, "--executor", f"ray:{nodes.address}", "--out", tmp_path / "run")
    records = store.read(tmp_path / "run")
    assert [record.status for record in records] == ["ok"] * 2 * CELLS
    for record in records:
        assert all(each.verified(tmp_path / "run") for each in record.artifacts.values())
        assert list((tmp_path / "run" / "logs").glob(f"*-{record.key}.log"))
        assert record.machine.environment["OMP_NUM_THREADS"] == "1"
    of_node = spans(records, told)
    assert len(of_node) == 3
    for each in of_node.values():
        assert all(before[1] <= after[0] for before, after in pairwise(sorted(each)))
    run(suite, "--out", tmp_path / "local")
    assert rows(tmp_path / "run") == rows(tmp_path / "local")
    assert columns(tmp_path / "run") == columns(tmp_path / "local")


def test_a_killed_node_costs_its_attempt_only(nodes: Nodes, suite: Path, tmp_path: Path) -> None:
    """One node is killed in mid-run; the run ends with every record."""
    folder = tmp_path / "run"
    words = (*COMMAND, "run", suite, "--executor", f"ray:{nodes.address}", *FEW, "--out", folder)
    with started(words, env=environment(), limit_s=LIMIT_S) as process:
        until((folder / store.FILE).exists, limit_s=LIMIT_S)
        nodes.kill_one()
        _, told = process.communicate()
    assert process.returncode == 0, told
    assert [record.status for record in store.read(folder)] == ["ok"] * 2 * (CELLS // 3)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_an_interrupted_run_leaves_nothing_and_is_resumed(
    nodes: Nodes, suite: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """An interrupt ends every worker on every node; the run is resumed over fewer nodes."""
    folder = tmp_path / "run"
    words = (*COMMAND, "run", suite, "--executor", f"ray:{nodes.address}", *FEW, "--out", folder)
    with interruptible(), started(words, env=environment(), limit_s=LIMIT_S) as process:
        until((folder / store.FILE).exists, limit_s=LIMIT_S)
        os.kill(process.pid, number)
        _, told = process.communicate()
        assert process.returncode == 130, told
    until(lambda: "cnnperf.workers.task" not in " ".join(marked(str(tmp_path))))
    left = len(store.read(folder))
    nodes.kill_one()
    run(suite, "--executor", f"ray:{nodes.address}", *FEW, "--resume", folder)
    records = store.read(folder)
    assert len(records) == 2 * (CELLS // 3) > left > 0
    assert {record.status for record in records} == {"ok"}


def test_a_cluster_of_this_machine_ends_with_the_run(suite: Path, tmp_path: Path) -> None:
    """Without an address a cluster is started, in which tasks have the usual priority, and nothing of it is left."""
    pytest.importorskip("ray")
    mark = environment(FAULT_MARK=str(tmp_path))
    words = (suite, "--executor", "ray", "--only", "*train=300*/mlp/*", "--out", tmp_path / "run")
    done = completed(*COMMAND, "run", *words, env=mark, limit_s=LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert "low priority" not in done.stderr
    assert {record.status for record in store.read(tmp_path / "run")} == {"ok"}
    until(lambda: not marked(str(tmp_path)))


def marked(mark: str) -> list[str]:
    """Return the processes that descend from a command, by a variable of their environment."""
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.Error):
            if each.environ().get("FAULT_MARK") == mark and each.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(each.cmdline()))
    return found


def test_no_cluster_is_one_sentence(suite: Path, tmp_path: Path) -> None:
    """An address without a cluster is refused before anything is measured."""
    pytest.importorskip("ray")
    words = (*COMMAND, "run", suite, "--executor", "ray:127.0.0.1:1", "--out", tmp_path / "run")
    done = completed(*words, env=environment(), limit_s=LIMIT_S)
    assert done.returncode == 2
    assert "no Ray cluster at '127.0.0.1:1'" in done.stderr
    assert "Traceback" not in done.stderr
