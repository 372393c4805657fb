"""The real processes of the tests: limited in time, killed with their children, and always interruptible."""

from __future__ import annotations

import signal
import sys

import pytest
from processes import completed, has_ended, interruptible, started, until

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def test_a_process_beyond_its_limit_fails_the_test_and_is_killed_with_its_children() -> None:
    """A process beyond its limit is killed with its children, which ends a read even if a child holds the pipe."""
    children: list[int] = []

    def read() -> None:
        with started([sys.executable, "-c", PARENT], limit_s=2) as process:
            assert process.stdout is not None
            children.append(int(process.stdout.readline()))
            assert process.stdout.read() == ""

    with pytest.raises(AssertionError, match="did not end within 2 s; killed"):
        read()
    assert has_ended(children[0])


def test_a_test_that_fails_leaves_no_process() -> None:
    """After a failing test, the parent and its child are killed, and the test's own failure is reported."""
    children: list[int] = []

    def fail() -> None:
        with started([sys.executable, "-c", PARENT]) as process:
            assert process.stdout is not None
            children.append(int(process.stdout.readline()))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert has_ended(children[0])


def test_a_child_of_a_process_that_ignores_interrupts_can_be_interrupted() -> None:
    """A child can be interrupted even if its parent ignores SIGINT, as under `nohup`; the handler is restored."""
    ask = (sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            assert completed(*ask).stdout == "True\n"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert completed(*ask).stdout == "False\n"
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_question_without_an_answer_ends() -> None:
    """Waiting for a condition that never becomes true ends in an AssertionError after the limit."""
    with pytest.raises(AssertionError, match=r"nothing within 0\.1 s"):
        until(lambda: None, limit_s=0.1)
