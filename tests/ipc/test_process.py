"""Worker processes: heard without polling, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
from processes import has_ended

from cnnperf.ipc.log import tail
from cnnperf.ipc.messages import MalformedError, Noted, Progressed, Settle
from cnnperf.ipc.process import ALLOCATORS, Launch, WorkerProcess, interrupts_held
from cnnperf.task import Cell, Choice, Task


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[object]:
    """Return a function that starts a worker with the given code as its module."""
    package = tmp_path / "cnnperf" / "workers"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def start(code: str, **options: object) -> WorkerProcess:
        (package / "task.py").write_text(
            "import json, os, sys, time\npipe = int(sys.argv[1])\n"
            "def say(text): os.write(pipe, json.dumps({'note': {'text': text}}).encode() + b'\\n')\n" + code
        )
        return WorkerProcess(Settle(), log=tmp_path / "log", **options)  # type: ignore[arg-type]

    yield start
    monkeypatch.undo()


def forever() -> None:
    """Set no time limit."""


def test_messages_arrive_and_the_end_is_seen(worker, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Messages are read whole, however they arrive; output goes to the log, and the exit status is kept."""
    code = (
        "print(sys.stdin.read(), flush=True)\nsay('a')\nos.write(pipe, b'{\"note\":'); time.sleep(.05)\n"
        'os.write(pipe, b\'{"text": "b"}}\\n{"progress": {"numbers": {"c": 3}}}\\n\')\nsys.exit(3)'
    )
    with worker(code) as process:
        assert list(process.messages(forever)) == [Noted(text="a"), Noted(text="b"), Progressed(numbers={"c": 3})]
        assert (process.returncode, process.signal) == (3, None)
    assert tail(tmp_path / "log") == ('{"do": "settle", "with": {}}', "")


def test_a_system_that_refuses_to_signal_what_has_ended(worker, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """A worker's block ends where the worker's group cannot be signalled after its end, as on macOS."""

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "killpg", refused)
    with worker("say('a')") as process:
        assert list(process.messages(forever)) == [Noted(text="a")]
    assert process.returncode == 0


def test_a_line_that_is_no_message_is_told(worker) -> None:  # type: ignore[no-untyped-def]
    """A line that is no message raises a MalformedError."""
    with worker("os.write(pipe, b'Segmentation fault\\n')") as process, pytest.raises(MalformedError, match="JSON"):
        list(process.messages(forever))


def test_threads_are_set_before_anything_is_imported(worker) -> None:  # type: ignore[no-untyped-def]
    """A worker's environment has the number of threads of its launch."""
    with worker("say(os.environ['OMP_NUM_THREADS'])", launch=Launch(threads=3)) as process:
        assert list(process.messages(forever)) == [Noted(text="3")]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs affinity")
def test_a_worker_stays_on_the_cores_that_its_launch_names(worker) -> None:  # type: ignore[no-untyped-def]
    """A worker runs on the cores of its launch only, while this process keeps all of its cores."""
    allowed = os.sched_getaffinity(0)
    for cores in (*((core,) for core in sorted(allowed)), tuple(sorted(allowed))):
        with worker("say(json.dumps(sorted(os.sched_getaffinity(0))))", launch=Launch(cores=cores)) as process:
            assert os.sched_getaffinity(0) == allowed
            assert list(process.messages(forever)) == [Noted(text=json.dumps(cores))]


NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MALLOC_TRIM_THRESHOLD_")
ANSWER = f"say(json.dumps([os.environ.get(name) for name in {NAMES}]))"
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
    """A worker has the variables of its launch, and not those that the shell has for the same purpose."""
    for name, value in zip(NAMES, ("ACTIVE", "7", "8"), strict=True):
        monkeypatch.setenv(name, value)
    with worker(ANSWER, launch=launch) as process:
        (message,) = process.messages(forever)
    assert json.loads(message.text) == list(found)


def test_a_worker_inherits_no_other_setting_of_threads_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker does not inherit the shell's variables of OpenMP, MKL and the C library; its launch may set them."""
    stripped = ("GOMP_CPU_AFFINITY", "OMP_PROC_BIND", "OMP_DYNAMIC", "KMP_AFFINITY", "MKL_DYNAMIC", "MALLOC_ARENA_MAX")
    for name in (*stripped, "OMP_NUM_THREADS", "KMP_DUPLICATE_LIB_OK", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "1")
    found = Launch(threads=2, environment={"OMP_PROC_BIND": "close"}).variables()
    assert {name: found[name] for name in stripped if name in found} == {"OMP_PROC_BIND": "close"}
    assert [found[name] for name in ("OMP_NUM_THREADS", "KMP_DUPLICATE_LIB_OK", "CUDA_VISIBLE_DEVICES")] == [
        "2",
        "1",
        "1",
    ]
    assert Launch().variables()["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("of_shell", "inherited"),
    [
        ("glibc.malloc.trim_threshold=131072:glibc.malloc.mmap_threshold=131072", None),
        (
            "glibc.malloc.arena_max=1:glibc.pthread.rseq=0:glibc.cpu.x86_shstk=on",
            "glibc.pthread.rseq=0:glibc.cpu.x86_shstk=on",
        ),
    ],
)
def test_a_worker_inherits_no_tunable_of_the_allocator(
    monkeypatch: pytest.MonkeyPatch, of_shell: str, inherited: str | None
) -> None:
    """A worker inherits none of the tunables of glibc that override the variables of the allocator."""
    monkeypatch.setenv("GLIBC_TUNABLES", of_shell)
    assert Launch().variables().get("GLIBC_TUNABLES") == inherited


