"""Programs on the path, which may be missing, hang, or print bytes that are no text."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress

QUESTION_S = 5.0
"""Time limit for a program that answers a question."""


class NoAnswer(Exception):  # noqa: N818 - the fault, as callers name it
    """A program cannot be started or did not end in time; the message is a clause that begins with its name."""


def answer(
    *command: str, limit_s: float = QUESTION_S, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return its output as text, with � in place of bytes that are not UTF-8.

    The program has neither input nor terminal, so it cannot wait for the user. At the time limit, it and its children
    are killed. Raises NoAnswer.
    """
    name = command[0]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=environment,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise NoAnswer(f"{name} is not installed") from error
    except OSError as error:
        raise NoAnswer(f"{name} cannot be started ({error.strerror})") from error
    with process:
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired as error:
            raise NoAnswer(f"{name} did not answer within {limit_s:g} s") from error
        finally:
            # After the end of the program too: what it left behind would hold the pipe open.
            with suppress(ProcessLookupError, PermissionError):  # macOS permits nothing to a group that has ended.
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, out, err)
