"""Running tasks: every task leaves a record, and no process is left running."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import psutil
import pytest
from forked import workers_forked
from in_process import Worker, workers_here
from processes import environment, has_ended, until

from cnnperf import record as store
from cnnperf.errors import CnnperfWarning, RunError, StoreError, UsageError
from cnnperf.ipc.family import SWEEP
from cnnperf.ipc.messages import Message, Ready, SuiteRequest, TaskRequest
from cnnperf.ipc.process import WorkerProcess
from cnnperf.record import Record
from cnnperf.running import runner
from cnnperf.running.preflight import prepare
from cnnperf.running.runner import (
    Run,
    Unwatched,
    created,
    execute,
    folder_to_make,
    folder_to_run,
    left_in,
    new_folder,
    pending,
)
from cnnperf.suite import Suite, parse
from cnnperf.tables.report import report_of_run

DATA = {"name": "synthetic", "shape": [1, 28, 28], "train": 600, "test": 200}
TRAIN = {"steps": 4, "validation_images": 100, "batch_size": 50}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers import the broken networks."""
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])


@pytest.fixture
def _here() -> Iterator[None]:
    """Run the workers in this process, except in tests of their lifetime."""
    with workers_here():
        yield


def suite(*models: object, **changes: object) -> Suite:
    """Return a short suite of these models."""
    document = {"datasets": [DATA], "models": list(models), "threads": 1, "train": TRAIN}
    return parse(document | changes, where="x.toml", name="x")


def ready(*models: object, **changes: object) -> Sequence[Ready]:
    """Prepare the tasks of the suite of these models."""
    with workers_here():
        return prepare(SuiteRequest(suite=suite(*models, **changes), where="x.toml")).tasks


@pytest.mark.usefixtures("_here")
def test_a_run_leaves_records_weights_and_logs(tmp_path: Path) -> None:
    """The record of each task is on disk when it is yielded, with the files it names."""
    tasks = ready("lenet", repeats=2)
    run = tmp_path / "run"
    for count, record in enumerate(execute(tasks, run, Unwatched()), start=1):
        assert record.status == "ok", record.error
        assert store.read(run)[-1] == record
        assert len(store.read(run)) == count
        weights = record.artifacts["weights"]
        assert weights.sha256 == hashlib.sha256((run / weights.path).read_bytes()).hexdigest()
        assert record.task.data is not None
        assert record.task.data.name == "synthetic"
        assert record.task.settings["lr"] > 0  # the model's recipe, filled in
    assert [record.task.seed for record in store.read(run)] == [0, 1]
    assert len({record.nonce for record in store.read(run)} - {None}) == 2
    assert len(list((run / "logs").glob("*.log"))) == 2
    assert not list((run / "logs").glob("*.json"))


TIMEOUT_S = 100.0
ENDINGS = {
    "killed": ("failed", "SIGKILL", "was killed (SIGKILL)"),
    "crashed": ("failed", "SIGSEGV", "crashed (SIGSEGV)"),
    "exited": ("failed", None, "ended with exit status 7"),
    "hung": ("timeout", None, "took longer than timeout_s"),
    "starved": ("failed", None, "out of memory: "),
    "raised": ("failed", None, "KeyError: 'surprise'"),
}


class Impatient(WorkerProcess):
    """A worker that times out as soon as it hangs, so that no test waits for it."""

    def messages(self, patience: Callable[[], float | None]) -> Iterator[Message]:
        """Yield messages until the hanging worker has started its child."""
        first = patience()
        assert first is not None
        assert TIMEOUT_S / 2 < first <= TIMEOUT_S
        while True:
            try:
                yield from super().messages(lambda: 0.1)
                return
            except TimeoutError:
                if b"child" in self.log.read_bytes():
                    raise


@pytest.fixture(scope="module")
def endings(once: Callable[[str, Callable[[Path], Any]], Any]) -> dict[str, Record]:
    """Run every broken network and two sound ones, in real processes where the process itself ends.

    The processes are forked from this one, except that of the sound network `fresh`.
    """
    made: dict[str, Record] = once("endings", ended)
    return made


