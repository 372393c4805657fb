"""Faults of run folders: runs that begin at once, and what damage between two runs leaves of the records."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from faulty import COMMAND, write_suite
from processes import environment, started

import cnnperf

AT_ONCE = 8
"""Runs that begin in the same second."""


def test_runs_begun_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    """Each of several runs that begin in one second writes its own folder, with a record of its own."""
    suite = write_suite(tmp_path)
    with ExitStack() as stack:
        runs = [
            stack.enter_context(started((COMMAND, "run", suite), cwd=tmp_path, limit_s=500, env=environment()))
            for _ in range(AT_ONCE)
        ]
        for process in runs:
            out, err = process.communicate()
            assert process.returncode == 0, err
            assert "Traceback" not in out + err
    folders = [path.parent for path in tmp_path.glob("results/small/*/records.jsonl")]
    assert len(folders) == AT_ONCE
    nonces = {record.nonce for folder in folders for record in cnnperf.read(folder)}
    assert len(nonces) == AT_ONCE
