"""The Slurm executor: jobs of submitit's local executor, and jobs of a real Slurm whose only node is this machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
from processes import completed, environment, interruptible, started, until

from cnnperf import record as store

LIMIT_S = 1200.0
COMMAND = (sys.executable, "-m", "cnnperf")
SUITE = """
datasets = [{ name = "synthetic", shape = [1, 28, 28], train = 300, test = 100 }]
models = ["mlp", "lenet"]
stages = ["train", "export"]
threads = 1
train = { steps = 2, validation_images = 50, batch_size = 50 }
"""
DAEMONS = ("munged", "slurmctld", "slurmd", "slurmstepd")
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
PluginDir={plugins}
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=5
NodeName={host} CPUs=1 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * LIMIT_S)]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Write the suite."""
    path = tmp_path / "small.toml"
    path.write_text(SUITE)
    return path


def whole(run: Path, done: subprocess.CompletedProcess[str]) -> None:
    """Fail unless the run has all records with their files, and nothing of its jobs is left in its folder."""
    assert done.returncode == 0, done.stderr
    records = store.read(run)
    assert [record.status for record in records] == ["ok"] * 4
    for record in records:
        assert all(each.verified(run) for each in record.artifacts.values())
        assert list((run / "logs").glob(f"*-{record.key}.log"))
    assert not list(run.glob("slurm-*"))


def at_work(run: Path) -> list[psutil.Process]:
    """Return the processes that name a run folder."""
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.Error):
            if str(run) in " ".join(each.cmdline()) and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
    return found


def interrupted(suite: Path, run: Path, executor: str, env: Mapping[str, str]) -> None:
    """Run a suite, interrupt it after its first record, and fail unless all its jobs end."""
    words = (*COMMAND, "run", suite, "--executor", executor, "--out", run)
    with interruptible(), started(words, env=env, limit_s=LIMIT_S) as process:
        until((run / store.FILE).exists, limit_s=LIMIT_S)
        os.kill(process.pid, signal.SIGINT)
        process.communicate()
        assert process.returncode == 130
    until(lambda: not at_work(run))


def test_a_suite_by_processes_of_this_machine(suite: Path, tmp_path: Path) -> None:
    """Each cell is a job; the run has every record, and is resumed after an interrupt."""
    pytest.importorskip("submitit")
    run = tmp_path / "run"
    interrupted(suite, run, "slurm:local", environment())
    whole(run, completed(*COMMAND, "run", suite, "--executor", "slurm:local", "--resume", run, limit_s=LIMIT_S))


def test_a_job_that_ends_without_a_word_is_lost(suite: Path, tmp_path: Path) -> None:
    """A cell whose job is killed begins again, and after three times its tasks are failed with the job's words."""
    pytest.importorskip("submitit")
    run = tmp_path / "run"
    words = (*COMMAND, "run", suite, "--executor", "slurm:local", "--only", "*/mlp/*", "--out", run)
    with started(words, env=environment(), limit_s=LIMIT_S) as process:
        for _ in range(3):
            job = until(lambda: [each for each in at_work(run) if "cnnperf.workers.node" in each.cmdline()])[0]
            job.kill()
            job.wait()
        _, told = process.communicate()
    assert process.returncode == 1, told
    errors = [record.error or "" for record in store.read(run) if record.status == "failed"]
    assert [error.endswith(", for the 3rd time") for error in errors] == [True] * len(errors) != []


def test_without_slurm_it_is_said(suite: Path, tmp_path: Path) -> None:
    """Where Slurm is not installed, one sentence says so before anything is measured."""
    pytest.importorskip("submitit")
    if shutil.which("srun"):
        pytest.skip("Slurm is here")
    done = completed(*COMMAND, "run", suite, "--executor", "slurm", "--out", tmp_path / "run", limit_s=LIMIT_S)
    assert done.returncode == 2
    assert 'Could not detect "srun"' in done.stderr


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Start a Slurm with this machine as its only node, and return the environment of its users."""
    pytest.importorskip("submitit")
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    found = {name: shutil.which(name, path=path) for name in DAEMONS}
    if not all(found.values()) or os.getuid():
        pytest.skip("needs slurmctld, slurmd and munged, and root to start them")
    place = tmp_path / "slurm"
    place.mkdir(mode=0o755)
    key = place / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    libraries = Path(str(found["slurmd"])).parents[1]
    [plugins] = {file.parent for file in libraries.glob("lib/*/slurm-wlm/auth_munge.so")}
    host = socket.gethostname().partition(".")[0]
    configuration = place / "slurm.conf"
    ports = [free_port(), free_port()]
    configuration.write_text(CONFIGURATION.format(host=host, place=place, plugins=plugins, ports=ports))
    env = environment(SLURM_CONF=str(configuration))
    munge = ("--foreground", "--force", f"--key-file={key}", f"--socket={place}/munge.socket", "--num-threads=2")
    munge += tuple(f"--{name}-file={place}/munge.{name}" for name in ("pid", "log", "seed"))
    with ExitStack() as stack:
        for name, words in (
            ("munged", munge),
            ("slurmctld", ("-D", "-f", configuration)),
            ("slurmd", ("-D", "-f", configuration, "-d", found["slurmstepd"])),
        ):
            log = stack.enter_context(open(place / f"{name}.log", "w"))
            command = (found[name], *words)
            stack.enter_context(started(command, limit_s=2 * LIMIT_S, env=env, stdout=log, stderr=log))
            if name == "munged":
                until((place / "munge.socket").exists)
        until(lambda: "idle" in completed("sinfo", env=env).stdout)
        yield env


def free_port() -> int:
    """Return the number of a port that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.mark.slurm
def test_a_suite_by_jobs_of_slurm(cluster: dict[str, str], suite: Path, tmp_path: Path) -> None:
    """Cells are jobs of an array; an interrupt cancels them, and the run is resumed to its end."""
    run = tmp_path / "run"
    interrupted(suite, run, "slurm", cluster)
    until(lambda: not completed("squeue", "--noheader", env=cluster).stdout.strip())
    words = (*COMMAND, "run", suite, "--executor", "slurm", "--resume", run)
    whole(run, completed(*words, env=cluster, limit_s=LIMIT_S))


@pytest.mark.slurm
def test_a_job_that_slurm_cancels_is_run_again(cluster: dict[str, str], suite: Path, tmp_path: Path) -> None:
    """The loss of a job is seen in the queue, without accounting, and its cell begins again."""
    run = tmp_path / "run"
    words = (*COMMAND, "run", suite, "--executor", "slurm", "--out", run)
    with started(words, env=cluster, limit_s=LIMIT_S) as process:
        until((run / store.FILE).exists, limit_s=LIMIT_S)
        [running, *_] = completed("squeue", "--noheader", "--states=R", "--format=%i", env=cluster).stdout.split()
        completed("scancel", running, env=cluster, check=True)
        out, told = process.communicate()
    whole(run, subprocess.CompletedProcess(words, process.returncode, out, told))


@pytest.mark.slurm
def test_a_partition_that_slurm_refuses_is_one_sentence(cluster: dict[str, str], suite: Path, tmp_path: Path) -> None:
    """Options that Slurm refuses are said in its words, and nothing is measured."""
    suite.write_text('executor = { name = "slurm", partition = "none" }\n' + SUITE)
    done = completed(*COMMAND, "run", suite, "--out", tmp_path / "run", env=cluster, limit_s=LIMIT_S)
    assert done.returncode == 2
    assert "the jobs were refused" in done.stderr
    assert "partition" in done.stderr
    assert not (tmp_path / "run" / store.FILE).exists()