def ended(folder: Path) -> dict[str, Record]:
    """Return the record of each network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        networks = (*(f"broken:{name}" for name in ENDINGS), "lenet", {"name": "lenet", "pool": "max"})
        *tasks, last = ready(*networks, timeout_s=TIMEOUT_S)

        def started(request: TaskRequest, **others: Any) -> Any:
            here = dict.fromkeys(("broken:raised", "broken:starved", "lenet"), Worker)
            kind = {"broken:hung": Impatient, **here}.get(str(request.task.cell.model), WorkerProcess)
            return kind(request, **others)

        patch.setattr("cnnperf.running.runner.WorkerProcess", started)
        with workers_forked():
            records = list(execute(tasks, folder, Unwatched()))
        [fresh] = execute([last], folder, Unwatched())
    return {record.task.cell.model.name.removeprefix("broken:"): record for record in records} | {"fresh": fresh}


@pytest.mark.parametrize("name", ENDINGS)
def test_every_way_to_end_gives_a_record(endings: dict[str, Record], name: str) -> None:
    """The record of a failed task gives status, signal and reason."""
    status, signal, words = ENDINGS[name]
    record = endings[name]
    assert (record.status, record.signal) == (status, signal)
    assert record.error is not None
    assert words in record.error
    assert not record.find("train.test_accuracy")


def test_a_task_that_ran_out_of_time_says_in_which_phase(endings: dict[str, Record]) -> None:
    """The reason of a timeout names the phase in which the task was ended, and the seconds of each phase."""
    phases = r"start \d+\.\d s, images \d+\.\d s, network \d+\.\d s, warm-up \d+\.\d s"
    error = endings["hung"].error
    assert error is not None
    assert re.fullmatch(rf"took longer than timeout_s = 100; ended in the phase 'warm-up' \({phases}\)", error), error


def test_what_was_measured_before_a_failure_is_kept(endings: dict[str, Record]) -> None:
    """The record of a stage that raises keeps the measurements before the failure."""
    assert endings["raised"].find("train.load_seconds")


def test_the_run_goes_on_after_every_failure(endings: dict[str, Record]) -> None:
    """A task after failed tasks is measured."""
    assert endings["lenet"].status == "ok"


def test_a_record_tells_of_the_process_that_measured(endings: dict[str, Record]) -> None:
    """The record has the threads, environment and libraries of the worker, and the CPU time of its parent."""
    record = endings["fresh"]
    assert record.status == "ok"
    assert record.machine.threads == 1
    assert (record.machine.environment or {})["OMP_NUM_THREADS"] == "1"  # as the worker has it, not this process
    assert record.machine.libraries
    assert record.machine.libraries.parallel_info
    assert record.machine.processor
    assert 0 < record.parent_cpu_s < record.duration_s


def test_the_last_words_of_a_failure_are_kept(endings: dict[str, Record]) -> None:
    """The record of a failure has the end of its log: printed text or the traceback."""
    assert "last words" in endings["exited"].log_tail
    assert any("raise KeyError" in line for line in endings["raised"].log_tail)
    assert endings["lenet"].log_tail == ()


def test_a_timeout_leaves_no_process_behind(endings: dict[str, Record]) -> None:
    """A timeout ends the task's child process too."""
    [line] = [line for line in endings["hung"].log_tail if line.startswith("child ")]
    child = int(line.split()[1])
    assert has_ended(child)


def test_a_process_that_is_killed_bounds_the_search_for_a_batch_size(tmp_path: Path) -> None:
    """When the system kills the worker for memory, its measurements stay and a new process measures the rest."""
    infer = {"engines": ["torch"], "batch_sizes": "auto", "samples": 11, "seconds": 0.0, "test_images": 100}
    tasks = ready("broken:greedy", stages=["infer"], infer=infer)
    with workers_forked():
        (record,) = execute(tasks, tmp_path, Unwatched())
    assert record.status == "ok", record.error
    assert [m.tags["batch_size"] for m in record.find("infer.latency")] == [1, 2, 4]
    (largest,) = record.find("infer.largest_batch_size")
    assert (largest.values, largest.remarks["bound"]) == ((4,), "memory")
    assert [m.tags["batch_size"] for m in record.find("infer.error_to_float64")] == [1, 2, 4]
    assert len(record.find("infer.peak_bytes")) == 1
    assert not store.kept_file(tmp_path, record.task).exists()


@pytest.mark.usefixtures("_here")
def test_a_device_that_is_not_there_is_skipped_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task on an absent device is skipped with the reason."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    [task] = ready("lenet", devices=["cuda"])
    [record] = execute([task], tmp_path, Unwatched())
    assert record.status == "skipped"
    assert record.error is not None
    assert "no CUDA device" in record.error


