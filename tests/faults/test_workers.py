"""Faults of the processes that measure: nothing hangs, nothing is left running, and no answer is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from faulty import COMMAND, SUITE, all_gone, assert_ended, assert_one_sentence, cnnperf, write_suite
from processes import environment, has_ended, started, until

from cnnperf import record as store
from cnnperf.record import Record

HERE = Path(__file__).parent
LIMIT_S = 200.0
"""Seconds after which a command counts as hung; the longest wait in it is that after an answer."""
LOG_BYTES = 2**24
"""Largest log."""
ERROR_BYTES = 10_000
"""Longest error in a record."""


def suite_of(*models: str, **settings: object) -> str:
    """Return a small suite of misbehaving networks, and of a sound one at the end."""
    names = json.dumps([*(f"misbehaving:{model}" for model in models), "mlp"])
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    return "\n".join([*lines, SUITE.replace('["mlp"]', names)])


def importable() -> dict[str, str]:
    """Return an environment in which workers import the misbehaving networks."""
    path = environment()["PYTHONPATH"]
    return environment(PYTHONPATH=f"{HERE}{os.pathsep}{path}")


def run(
    folder: Path, *models: str, limit_s: float = LIMIT_S, **settings: object
) -> tuple[subprocess.CompletedProcess[str], Sequence[Record]]:
    """Run a suite of misbehaving networks; return the ended command and the records, of which the last is sound."""
    suite = write_suite(folder, suite_of(*models, **settings))
    done = cnnperf("run", suite, "--out", folder / "run", env=importable(), limit_s=limit_s)
    assert_ended(done, 0, 1)
    records = store.read(folder / "run")
    assert len(records) == len(models) + 1, done.stderr
    assert records[-1].status == "ok", records[-1].error
    return done, records[:-1]


def assert_measured(record: Record, *words: str) -> None:
    """Fail unless a record is ok, holds an accuracy and says these words."""
    assert record.status == "ok", record.error
    assert record.find("train.test_accuracy")
    for word in words:
        assert word in (record.error or "")


def assert_failed(record: Record, *words: str) -> None:
    """Fail unless a record says in one short sentence that its task failed."""
    assert record.status == "failed"
    assert record.error is not None
    assert len(record.error) <= 500
    for word in words:
        assert word in record.error


QUICK = (
    *("says_garbage", "says_a_number", "says_an_unknown_message", "says_a_foreign_message", "says_deep_json"),
    *("says_a_long_line", "floods_and_ends", "exits_with_zero", "calls_sys_exit"),
    *("raises_a_long_error", "prints_a_lot", "leaves_a_daemon", "leaves_a_session"),
)
"""Networks whose processes end soon; they run in one suite."""


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Record]]:
    """Run the networks whose processes end soon; return the run folder and their records."""
    folder = tmp_path_factory.mktemp("quick")
    _, records = run(folder, *QUICK, limit_s=len(QUICK) * LIMIT_S, timeout_s=120)
    return folder / "run", dict(zip(QUICK, records, strict=True))


@pytest.mark.parametrize("model", ["hangs_at_exit", "keeps_a_thread", "progresses_on"])
def test_a_worker_that_hangs_after_its_answer(tmp_path: Path, model: str) -> None:
    """A worker that does not end after its answer is ended soon, and its answer is the record."""
    done, [record] = run(tmp_path, model, timeout_s=600)
    assert_measured(record, "did not end by itself")
    assert record.duration_s < 300
    assert "did not end by itself" in done.stderr


def test_a_worker_that_closes_its_pipe_and_hangs(tmp_path: Path) -> None:
    """A worker that closes its pipe before it has answered is ended at its time limit."""
    _, [record] = run(tmp_path, "closes_its_pipe", timeout_s=20)
    assert record.status == "timeout"
    assert "timeout_s = 20" in (record.error or "")


@pytest.mark.parametrize(
    "model",
    ["says_garbage", "says_a_number", "says_an_unknown_message", "says_a_foreign_message", "says_deep_json"],
)
def test_a_worker_that_says_what_no_task_says(quick: tuple[Path, Mapping[str, Record]], model: str) -> None:
    """The task of a worker that sends no message, or one of another kind, fails, and the suite goes on."""
    record = quick[1][model]
    assert_failed(record, "the process sent", "message")


def test_a_worker_that_says_a_line_without_end(quick: tuple[Path, Mapping[str, Record]]) -> None:
    """A line that is too long is dropped, and the record says so."""
    record = quick[1]["says_a_long_line"]
    assert_measured(record, "1 messages of the process were dropped", "1 MiB")


@pytest.mark.parametrize("model", ["floods", "floods_without_lines"])
def test_a_worker_that_floods_its_pipe(tmp_path: Path, model: str) -> None:
    """A worker that never stops to talk is ended at its time limit, and its parent uses little of a core."""
    _, [record] = run(tmp_path, model, timeout_s=20)
    assert record.status == "timeout"
    assert "dropped" in (record.error or "")
    assert record.parent_cpu_s < 0.5 * record.duration_s


def test_a_worker_that_floods_its_pipe_and_ends(quick: tuple[Path, Mapping[str, Record]]) -> None:
    """A task whose process has talked too much is measured, and its record says that messages were dropped."""
    record = quick[1]["floods_and_ends"]
    assert_measured(record, "dropped")


def test_a_constructor_that_never_returns(tmp_path: Path) -> None:
    """Preflight says what it waits for, and ends at its time limit with a sentence that names the setting."""
    suite = write_suite(tmp_path, suite_of("is_never_built", preflight_timeout_s=25))
    done = cnnperf("run", suite, "--out", tmp_path / "run", env=importable(), limit_s=LIMIT_S)
    assert_one_sentence(done, 2, "preflight_timeout_s = 25", "misbehaving:is_never_built")
    assert "the check waits for the network 'misbehaving:is_never_built'" in done.stderr.splitlines()[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", ["exits_with_zero", "calls_sys_exit"])
def test_a_model_that_ends_its_own_process(quick: tuple[Path, Mapping[str, Record]], model: str) -> None:
    """The record of a model that exits with status 0 says that the code ended its own process."""
    record = quick[1][model]
    assert_failed(record, "status 0 without an answer", "os._exit or sys.exit")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_a_parent_that_is_ended_by_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    """A hanging worker ends at once with its parent, however that ends."""
    suite = write_suite(tmp_path, suite_of("hangs", timeout_s=600))
    mark = f"{tmp_path}-{number.name}"
    command = (COMMAND, "run", suite, "--out", tmp_path / "run")
    with started(command, env={**importable(), "FAULT_MARK": mark}, limit_s=LIMIT_S) as process:
        until(
            lambda: any(log.read_bytes() == b"hangs\n" for log in (tmp_path / "run/logs").glob("*.log")),
            limit_s=LIMIT_S,
        )
        process.send_signal(number)
        out, err = process.communicate()
    assert all_gone(mark)
    assert "Traceback" not in out + err
    if number is not signal.SIGKILL:
        assert process.returncode == 130, err
        assert "start again with: cnnperf run" in err


def test_what_a_worker_has_left_when_its_parent_is_killed(tmp_path: Path) -> None:
    """A process that a worker left in a session of its own ends with the parent, also if that is killed."""
    suite = write_suite(tmp_path, suite_of("leaves_a_daemon_and_hangs", timeout_s=600))
    mark = str(tmp_path)
    command = (COMMAND, "run", suite, "--out", tmp_path / "run")
    with started(command, env={**importable(), "FAULT_MARK": mark}, limit_s=LIMIT_S) as process:
        until(
            lambda: any(b"hangs\n" in log.read_bytes() for log in (tmp_path / "run/logs").glob("*.log")),
            limit_s=LIMIT_S,
        )
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert all_gone(mark, within_s=10.0)


@pytest.mark.parametrize("ignored", [False, True])
def test_a_hangup_that_is_ignored(tmp_path: Path, *, ignored: bool) -> None:
    """A run goes on after its terminal has closed if it was started by `nohup`."""
    suite = write_suite(tmp_path)
    command = (*(["nohup"] if ignored else []), COMMAND, "run", suite, "--out", tmp_path / "run")
    with started(command, env=importable(), limit_s=LIMIT_S) as process:
        until((tmp_path / "run/logs").exists, limit_s=LIMIT_S)
        process.send_signal(signal.SIGHUP)
        process.communicate()
    assert process.returncode == (0 if ignored else 130)


@pytest.mark.parametrize("model", ["leaves_a_daemon", "leaves_a_session"])
def test_a_process_that_a_worker_leaves(quick: tuple[Path, Mapping[str, Record]], model: str) -> None:
    """A process in a session of its own ends with the task that started it."""
    assert_measured(quick[1][model])
    [log] = (quick[0] / "logs").glob(f"*{model}*.log")
    child = int(log.read_text().split("child ")[1].split()[0])
    assert has_ended(child, within_s=5.0)


def test_a_side_that_leaves_a_process(tmp_path: Path) -> None:
    """A process that a side of a comparison has left ends with the pair."""
    mark = str(tmp_path)
    suite = write_suite(tmp_path, suite_of("leaves_a_daemon"))
    words = ("ab", suite, "--baseline", ".", "--minutes", 1.5, "--out", tmp_path / "ab")
    done = cnnperf(*words, env={**importable(), "FAULT_MARK": mark}, limit_s=LIMIT_S)
    assert_ended(done, 0, 1, 3)
    assert all_gone(mark)


STRAYS = ("torch", "typing", "json", "numpy", "cnnperf")


@pytest.mark.parametrize("words", [("run", "small.toml", "--out", "run"), ("schema",)])
def test_files_in_the_working_directory_that_are_named_like_modules(tmp_path: Path, words: Sequence[str]) -> None:
    """No file of the working directory runs, but a network that the suite names in it is found."""
    for name in STRAYS:
        (tmp_path / f"{name}.py").write_text(f"open('{tmp_path}/ran-{name}', 'w').close()\n")
    (tmp_path / "mine.py").write_text("from cnnperf.models.mlp import build\n")
    write_suite(tmp_path, SUITE.replace('["mlp"]', '["mlp", "mine:build"]'))
    done = cnnperf(*words, cwd=tmp_path, limit_s=LIMIT_S)
    assert not list(tmp_path.glob("ran-*"))
    assert_ended(done, 0)


def test_a_worker_that_prints_a_lot(quick: tuple[Path, Mapping[str, Record]]) -> None:
    """The log keeps the beginning and the end of 200 MB of output, and says how much lies between."""
    record = quick[1]["prints_a_lot"]
    assert_measured(record)
    [log] = (quick[0] / "logs").glob("*prints_a_lot*.log")
    assert log.stat().st_size < LOG_BYTES + 1000
    text = log.read_text()
    assert "bytes of output are left out here" in text
    assert "last words" in text[-1000:]


def test_an_error_of_20_mb(quick: tuple[Path, Mapping[str, Record]]) -> None:
    """A record has the beginning of a long error, and its length."""
    record = quick[1]["raises_a_long_error"]
    assert record.status == "failed"
    assert len((record.error or "").encode()) <= ERROR_BYTES
    assert "20,000,0" in (record.error or "")
    assert (quick[0] / store.FILE).stat().st_size < 1_000_000
