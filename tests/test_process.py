"""Worker processes: heard without polling, never left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cnnperf.process import ALLOCATORS, Launch, WorkerProcess, tail
from cnnperf.task import Cell, Choice, Task


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[object]:
    """Return a function that starts a worker whose module is the code given."""
    package = tmp_path / "cnnperf"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)

    def start(code: str, **options: object) -> WorkerProcess:
        (package / "worker.py").write_text(
            "import json, os, sys, time\nmode, pipe = sys.argv[1], int(sys.argv[2])\n"
            "def say(**message): os.write(pipe, json.dumps(message).encode() + b'\\n')\n" + code
        )
        return WorkerProcess("--task", "request", log=tmp_path / "log", **options)  # type: ignore[arg-type]

    yield start
    monkeypatch.undo()


def forever() -> None:
    """Wait without end."""


def test_messages_arrive_and_the_end_is_seen(worker, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Lines come whole, however they were cut; output goes to the log; the exit status is kept."""
    code = (
        "print(mode, sys.stdin.read(), flush=True)\nsay(a=1)\n"
        "os.write(pipe, b'{\"b\":'); time.sleep(.05); os.write(pipe, b'2}\\n{\"c\": 3}\\n')\nsys.exit(3)"
    )
    with worker(code) as process:
        assert list(process.messages(forever)) == [{"a": 1}, {"b": 2}, {"c": 3}]
        assert (process.returncode, process.signal) == (3, None)
    assert tail(tmp_path / "log") == ("--task request",)


def test_threads_are_set_before_anything_is_imported(worker) -> None:  # type: ignore[no-untyped-def]
    """The environment carries them."""
    with worker("say(threads=os.environ['OMP_NUM_THREADS'])", launch=Launch(threads=3)) as process:
        assert list(process.messages(forever)) == [{"threads": "3"}]


NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MALLOC_TRIM_THRESHOLD_")
ANSWER = f"say(**{{name: os.environ.get(name) for name in {NAMES}}})"
KEEP = ALLOCATORS["keep"]["MALLOC_TRIM_THRESHOLD_"]


@pytest.mark.parametrize(
    ("launch", "found"),
    [
        (Launch(waiting="spin"), (None, None, KEEP)),
        (Launch(waiting="brief"), (None, "3000", KEEP)),
        (Launch(waiting="passive", allocator="system"), ("PASSIVE", None, None)),
    ],
)
def test_every_worker_has_the_environment_that_its_launch_names(  # type: ignore[no-untyped-def]
    worker, monkeypatch: pytest.MonkeyPatch, launch: Launch, found: tuple[str | None, ...]
) -> None:
    """Variables of the shell for the same purpose do not get through, so that the record says what was."""
    for name, value in zip(NAMES, ("ACTIVE", "7", "8"), strict=True):
        monkeypatch.setenv(name, value)
    with worker(ANSWER, launch=launch) as process:
        (message,) = process.messages(forever)
    assert tuple(message.values()) == found


def test_a_task_of_an_older_version_is_launched_by_the_defaults() -> None:
    """It names neither a way of waiting nor an allocator."""
    cell = Cell(dataset=Choice(name="mnist"), model=Choice(name="lenet"), device=Choice(name="cpu"))
    task = Task(cell=cell, stage="train", seed=0, threads=2, timeout_s=1)
    assert Launch.of(task) == Launch(threads=2)
    assert Launch.of(task.model_copy(update={"waiting": "spin"})).waiting == "spin"


def test_a_signal_is_named(worker) -> None:  # type: ignore[no-untyped-def]
    """A crash is told from an exit."""
    with worker("os.kill(os.getpid(), 11)") as process:
        assert list(process.messages(forever)) == []
        assert process.signal == "SIGSEGV"


def test_silence_ends_in_a_timeout_and_the_group_dies(worker) -> None:  # type: ignore[no-untyped-def]
    """What the worker started goes with it."""
    code = "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\nsay(pid=child.pid)\ntime.sleep(600)"
    with worker(code) as process:
        patience: list[float | None] = [None, 0.5]
        messages = process.messages(lambda: patience.pop(0))
        message = next(messages)
        with pytest.raises(TimeoutError):
            next(messages)
    assert has_ended(message["pid"])


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd")
def test_a_grandchild_that_keeps_the_pipe_does_not_hold_us(worker) -> None:  # type: ignore[no-untyped-def]
    """The worker's own end counts, not the pipe's."""
    code = "import subprocess\nsubprocess.Popen(['sleep', '600'], pass_fds=(pipe,))\nsay(done=1)"
    begun = time.monotonic()
    with worker(code) as process:
        assert list(process.messages(lambda: begun + 60 - time.monotonic())) == [{"done": 1}]
        assert process.returncode == 0


def has_ended(pid: int) -> bool:
    """Tell whether a process ends within seconds, for one that was killed may have to wait for a core to die on."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            # One that is dead and not yet reaped has ended.
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


def test_the_parent_uses_no_processor_while_it_waits(worker) -> None:  # type: ignore[no-untyped-def]
    """Waiting is blocking: a worker that takes a second costs its parent a few milliseconds at most."""
    with worker("time.sleep(1)") as process:
        before = time.process_time()
        assert list(process.messages(forever)) == []
        used = time.process_time() - before
    assert used < 0.1  # seconds; a loop that polls uses the whole second