@pytest.mark.usefixtures("_here")
def test_a_task_whose_need_failed_is_skipped_with_that_reason(tmp_path: Path) -> None:
    """A task is skipped with the failure of the task that it needs, and runs once that task has succeeded."""
    [broken], [sound] = ready("broken:raised"), ready("lenet")

    def after(need: Ready) -> Ready:
        return sound.model_copy(update={"task": sound.task.model_copy(update={"needs": (need.task.key,)})})

    _, skipped, orphan = execute((broken, after(broken), after(sound)), tmp_path, Unwatched())
    assert skipped.status == orphan.status == "skipped"
    assert skipped.error == f"needs {broken.task.label}, which ended as failed: KeyError: 'surprise'"
    assert orphan.error == "needs a task that has not run; run its stages together"
    first, second = execute((sound, after(sound)), tmp_path, Unwatched())
    assert (first.status, second.status) == ("ok", "ok")


class Silent(Worker):
    """A worker that ends at once with success and without an answer."""

    def _work(self) -> None:
        self._log.touch()


@pytest.mark.usefixtures("_here")
def test_an_answer_that_another_attempt_left_is_refused(tmp_path: Path) -> None:
    """An answer with the nonce of an earlier attempt is not accepted."""
    [task] = ready("lenet")
    [first] = execute([task], tmp_path / "first", Unwatched())
    (tmp_path / "second" / "logs").mkdir(parents=True)
    [log] = (tmp_path / "first" / "logs").glob("*.log")
    stale = tmp_path / "second" / "logs" / log.with_suffix(".json").name
    stale.write_text(first.model_dump_json(by_alias=True))
    with pytest.MonkeyPatch.context() as patch:  # Undone before `_here` is.
        patch.setattr("cnnperf.running.runner.WorkerProcess", Silent)
        [second] = execute([task], tmp_path / "second", Unwatched())
    assert (second.status, second.error) == ("failed", runner.NO_ANSWER)
    assert second.measurements == ()
    assert second.nonce not in (None, first.nonce)
    assert not stale.exists()


@pytest.mark.usefixtures("_here")
def test_an_artifact_that_changed_is_not_measured(tmp_path: Path) -> None:
    """A stage fails if the weights that it reads have changed since they were written."""
    infer = {"engines": ["torch"], "batch_sizes": [1], "samples": 11, "seconds": 0.0, "pairs": 0}
    training, inference = ready("lenet", stages=["train", "infer"], infer=infer)
    [trained] = execute([training], tmp_path, Unwatched())
    weights = tmp_path / trained.artifacts["weights"].path
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    [record] = execute([inference], tmp_path, Unwatched())
    assert record.status == "failed"
    assert record.error is not None
    assert record.error.startswith(f"{weights}: its content has changed since its task wrote it (sha256 ")


