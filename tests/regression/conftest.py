"""What several tests of the comparison share."""

from __future__ import annotations

from pathlib import Path

import pytest
from repositories import commit, git


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository with two commits, and a cache of its own."""
    monkeypatch.setenv("CNNPERF_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    commit(folder, "old")
    git(folder, "tag", "before")
    commit(folder, "new")
    return folder
