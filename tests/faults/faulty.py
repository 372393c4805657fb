"""Common tools of the faults: the real command in a process of its own, a small suite, and how a fault must end."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from processes import environment, started

COMMAND = Path(sys.executable).with_name("cnnperf")
"""The command that users type."""
LONGEST = 500
"""Most characters of an error sentence."""
SUITE = """
datasets = [{ name = "synthetic", shape = [1, 28, 28], train = 200, test = 100 }]
models = ["mlp"]
threads = 1
train = { steps = 2, validation_images = 50, batch_size = 50 }
"""


def cnnperf(
    *words: object,
    within: Sequence[object] = (),
    cwd: Path | None = None,
    limit_s: float = 240.0,
    env: Mapping[str, str] | None = None,
    **pipes: Any,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end and return its output; it counts as hung after `limit_s`.

    within: the words of a program that starts the command, such as `setpriv`.
    """
    with started((*within, COMMAND, *words), cwd=cwd, limit_s=limit_s, env=env or environment(), **pipes) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def assert_ended(done: subprocess.CompletedProcess[str], *statuses: int) -> None:
    """Fail unless the command ended with one of these exit statuses, without a traceback."""
    assert done.returncode in statuses, f"exit status {done.returncode}\n{done.stderr}"
    for text in filter(None, (done.stdout, done.stderr)):
        assert "Traceback (most recent call last)" not in text, text


def assert_one_sentence(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """Fail unless the command ended with this exit status and one short sentence, which holds these words."""
    assert_ended(done, status)
    last = done.stderr.rstrip("\n").rsplit("\n", 1)[-1]
    assert last.startswith("cnnperf: "), done.stderr
    assert len(last) <= LONGEST, f"{len(last)} characters: {last}"
    for word in words:
        assert word in last, f"{word!r} is not in {last!r}"


def write_suite(folder: Path, text: str = SUITE) -> Path:
    """Write a suite file into a folder, and return its path."""
    suite = folder / "small.toml"
    suite.write_text(text, encoding="utf-8")
    return suite


def make_run(folder: Path, text: str = SUITE, *words: object) -> Path:
    """Run a small suite, and return its run folder."""
    run = folder / "run"
    done = cnnperf("run", write_suite(folder, text), "--out", run, *words)
    assert done.returncode == 0, done.stderr
    return run


def alive(mark: str) -> list[psutil.Process]:
    """Return the processes that run with a word in the variable FAULT_MARK of their environment."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and mark in process.environ().get("FAULT_MARK", ""):
                found.append(process)
    return found


def all_gone(mark: str, *, within_s: float = 5.0) -> bool:
    """Tell whether no process that bears a mark in its environment runs any more; kill those that are left."""
    deadline = time.monotonic() + within_s
    while left := alive(mark):
        if time.monotonic() > deadline:
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            return False
        time.sleep(0.1)
    return True


def catches(pid: int, number: int) -> bool:
    """Tell whether a process handles a signal, or has ended."""
    found = re.search(r"SigCgt:\s*(\w+)", status_of(pid))
    return found is None or bool(int(found[1], 16) >> (number - 1) & 1)


def status_of(pid: int) -> str:
    """Return the kernel's description of a process; empty if there is none."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return ""