@pytest.mark.usefixtures("_here")
def test_the_samples_of_a_run_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The records are read when the folder is opened; how tasks ended is kept up to date in memory, without samples."""
    tasks = ready("lenet", {"name": "lenet", "pool": "max"})
    list(execute(tasks[:1], tmp_path, Unwatched()))
    read, count = store.read_locked, [0]

    def counting(run: Path, **options: bool) -> tuple[Record, ...]:
        count[0] += 1
        return read(run, **options)

    monkeypatch.setattr(runner, "read", None)
    monkeypatch.setattr(runner, "read_locked", counting)
    with Run(tmp_path) as run:
        assert [ready.task.key for ready in pending(tasks, run.left)] == [tasks[1].task.key]
        assert list(run.left) == [tasks[0].task.key]
        list(run.execute(tasks, Unwatched()))
        assert pending(tasks, run.left) == ()
    assert count == [1]
    assert [(each.measurements, each.log_tail) for each in run.left.values()] == [((), ())] * 2
    assert run.records == read(tmp_path)
    assert all(record.measurements for record in run.records)


@pytest.mark.usefixtures("_here")
def test_resume_runs_what_is_missing_failed_or_changed(tmp_path: Path) -> None:
    """A resumed run omits successful unchanged tasks and runs all others."""
    tasks = ready("lenet", {"name": "lenet", "pool": "max"})
    run = tmp_path / "run"
    assert len(pending(tasks, left_in(run))) == 2
    [first, _] = execute(tasks, run, Unwatched())
    assert pending(tasks, left_in(run)) == ()
    store.append(run, first.model_copy(update={"status": "failed"}))
    assert [task.task.key for task in pending(tasks, left_in(run))] == [first.key]
    changed = ready("lenet", {"name": "lenet", "pool": "max"}, train=TRAIN | {"steps": 5})
    assert len(pending(changed, left_in(run))) == 2
    assert list(execute(tasks[1:], run, Unwatched())) == []


@pytest.mark.usefixtures("_here")
def test_what_one_invocation_runs_is_one_sitting(tmp_path: Path) -> None:
    """The records of one invocation share a sitting, and those of a resumed run have a later one."""
    tasks = ready("lenet", {"name": "lenet", "pool": "max"}, "broken:raised")
    before = list(execute(tasks[:2], tmp_path, Unwatched()))
    after = list(execute(tasks, tmp_path, Unwatched()))
    assert {len(before), len(after)} == {2, len(tasks) - 2}
    sittings = [{record.sitting for record in records} for records in (before, after)]
    assert [len(each) for each in sittings] == [1, 1]
    first, second = (each.pop() for each in sittings)
    assert first is not None
    assert second is not None
    assert first < second
    assert {record.sitting for record in store.read(tmp_path)} == {first, second}


@pytest.mark.usefixtures("_here")
def test_a_torn_line_costs_its_task_only(tmp_path: Path) -> None:
    """A torn last line gives a warning, and only its task is run again."""
    tasks = ready("lenet", {"name": "lenet", "pool": "max"})
    list(execute(tasks, tmp_path, Unwatched()))
    file = tmp_path / store.FILE
    file.write_bytes(file.read_bytes()[:-40])
    records = execute(tasks, tmp_path, Unwatched())
    with pytest.warns(CnnperfWarning, match="line 2: torn by a crash"):
        again = next(records)
    assert list(records) == []
    assert again.key == tasks[1].task.key
    assert [record.key for record in store.read(tmp_path)] == [task.task.key for task in tasks]


@pytest.mark.usefixtures("_here")
def test_the_second_run_into_a_folder_is_refused(tmp_path: Path) -> None:
    """A run into a locked folder is refused."""
    with store.lock(tmp_path), pytest.raises(StoreError, match="another run is writing this folder"):
        next(iter(execute(ready("lenet"), tmp_path, Unwatched())))


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    """A file in place of the folder is an error with exit code 2."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be written .*give another folder with `out`") as caught:
        next(iter(execute((), tmp_path / "file" / "run", Unwatched())))
    assert caught.value.exit_code == 2


@pytest.mark.usefixtures("_here")
def test_a_full_disk_in_mid_run_keeps_what_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk ends the run with exit code 1 and the cure, and keeps the earlier records."""
    tasks = ready("lenet", {"name": "lenet", "pool": "max"})
    records = execute(tasks, tmp_path, Unwatched())
    first = next(records)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runner, "append", full)
    with pytest.raises(RunError, match=r"No space left on device.*free disk space and resume") as caught:
        next(records)
    assert caught.value.exit_code == 1
    assert store.read(tmp_path) == (first,)


@pytest.mark.usefixtures("_here")
def test_a_folder_that_another_run_filled_meanwhile_is_refused(tmp_path: Path) -> None:
    """A run that needs a new folder is refused if records lie there by the time that it locks it."""
    tasks = ready("lenet")
    [record] = execute(tasks, tmp_path, Unwatched(), is_new=True)
    with pytest.raises(UsageError, match=r"^`out`: .* already contains a run; name it with `resume`"):
        next(iter(execute(tasks, tmp_path, Unwatched(), is_new=True)))
    assert list(execute(tasks, tmp_path, Unwatched())) == []
    assert store.read(tmp_path) == (record,)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (OSError(errno.ENOENT, "No such file", "/proc/x"), r"the run cannot go on \(/proc/x: No such file\); records"),
        (
            OSError(errno.EAGAIN, "Unavailable"),
            r"the run cannot go on \(Unavailable\); records are kept; raise the lim",
        ),
        (OSError(errno.EFBIG, "Too large", "logs/a"), r"run: cannot be written \(Too large\); records are kept; raise"),
    ],
)
@pytest.mark.usefixtures("_here")
def test_what_the_system_refuses_in_mid_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError, words: str
) -> None:
    """The error says whether the run folder cannot be written or something else failed, with a cure that fits."""
    monkeypatch.chdir(tmp_path)
    tasks = ready("lenet")

    def refused(*_: object) -> None:
        place = fault.filename and str(tmp_path / "run" / fault.filename)
        raise OSError(fault.errno, fault.strerror, *([place] if place else []))

    monkeypatch.setattr(runner, "_run", refused)
    with pytest.raises(RunError, match=words):
        next(iter(execute(tasks, Path("run"), Unwatched())))


@pytest.mark.usefixtures("_here")
def test_a_clock_that_is_set_back_changes_no_duration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Durations come from a clock that nobody sets; records made under an earlier date follow those before them."""
    days = iter(range(20, 0, -1))

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls(2025, 1, next(days), tzinfo=tz)

    monkeypatch.setattr(runner, "datetime", Clock)
    tasks = ready("lenet", {"name": "lenet", "pool": "max"})
    for each in tasks:
        list(execute([each], tmp_path, Unwatched()))
    records = store.read(tmp_path)
    assert [record.key for record in records] == [each.task.key for each in tasks]
    assert records[0].started > records[1].started
    assert all(0 < record.duration_s < 600 for record in records)
    [table] = [table for table in report_of_run(tmp_path, records).tables if table.name == "leaderboard"]
    assert sorted(row["sitting"] for row in table.rows) == ["1", "2"]


