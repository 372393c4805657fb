"""Worktrees of revisions: claimed, removed, and found after their owner was killed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from repositories import git

from cnnperf.errors import UsageError
from cnnperf.regression.worktrees import GUARD, worktree


def left(repository: Path) -> Path:
    """Leave a worktree as a killed owner does: with its lock file, which nobody holds."""
    with worktree(repository, git(repository, "rev-parse", "HEAD")) as tree:
        kept = tree.with_name("left-behind")
        git(repository, "worktree", "add", "-q", "--detach", str(kept), "HEAD")
    kept.with_name("left-behind.lock").touch()
    return kept


@pytest.mark.parametrize("state", ["whole", "its folder is gone", "its lock file is gone", "locked by git", "torn"])
def test_what_a_killed_owner_left_is_removed(repository: Path, state: str) -> None:
    """A worktree without an owner goes before the next is made, in whatever state it was left."""
    kept = left(repository)
    if state == "its folder is gone":
        shutil.rmtree(kept)
    elif state == "its lock file is gone":
        kept.with_name("left-behind.lock").unlink()
    elif state == "locked by git":
        git(repository, "worktree", "lock", str(kept))
    elif state == "torn":
        (kept / ".git").unlink()
    with worktree(repository, git(repository, "rev-parse", "HEAD")) as tree:
        assert not kept.exists()
        assert len(git(repository, "worktree", "list").splitlines()) == 2
    assert [path.name for path in tree.parent.iterdir()] == [GUARD]
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_that_of_another_repository_goes_too(repository: Path, tmp_path: Path) -> None:
    """A worktree without an owner is removed from its own repository, not from the one compared now."""
    kept = left(repository)
    other = tmp_path / "other"
    shutil.copytree(repository, other)
    git(other, "worktree", "prune")
    with worktree(other, git(other, "rev-parse", "HEAD")):
        assert not kept.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_that_of_a_living_owner_stays(repository: Path) -> None:
    """A worktree stays while its owner holds its lock, and so does one of the user's own."""
    commit = git(repository, "rev-parse", "HEAD")
    own = repository.with_name("own")
    git(repository, "worktree", "add", "-q", "--detach", str(own), "HEAD")
    with worktree(repository, commit) as one, worktree(repository, commit) as other:
        assert one != other
        assert (one / "mine.py").is_file()
        assert (other / "mine.py").is_file()
    assert (own / "mine.py").is_file()


def test_a_cache_in_the_repository(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the cache in the repository's tree, worktrees are elsewhere: files of both could not be told apart."""
    monkeypatch.setenv("CNNPERF_CACHE", str(repository / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with worktree(repository, git(repository, "rev-parse", "HEAD")) as tree:
        assert not tree.is_relative_to(repository)
        assert tree.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("place", ["cache", "cache/revisions"])
def test_a_cache_that_cannot_be_written(repository: Path, tmp_path: Path, place: str) -> None:
    """A file in place of the folder is named."""
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    with (
        pytest.raises(UsageError, match=r"cache/revisions: cannot be written \(.*\); set CNNPERF_CACHE"),
        worktree(repository, "HEAD"),
    ):
        pass
