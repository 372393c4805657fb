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