def test_an_interrupt_ends_the_child_and_keeps_the_records(tmp_path: Path) -> None:
    """An interrupt keeps the records, ends the worker and its child, and releases the lock."""
    tasks = ready("lenet", "broken:hung")
    records: Iterator[Record] = execute(tasks, tmp_path, Unwatched())
    with workers_here():
        first = next(records)
    before = psutil.Process().children(recursive=True)
    ended: list[psutil.Process] = []

    def interrupt() -> None:
        until(lambda: any(b"child" in log.read_bytes() for log in (tmp_path / "logs").glob("*hung*.log")))
        started = set(psutil.Process().children(recursive=True)) - set(before)
        ended.extend(each for each in started if SWEEP not in each.cmdline())
        os.kill(os.getpid(), 2)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt), workers_forked():
        next(records)
    assert store.read(tmp_path) == (first,)
    assert len(ended) == 2, "the worker and its child"
    assert all(map(has_ended, ended))
    with store.lock(tmp_path):
        pass


def test_a_new_folder_is_named_after_suite_time_and_host(tmp_path: Path) -> None:
    """A new folder is `<results>/<suite>/<utc>-<host>`."""
    folder = new_folder(suite("lenet"), tmp_path)
    assert folder.parent == tmp_path / "x"
    assert folder.name[8] == "T"


def test_runs_that_begin_at_once_get_folders_of_their_own(tmp_path: Path) -> None:
    """Eight runs that create the folder of one name at once each get another one, numbered from 2."""
    with ThreadPoolExecutor(8) as pool:
        made = [each.result() for each in [pool.submit(created, tmp_path / "x" / "now") for _ in range(8)]]
    assert sorted(folder.name for folder in made) == ["now", *(f"now-{number}" for number in range(2, 9))]
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be written \(File exists\); give another folder with `out`"):
        created(tmp_path / "file" / "now")


def test_a_folder_that_holds_a_run_is_not_made_again(tmp_path: Path) -> None:
    """A folder with a run is refused, an empty one accepted, and a new one made where none is named."""
    assert folder_to_make(suite("lenet"), tmp_path) == tmp_path
    assert folder_to_make(suite("lenet"), None).parent == Path("results/x")
    (tmp_path / store.FILE).write_text("")
    with pytest.raises(UsageError, match="already contains a run; give another folder"):
        folder_to_make(suite("lenet"), tmp_path)


