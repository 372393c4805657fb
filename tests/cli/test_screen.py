"""The display of a run in progress."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from processes import until
from rich.console import Console

from cnnperf.cli.screen import DuetScreen, Screen, clock, stderr
from cnnperf.ipc.messages import Ready
from cnnperf.record import Machine, Measurement, Record
from cnnperf.suite import parse, plan

TASKS = plan(parse({"datasets": ["mnist"], "models": ["lenet", "resnet"]}, where="x", name="x"))
READY = [Ready(task=task, folder=None, skip=None, estimate_s=60, nominal_s=60, weight_bytes=0) for task in TASKS]


def record(**changes: object) -> Record:
    """Return the first task's record."""
    machine = Machine(host="h", os="o", cpu="c", cores=1, memory_bytes=1, python="3", packages={})
    facts = {"task": TASKS[0], "key": TASKS[0].key, "machine": machine, "started": "2025-01-02T03:04:05Z"}
    facts |= {"duration_s": 61.0, "status": "ok"}
    return Record.model_validate(facts | changes)


def follow(*, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the output of a run of two tasks after 90 seconds, while the second task runs."""
    now = [0.0]
    monkeypatch.setattr("cnnperf.cli.screen.time.monotonic", lambda: now[0])
    out = io.StringIO()
    screen = Screen(Console(file=out, force_terminal=terminal, width=100, color_system=None))
    accuracy = Measurement(
        metric="train.test_accuracy", unit="fraction", better="higher", values=(0.9871,), remarks={"n": 10_000}
    )
    speed = Measurement(metric="train.total_images_per_s", unit="images/s", better="higher", values=(3526.4,))
    with screen.shown():
        if terminal:
            screen.downloading("mnist", 2**20, 2**21)
        screen.planned(READY, Path("run"))
        screen.started(TASKS[0])
        now[0] = 61.0
        screen.finished(record(measurements=[accuracy, speed]))
        screen.started(TASKS[1])
        now[0] = 90.0
        screen.progressed({"step": 1200, "loss": 0.51234, "images_per_s": 812.3})
    return out.getvalue()


def test_off_a_terminal_there_is_a_line_per_begun_and_per_finished_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal, the beginning and the end of each task are one line each, without control sequences."""
    assert follow(terminal=False, monkeypatch=monkeypatch) == (
        "… 1/2 mnist/lenet/cpu train  about 1:00\n"
        "✓ 1/2 mnist/lenet/cpu train  98.7% of 10,000 test images, 3,526 images/s in all, 61 s\n"
        "… 2/2 mnist/resnet/cpu train  about 1:00\n"
    )


def test_a_task_that_is_skipped_does_not_begin() -> None:
    """A task without estimate, which is skipped, has only the line of its end."""
    out = io.StringIO()
    screen = Screen(Console(file=out, width=80))
    screen.planned([ready.model_copy(update={"estimate_s": 0.0}) for ready in READY], Path("run"))
    screen.started(TASKS[0])
    assert out.getvalue() == ""


@pytest.mark.parametrize("quiet", [False, True])
def test_a_quiet_screen_prints_nothing(capsys: pytest.CaptureFixture[str], *, quiet: bool) -> None:
    """A quiet console prints neither progress nor downloads."""
    with Screen(stderr(quiet=quiet)).shown() as screen:
        screen.downloading("mnist", 1, 2)
        screen.planned(READY, Path("run"))
        screen.started(TASKS[0])
        screen.finished(record())
    assert (capsys.readouterr().err == "") == quiet


def test_off_a_terminal_a_replicate_is_a_line() -> None:
    """A comparison prints a line as soon as the first of a replicate's contests is measured."""
    out = io.StringIO()
    screen = DuetScreen(Console(file=out, width=80))
    screen.planned((1.0, 2.0), (8, 14, 22), "power")
    before = out.getvalue()
    contest: Any = SimpleNamespace(key="a b")
    for number in (1, 1, 9):
        screen.measured(number, contest, None)  # type: ignore[arg-type]
    assert out.getvalue().removeprefix(before) == "… replicate 1, next look at 8\n… replicate 9, next look at 14\n"


def test_on_a_terminal_run_and_training_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal shows task i of n, the time elapsed and left, and the numbers of the current training."""
    screen = follow(terminal=True, monkeypatch=monkeypatch)
    assert screen.index("downloading mnist") < screen.index("1.0/2.1 MB") < screen.index("task 1 of 2")
    assert "task 2 of 2" in screen
    assert "elapsed 1:30, about 0:32 left" in screen
    assert "mnist/resnet/cpu train  step 1,200  loss 0.5123  images per s 812.3" in screen


def test_each_node_of_a_cluster_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal shows the task of each node with its numbers, and other output a line per begun task."""
    for terminal in (True, False):
        out = io.StringIO()
        screen = Screen(Console(file=out, force_terminal=terminal, width=100))
        screen.planned(READY, Path("run"))
        screen.on_node("box-1", "mnist/mlp/cpu train", {})
        screen.on_node("box-2", "mnist/lenet/cpu train", {})
        screen.on_node("box-2", "mnist/lenet/cpu train", {"step": 1200})
        shown = out.getvalue()
        assert ("… mnist/mlp/cpu train  on box-1\n" in shown) is not terminal
        assert ("box-2  mnist/lenet/cpu train  step 1,200" in shown) is terminal
        if terminal:
            last = shown.rpartition("task 1 of 2")[2]
            assert last.index("box-1  mnist/mlp/cpu train  starting") < last.index("box-2  ")
            screen.on_node("box-1", None, {})
            assert "box-1" not in out.getvalue().rpartition("task 1 of 2")[2]
        screen._clear()


@pytest.mark.parametrize(
    ("kind", "begin"),
    [
        (Screen, lambda screen: screen.planned(READY, Path("run"))),
        (DuetScreen, lambda screen: screen.calibrating(2, (1.0, 2.0))),
        (DuetScreen, lambda screen: screen.installing("an environment")),
    ],
)
def test_no_timer_runs_beside_a_measurement(kind: Callable[[Console], Any], begin: Callable[[Any], None]) -> None:
    """The timers that redraw the bars of a download end before the first measurement begins."""
    before = set(threading.enumerate())
    with kind(Console(file=io.StringIO(), force_terminal=True)).shown() as screen:
        screen.downloading("mnist", 1, 2)
        timers = set(threading.enumerate()) - before
        assert timers
        begin(screen)
        assert until(lambda: not any(timer.is_alive() for timer in timers), limit_s=20)


def test_a_failure_is_one_line() -> None:
    """A failed task is one line with the first line of its error, in which markup is plain text."""
    out = io.StringIO()
    screen = Screen(Console(file=out, width=80))
    screen.planned(READY, Path("run"))
    screen.finished(record(status="failed", error="[bold]boom[/bold]\nmore"))
    assert out.getvalue() == "✗ 1/2 mnist/lenet/cpu train  failed: [bold]boom[/bold]\n"


def test_an_environment_is_announced() -> None:
    """The message about a new environment has the prefix of the command's other messages and is not wrapped."""
    out = io.StringIO()
    DuetScreen(Console(file=out, width=20)).installing("v1 has other dependencies; making an environment for it")
    assert out.getvalue() == "cnnperf: v1 has other dependencies; making an environment for it\n"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")])
def test_clock(seconds: float, text: str) -> None:
    """Time spans are printed as minutes and seconds, and from one hour on with hours."""
    assert clock(seconds) == text
