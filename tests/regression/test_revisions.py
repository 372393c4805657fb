"""Versions made from what the command line names, with real repositories."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from repositories import commit, git, version_of

from cnnperf.errors import UsageError
from cnnperf.ipc.messages import PROTOCOL
from cnnperf.regression.revisions import HERE, named


def test_nothing_named_is_what_runs_now() -> None:
    """Without a name the version is the present interpreter in the present folder."""
    with version_of(None, "--baseline") as version:
        assert (version.name, version.python, version.path, version.cwd) == (HERE, sys.executable, (), None)


def test_a_revision_is_checked_out_and_cleared_away(repository: Path) -> None:
    """A revision's worktree, named by ten digits of its commit, is first on the path and then removed."""
    with version_of("before", "--baseline", repository) as version:
        [tree] = version.path
        assert (tree / "mine.py").read_text() == "old"
        assert (version.python, version.cwd) == (sys.executable, tree)
        assert version.name == f"before ({git(repository, 'rev-parse', 'before')[:10]})"
        assert (repository / "mine.py").read_text() == "new"
    assert not tree.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_a_package_in_a_folder_of_the_repository(repository: Path) -> None:
    """The path of a revision starts with the worktree's counterpart of the working directory."""
    (repository / "part/src").mkdir(parents=True)
    (repository / "part/src/kept").touch()
    commit(repository, "newest")
    with version_of("HEAD", "--candidate", repository / "part") as version:
        assert [str(place.relative_to(version.path[2])) for place in version.path] == ["part", "part/src", "."]
        assert version.cwd == version.path[0]
    with (
        pytest.raises(UsageError, match="'before' has no folder part"),
        version_of("before", "--baseline", repository / "part"),
    ):
        pass
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_a_failure_clears_away_too(repository: Path) -> None:
    """The worktree is removed after Ctrl-C too."""
    with pytest.raises(KeyboardInterrupt), version_of("HEAD", "--candidate", repository):
        raise KeyboardInterrupt
    assert len(git(repository, "worktree", "list").splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["nonexistent", "--all", "/nonexistent/python", "x" * 300, "a\nb", "~nosuchuser/python", ""]
)
def test_what_is_neither(repository: Path, text: str) -> None:
    """A name that is neither an interpreter nor a revision is refused."""
    with (
        pytest.raises(UsageError, match="is neither a Python interpreter nor a revision"),
        version_of(text, "--candidate", repository),
    ):
        pass


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_what_no_program_can_be_given(repository: Path, text: str) -> None:
    """A name with a NUL, or with a character that has no bytes, is refused."""
    with pytest.raises(UsageError, match=r"^`candidate`: '.*' is neither a path nor a revision"):
        named(None, text, repository)
    with pytest.raises(UsageError, match=r"^`baseline`: '.*' is neither a path nor a revision"):
        named(text, "HEAD", repository)


def test_a_repository_of_another_user(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository that git refuses for its owner is refused, with git's setting for it."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(UsageError, match=r"belongs to another user.* safe\.directory$"):
        named(None, "HEAD", repository)


@pytest.mark.parametrize("place", ["cnnperf/baton.py", "src/cnnperf/ipc/messages.py"])
def test_a_revision_of_another_protocol_is_refused_before_anything_is_made(repository: Path, place: str) -> None:
    """A revision of cnnperf is refused if its protocol is another one, wherever in the package it stands."""
    (repository / place).parent.mkdir(parents=True)
    commits = {}
    for protocol in (PROTOCOL, PROTOCOL - 1):
        (repository / place).write_text(f"import os\n\nPROTOCOL = {protocol}\n")
        commits[protocol] = commit(repository, f"protocol {protocol}")
    with version_of(commits[PROTOCOL], "--baseline", repository):
        pass
    with pytest.raises(UsageError, match=rf"^`candidate`: HEAD has version {PROTOCOL - 1} of the protocol"):
        named(None, "HEAD", repository)


def test_outside_a_repository(tmp_path: Path) -> None:
    """Outside a git repository a revision is refused."""
    with pytest.raises(UsageError, match="is not in a git repository"), version_of("main", "--candidate", tmp_path):
        pass


def test_this_tree_beside_a_revision_is_found_in_the_same_places(repository: Path) -> None:
    """Beside a revision, this tree is imported from its own folders; beside an interpreter its path is empty."""
    (repository / "part/src").mkdir(parents=True)
    (repository / "part/src/kept").touch()
    commit(repository, "newest")
    with version_of(None, "--candidate", repository / "part", beside="HEAD") as version:
        places = [repository / "part", repository / "part/src", repository]
        assert (version.name, version.path, version.cwd) == (HERE, tuple(places), repository / "part")
    with version_of(None, "--candidate", repository, beside=sys.executable) as version:
        assert version.path == ()


def test_submodules_are_checked_out(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submodules of a revision are checked out; one that cannot be fetched is an error."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").write_text("[protocol.file]\n\tallow = always\n")
    vendored = tmp_path / "vendored"
    vendored.mkdir()
    git(vendored, "init", "-q")
    commit(vendored, "vendored")
    git(repository, "submodule", "--quiet", "add", str(vendored), "vendor")
    commit(repository, "with it")
    with version_of("HEAD", "--candidate", repository) as version:
        assert version.cwd is not None
        assert (version.cwd / "vendor/mine.py").read_text() == "vendored"
    vendored.rename(tmp_path / "gone")
    shutil.rmtree(repository / ".git/modules/vendor")
    with (
        pytest.raises(UsageError, match="its submodules cannot be checked out"),
        version_of("HEAD", "--candidate", repository),
    ):
        pass
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_a_hook_keeps_its_index(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The git variables of a hook are not passed on, so the user's index is unchanged."""
    (repository / "staged").touch()
    git(repository, "add", "staged")
    before = git(repository, "status", "--short")
    monkeypatch.setenv("GIT_INDEX_FILE", str(repository / ".git/index"))
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    with version_of("before", "--candidate", repository):
        pass
    assert git(repository, "status", "--short") == before == "A  staged"