def test_the_folder_to_run(tmp_path: Path) -> None:
    """`folder_to_run` returns the folder to make or to resume, and refuses contradictions with the cure."""
    held, empty = tmp_path / "held", tmp_path / "empty"
    for folder in (held, empty):
        folder.mkdir()
    (held / store.FILE).touch()
    assert folder_to_run(suite("lenet"), empty, None) == empty
    assert folder_to_run(suite("lenet"), None, held) == held
    assert folder_to_run(suite("lenet"), None, None).parent == Path("results/x")
    for out, resume, words in (
        (empty, held, "both name the run folder"),
        (None, empty, f"^`resume`: {empty} contains no {store.FILE}"),
        (
            held,
            None,
            f"^`out`: {held} already contains a run; name it with `resume` to resume it, or give another folder",
        ),
    ):
        with pytest.raises(UsageError, match=words):
            folder_to_run(suite("lenet"), out, resume)


WAITED = "a thread waited for a core for 40.0 % of the time"


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Return a function that sets what is found of each attempt and of the machine, and returns the limits of waits."""

    def given(*verdicts: str, is_quiet: bool = True) -> list[float]:
        told, limits = iter(verdicts), list[float]()
        monkeypatch.setattr(runner, "disturbed", lambda _: next(told))
        monkeypatch.setattr(runner, "becomes_quiet", lambda limit_s: limits.append(limit_s) or is_quiet)
        return limits

    return given


def strictly(folder: Path, strict: int | None) -> tuple[Record, int]:
    """Run a task, with this number of further attempts, and return its record and the number of stored attempts."""
    with Run(folder) as run:
        [record] = run.execute(ready("lenet"), Unwatched(), strict=strict)
    assert store.read(folder) == (record,)
    return record, len((folder / store.FILE).read_text().splitlines())


@pytest.mark.usefixtures("_here")
def test_a_disturbed_task_is_repeated_once_the_machine_is_quiet(tmp_path: Path, found: Callable[..., Any]) -> None:
    """With `strict` a disturbed task runs again, up to that number of times, until it is undisturbed."""
    limits = found(WAITED, "no")
    with pytest.warns(CnnperfWarning, match=r"40\.0 % .*; repeated \(1 of 3\) once the machine is quiet, within 5 min"):
        record, attempts = strictly(tmp_path, 3)
    assert (record.status, record.error, attempts, limits) == ("ok", None, 2, [300.0])


@pytest.mark.usefixtures("_here")
def test_a_task_that_stays_disturbed_ends_so_with_its_figures(tmp_path: Path, found: Callable[..., Any]) -> None:
    """After the last attempt the task is `disturbed` with its reason and its measurements; a resumed run repeats it."""
    found(WAITED, WAITED, WAITED)
    with pytest.warns(CnnperfWarning) as told:
        record, attempts = strictly(tmp_path, 2)
    assert [f"repeated ({n} of 2)" in str(each.message) for n, each in zip((1, 2), told, strict=True)] == [True, True]
    assert (record.status, record.error, attempts) == ("disturbed", WAITED, 3)
    assert record.find("train.test_accuracy")
    with Run(tmp_path) as run:
        assert pending(ready("lenet"), run.left)


@pytest.mark.usefixtures("_here")
def test_a_machine_that_stays_busy_ends_the_attempts(tmp_path: Path, found: Callable[..., Any]) -> None:
    """If the machine does not become quiet within the limit, the task ends as `disturbed` without another attempt."""
    found(WAITED, is_quiet=False)
    with pytest.warns(CnnperfWarning) as told:
        record, attempts = strictly(tmp_path, 2)
    assert "not quiet within 5 minutes; it ends as disturbed" in str(told[-1].message)
    assert (record.status, attempts) == ("disturbed", 1)


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(("strict", "status"), [(None, "ok"), (0, "disturbed")])
def test_without_attempts_nothing_is_repeated(
    tmp_path: Path, found: Callable[..., Any], strict: int | None, status: str
) -> None:
    """Without `strict` a disturbed task ends like others, and with 0 it is `disturbed` at once."""
    found(WAITED)
    record, attempts = strictly(tmp_path, strict)
    assert (record.status, attempts) == (status, 1)


@pytest.mark.usefixtures("_here")
def test_a_busy_machine_is_said_before_the_first_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run begins with a look at the machine and warns if it is busy; a run without a task to run has no look."""
    tasks = ready("lenet")
    monkeypatch.setattr(runner, "busy", lambda: "2.0 of 2 usable cores busy with other work")
    with pytest.warns(CnnperfWarning, match="the machine is busy: 2.0 of 2 usable cores busy with other work; end"):
        assert len(list(execute(tasks, tmp_path, Unwatched()))) == 1
    assert list(execute(tasks, tmp_path, Unwatched())) == []
