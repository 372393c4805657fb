"""Programs that are missing, hang, or print what is no text."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from processes import has_ended

from cnnperf.machine.program import NoAnswer, answer


def program(folder: Path, text: str) -> str:
    """Write a shell script and return its path."""
    file = folder / "program"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


def test_its_output_is_text(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are replaced, the status is returned, and there is no input to wait for."""
    done = answer(program(tmp_path, r"cat; printf 'a\377b\n'; echo why >&2; exit 3"))
    assert (done.returncode, done.stdout, done.stderr) == (3, "a\ufffdb\n", "why\n")


def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """A program that hangs is killed at the time limit, and so is what it has started."""
    hung = program(tmp_path, f"sleep 600 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(NoAnswer, match=r"program did not answer within 0\.5 s$"):
        answer(hung, limit_s=0.5)
    child = int((tmp_path / "child").read_text())
    assert has_ended(child)


def refused(*_: object) -> None:
    """Refuse a signal, as macOS does to a group whose processes have ended and are not waited for yet."""
    raise PermissionError(1, "Operation not permitted")


def test_a_system_that_refuses_to_signal_what_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output of a program is returned where its group cannot be signalled after its end."""
    monkeypatch.setattr(os, "killpg", refused)
    assert answer(program(tmp_path, "echo said")).stdout == "said\n"


def test_one_that_cannot_be_started(tmp_path: Path) -> None:
    """The error says that a program is not installed, or why it does not start."""
    with pytest.raises(NoAnswer, match=r"^no-such-program is not installed$"):
        answer("no-such-program")
    (tmp_path / "text").write_text("\x7fno program")
    (tmp_path / "text").chmod(0o755)
    with pytest.raises(NoAnswer, match=f"^{re.escape(str(tmp_path / 'text'))} cannot be started"):
        answer(str(tmp_path / "text"))