def test_a_task_of_an_older_version_is_launched_by_the_defaults() -> None:
    """A task that names neither waiting policy nor allocator is launched by the defaults."""
    cell = Cell(dataset=Choice(name="mnist"), model=Choice(name="lenet"), device=Choice(name="cpu"))
    task = Task(cell=cell, stage="train", seed=0, threads=2, timeout_s=1)
    assert Launch.of(task) == Launch(threads=2)
    assert Launch.of(task.model_copy(update={"waiting": "spin"})).waiting == "spin"


def test_a_signal_is_named(worker) -> None:  # type: ignore[no-untyped-def]
    """The signal that ends a worker is kept by its name."""
    with worker("os.kill(os.getpid(), 11)") as process:
        assert list(process.messages(forever)) == []
        assert process.signal == "SIGSEGV"


def test_silence_ends_in_a_timeout_and_the_group_dies(worker) -> None:  # type: ignore[no-untyped-def]
    """A worker that is silent for too long raises a TimeoutError, and is ended with its child process."""
    code = "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\nsay(str(child.pid))\ntime.sleep(600)"
    with worker(code) as process:
        patience: list[float | None] = [None, 0.5]
        messages = process.messages(lambda: patience.pop(0))
        message = next(messages)
        with pytest.raises(TimeoutError):
            next(messages)
    assert has_ended(int(message.text))


@pytest.mark.parametrize("has_pidfd", [True, False])
def test_a_worker_that_closed_its_pipe_ends_in_a_timeout_too(  # type: ignore[no-untyped-def]
    worker, monkeypatch: pytest.MonkeyPatch, *, has_pidfd: bool
) -> None:
    """A worker that closes its pipe and runs on beyond the time limit raises a TimeoutError after its messages."""
    if not has_pidfd:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    with worker("say('done')\nos.close(pipe)\ntime.sleep(600)") as process:
        patience: list[float | None] = [None, None, 0.5]
        messages = process.messages(lambda: patience.pop(0))
        assert next(messages) == Noted(text="done")
        with pytest.raises(TimeoutError):
            next(messages)
        assert process.returncode is None


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd")
def test_a_grandchild_that_keeps_the_pipe_does_not_hold_us(worker) -> None:  # type: ignore[no-untyped-def]
    """A worker's end is noticed even if its child process keeps the pipe open."""
    code = "import subprocess\nsubprocess.Popen(['sleep', '600'], pass_fds=(pipe,))\nsay('done')"
    begun = time.monotonic()
    with worker(code) as process:
        assert list(process.messages(lambda: begun + 60 - time.monotonic())) == [Noted(text="done")]
        assert process.returncode == 0


class Interrupted(subprocess.Popen[bytes]):
    """A start of a process during which an interrupt arrives, before the caller has the process."""

    pids: list[int]
    number: signal.Signals

    def __init__(self, *command: object, **options: object) -> None:
        super().__init__(*command, **options)  # type: ignore[call-overload]
        self.pids.append(self.pid)
        signal.raise_signal(self.number)


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def interrupted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Interrupt each start of a worker, and return the list of the processes' ids."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    pids: list[int] = []
    monkeypatch.setattr(Interrupted, "pids", pids, raising=False)
    monkeypatch.setattr(Interrupted, "number", request.param, raising=False)
    monkeypatch.setattr("cnnperf.ipc.process.subprocess.Popen", Interrupted)
    yield pids
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("is_stacked", [False, True])
def test_an_interrupt_while_a_worker_starts_leaves_none(  # type: ignore[no-untyped-def]
    worker, interrupted: list[int], is_stacked: bool
) -> None:
    """A worker that was just started is ended before the interrupt is raised, even if a stack was to own it."""

    def start() -> None:
        with ExitStack() as stack, interrupts_held() if is_stacked else nullcontext():
            stack.enter_context(worker("time.sleep(600)"))

    with pytest.raises(KeyboardInterrupt):
        start()
    [pid] = interrupted
    assert has_ended(pid)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_is_held_until_the_end_of_the_block_and_never_lost() -> None:
    """An interrupt during the block is raised at its end, with or without an error in the block."""
    reached: list[str] = []

    def hold(fault: type[Exception] | None = None) -> None:
        with interrupts_held():
            signal.raise_signal(signal.SIGINT)
            reached.append("end")
            if fault:
                raise fault

    with pytest.raises(KeyboardInterrupt):
        hold()
    assert reached == ["end"]
    with pytest.raises(KeyboardInterrupt) as caught:
        hold(ZeroDivisionError)
    assert isinstance(caught.value.__context__, ZeroDivisionError)


def test_an_ignored_interrupt_stays_ignored(worker) -> None:  # type: ignore[no-untyped-def]
    """A worker inherits an ignored SIGINT."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with worker("import signal; say(str(signal.getsignal(signal.SIGINT) is signal.SIG_IGN))") as process:
            assert list(process.messages(forever)) == [Noted(text="True")]
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_parent_uses_no_processor_while_it_waits(worker) -> None:  # type: ignore[no-untyped-def]
    """Waiting a second for a worker takes the parent less than 0.1 s of CPU time."""
    with worker("time.sleep(1)") as process:
        before = time.process_time()
        assert list(process.messages(forever)) == []
        used = time.process_time() - before
    assert used < 0.1  # seconds; a loop that polls uses the whole second
