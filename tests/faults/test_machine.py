"""Faults in the programs that describe the machine: they hang, or print bytes that are no text."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty import assert_ended, assert_one_sentence, cnnperf, write_suite
from processes import environment

HANGS = "exec sleep 600"
BYTES = r"printf '\377\376\000\033[31m, GPU-\377, \377, 1, 2, 3, 4, 5\n'"
ENDLESS_LINE = "head -c 3000000 /dev/zero | tr '\\0' 9"
FAULTS = {"hangs": HANGS, "prints bytes": BYTES, "prints a line of 3 MB": ENDLESS_LINE, "is no program": None}

Broken = Callable[..., dict[str, str]]


@pytest.fixture
def broken(tmp_path: Path) -> Broken:
    """Return a function that puts programs with a fault first on the path, and returns the environment."""

    def make(script: str | None, *names: str) -> dict[str, str]:
        folder = tmp_path / "programs"
        folder.mkdir()
        for name in names:
            text = "\x7fELF no program" if script is None else f"#!/bin/sh\n{script}\n"
            (folder / name).write_text(text, encoding="utf-8")
            (folder / name).chmod(0o755)
        # A file that is no program is passed over for one that comes later on the path.
        others = "" if script is None else f"{os.pathsep}{os.environ['PATH']}"
        return environment(PATH=f"{folder}{others}")

    return make


@pytest.mark.parametrize("script", FAULTS.values(), ids=FAULTS)
def test_programs_that_describe_the_machine(tmp_path: Path, broken: Broken, script: str | None) -> None:
    """A run ends well whatever git, nvidia-smi and lscpu do; their facts are absent from the record."""
    done = cnnperf(
        *("run", write_suite(tmp_path), "--out", tmp_path / "run"),
        env=broken(script, "git", "nvidia-smi", "lscpu"),
        limit_s=280,
    )
    assert_ended(done, 0)
    [line, *_] = (tmp_path / "run/records.jsonl").read_text(encoding="utf-8").splitlines()
    machine = json.loads(line)["machine"]
    assert not machine.get("commit")
    assert not machine.get("driver")
    assert not machine.get("gpus")


@pytest.mark.parametrize("script", FAULTS.values(), ids=FAULTS)
def test_git_where_it_is_needed(tmp_path: Path, broken: Broken, script: str | None) -> None:
    """`ab` with a revision names git as the cause, and measures nothing."""
    done = cnnperf("ab", write_suite(tmp_path), "--baseline", "HEAD", cwd=tmp_path, env=broken(script, "git"))
    assert_one_sentence(done, 2, "git")
