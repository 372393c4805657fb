"""Git commands in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import completed

from cnnperf.machine.git import git


def test_it_is_asked_about_the_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git runs in the given folder, even if the environment names another repository, as in a hook."""
    for name in ("one", "other"):
        completed("git", "init", "-q", tmp_path / name, check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    top = git(tmp_path / "one", "rev-parse", "--show-toplevel").stdout.strip()
    assert Path(top).samefile(tmp_path / "one")


def test_no_program_of_the_repository_runs(tmp_path: Path) -> None:
    """The hooks and the file-system monitor of a repository do not run."""
    marker, program = tmp_path / "ran", tmp_path / "post-checkout"
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    completed("git", "init", "-q", tmp_path, check=True)
    for key, value in (("core.hooksPath", tmp_path), ("core.fsmonitor", program)):
        completed("git", "-C", tmp_path, "config", key, value, check=True)
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    completed("git", *identity, "-C", tmp_path, "-c", "core.fsmonitor=false", "commit", "--allow-empty", "-m", "x")
    marker.unlink(missing_ok=True)
    assert git(tmp_path, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"), "HEAD").returncode == 0
    assert git(tmp_path, "describe", "--always", "--dirty").returncode == 0
    assert not marker.exists()
