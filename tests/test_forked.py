"""Copies of the tests' process have a time limit and show their faults."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from forked import Copy, called_in, limited


def test_a_copy_beyond_its_limit_fails_the_test_and_is_killed() -> None:
    """A copy that exceeds its time limit is killed, and the wait for it ends in an AssertionError."""

    def wait() -> None:
        with open(os.devnull, "r+") as nothing:
            copy = Copy(lambda: time.sleep(600), (nothing.fileno(),) * 3, env=os.environ)
            with limited(copy, "sleep", limit_s=0.2):
                copy.wait()

    with pytest.raises(AssertionError, match=r"sleep did not end within 0\.2 s; killed"):
        wait()


def test_a_call_that_raises_in_its_copy_shows_the_traceback(tmp_path: Path) -> None:
    """An exception in a copy is shown with its traceback, even if the folder's module raises it during import."""
    (tmp_path / "in_process.py").write_text("raise ZeroDivisionError('as it was imported')")
    with pytest.raises(AssertionError, match=r"(?s)Traceback.*ZeroDivisionError: as it was imported"):
        called_in(tmp_path, "list", "models")
