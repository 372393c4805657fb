"""Versions made from what the command line names, with real repositories."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from processes import completed

from cnnperf.duet.contest import Version
from cnnperf.errors import UsageError
from cnnperf.regression import revisions
from cnnperf.regression.revisions import HERE, KEPT, READY, named

PROJECT = '[project]\nname = "mine"\nversion = "1"\ndependencies = [{}]\n'


def git(folder: Path, *arguments: str) -> str:
    """Run git in the folder and return what it prints."""
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return completed(*command, check=True).stdout.strip()


def commit(folder: Path, text: str, dependencies: str = "") -> str:
    """Commit a module with this text and the project's dependencies; return the commit."""
    (folder / "mine.py").write_text(text)
    (folder / "pyproject.toml").write_text(PROJECT.format(dependencies))
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", text)
    return git(folder, "rev-parse", "HEAD")


def version_of(
    text: str | None, option: str, folder: Path | None = None, *, beside: str | None = None
) -> AbstractContextManager[Version]:
    """Make the version that one option names; `beside` is the value of the other option."""
    is_baseline = option == "--baseline"
    both = named(*((text, beside) if is_baseline else (beside, text)), folder)
    return both[not is_baseline].made(lambda _: None)


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


def test_nothing_named_is_what_runs_now() -> None:
    """Without a name the version is the present interpreter in the present folder."""
    with version_of(None, "--baseline") as version:
        assert (version.name, version.python, version.path, version.cwd) == (HERE, sys.executable, (), None)


@pytest.mark.parametrize("what", ["bin/python", "."])
def test_an_interpreter_or_its_environment(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter, named by its path or its environment, must find cnnperf without the working directory."""
    venv.create(tmp_path / "other", with_pip=False)
    (tmp_path / "installed/cnnperf").mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    with version_of(str(tmp_path / "other" / what), "--baseline") as version:
        assert version.python == str(tmp_path / "other/bin/python")
        assert version.isolated
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.chdir(tmp_path / "installed")
    with pytest.raises(UsageError, match=r"^`baseline`: .*other.* has no cnnperf"):
        version_of(str(tmp_path / "other" / what), "--baseline")


@pytest.mark.parametrize(
    ("text", "limit_s", "words"),
    [
        ("#!/bin/sh\necho broken >&2; exit 1", 30.0, r"is not a working Python \(exit status 1, 'broken'\)"),
        ("#!/bin/sh\necho True; exit 1", 30.0, r"is not a working Python \(exit status 1, 'True'\)"),
        ("#!/bin/sh\necho x", 30.0, r"is not a working Python \(exit status 0, 'x'\)"),
        ("#!/bin/sh\nexec sleep 600", 0.5, "did not say within 0.5 s whether it has cnnperf"),
        ("#!/nowhere/python", 30.0, r"cannot be started \(No such file or directory\)"),
    ],
)
def test_an_interpreter_that_does_not_say_that_it_has_cnnperf_is_refused(
    tmp_path: Path, text: str, limit_s: float, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal names the interpreter, its fault and its output, and what to give instead."""
    monkeypatch.setattr(revisions, "ANSWER_S", limit_s)
    odd = tmp_path / "odd"
    odd.write_text(f"{text}\n")
    odd.chmod(0o755)
    with pytest.raises(UsageError, match=rf"^`candidate`: .*odd {words}.*; give a Python interpreter that has"):
        version_of(str(odd), "--candidate")


def test_a_revision_is_checked_out_and_cleared_away(repository: Path) -> None:
    """The worktree of a revision comes first on the path, and is removed; the repository is unchanged."""
    with version_of("before", "--baseline", repository) as version:
        [tree] = version.path
        assert (tree / "mine.py").read_text() == "old"
        assert (version.python, version.cwd) == (sys.executable, tree)
        assert version.name.startswith("before (")
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


@pytest.mark.parametrize("text", ["nonexistent", "--all", "/nonexistent/python"])
def test_what_is_neither(repository: Path, text: str) -> None:
    """A name that is neither an interpreter nor a revision is refused."""
    with (
        pytest.raises(UsageError, match="is neither a Python interpreter nor a revision"),
        version_of(text, "--candidate", repository),
    ):
        pass


def test_outside_a_repository(tmp_path: Path) -> None:
    """Outside a git repository a revision is refused."""
    with pytest.raises(UsageError, match="is not in a git repository"), version_of("main", "--candidate", tmp_path):
        pass


def test_a_revision_that_does_not_install(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dependencies that cannot be installed are a usage error, and leave no half-made environment."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(repository))
    (repository / "cnnperf").mkdir()
    (repository / "cnnperf/__init__.py").touch()
    commit(repository, "newest", '"surely-not-there==1"')
    git(repository, "checkout", "-q", "before")
    with (
        pytest.raises(UsageError, match=r"cannot be installed \(.*surely-not-there.*\); give the interpreter"),
        version_of("main", "--candidate", repository),
    ):
        pass
    assert not list((repository.parent / "cache/environments").glob(f"*/{READY}"))


def test_an_environment_is_made_once(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment is made for a revision with other dependencies, and reused the next time."""
    made: list[list[str]] = []
    real = subprocess.run

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        if command[0] == "git":
            return real(command, **options)  # type: ignore[call-overload, no-any-return]
        made.append(command)
        Path(revisions.Roots.from_environment().cache / "environments").mkdir(parents=True, exist_ok=True)
        if command[2] == "venv":
            (Path(command[3]) / "bin").mkdir(parents=True)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("cnnperf.regression.revisions.subprocess.run", run)
    commit(repository, "newest", '"one", "two>2"')
    with version_of("HEAD", "--candidate", repository) as same:
        assert same.python == sys.executable
    git(repository, "checkout", "-q", "before")
    for _ in range(2):
        with version_of("main", "--candidate", repository) as version:
            assert version.python != sys.executable
    assert [command[2] for command in made] == ["venv", "pip"]
    assert {"one", "two>2"} <= set(made[1])


@pytest.mark.parametrize(
    ("spec", "words"), [(">=99", "needs Python >=99, and this is "), ("newer", "requires-python: Invalid specifier")]
)
def test_a_revision_for_another_python(repository: Path, spec: str, words: str) -> None:
    """A revision that needs another Python is refused, a suitable one uses the present interpreter."""
    for requires in (">=3.8", spec):
        (repository / "pyproject.toml").write_text(PROJECT.format("") + f'requires-python = "{requires}"\n')
        git(repository, "commit", "-q", "-a", "-m", requires)
    git(repository, "checkout", "-q", "before")
    with version_of("main~1", "--baseline", repository) as version:
        assert version.python == sys.executable
    with pytest.raises(UsageError, match=words), version_of("main", "--baseline", repository):
        pass


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (None, "cnnperf==7"),
        (
            {
                "url": "https://x.org/c.git",
                "vcs_info": {"vcs": "git", "commit_id": "abc", "requested_revision": "main"},
            },
            "cnnperf @ git+https://x.org/c.git@abc",
        ),
        (
            {"url": "https://x.org/c.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}, "subdirectory": "in"},
            "cnnperf @ git+https://x.org/c.git@abc#subdirectory=in",
        ),
        ({"url": "file:///home/c", "dir_info": {}}, "cnnperf @ file:///home/c"),
        ({"url": "https://x.org/c.whl", "archive_info": {}}, "cnnperf @ https://x.org/c.whl"),
    ],
)
def test_an_environment_gets_this_cnnperf_from_where_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: dict[str, object] | None, requirement: str
) -> None:
    """The requirement for cnnperf names the commit, folder or archive that it was installed from."""
    information = tmp_path / "cnnperf-7.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: cnnperf\nVersion: 7\n")
    if origin:
        (information / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(revisions, "CHECKOUT", tmp_path)
    assert revisions._own_requirement() == requirement
    Requirement(requirement)


def test_in_a_checkout_it_is_that_checkout() -> None:
    """In a checkout the requirement for cnnperf is that checkout, editable."""
    assert revisions._own_requirement() == f"--editable={Path(__file__).parents[2]}"


def test_old_environments_go(tmp_path: Path) -> None:
    """The environments that were unused for longest are removed, never the one in use."""
    import os

    for age in range(KEPT + 3):
        folder = tmp_path / str(age)
        folder.mkdir()
        (folder / READY).touch()
        os.utime(folder / READY, (1e9 - age, 1e9 - age))
    revisions._prune(tmp_path, tmp_path / str(KEPT + 2))
    assert sorted(folder.name for folder in tmp_path.iterdir()) == [*map(str, range(KEPT)), str(KEPT + 2)]


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


def test_the_nearest_project_tells_what_is_asked_for(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project file of the working directory gives the dependencies before that of the root."""
    asked: list[object] = []
    monkeypatch.setattr(revisions, "_environment", lambda wanted, *_: asked.append(wanted) or Path("python"))
    part = repository / "part"
    part.mkdir()
    for dependency in ("one", "two"):
        (part / "pyproject.toml").write_text(PROJECT.format(f'"{dependency}"'))
        commit(repository, dependency)
    with version_of("HEAD", "--candidate", part) as same, version_of("HEAD~1", "--candidate", part) as other:
        assert same.python == sys.executable
        assert other.python == "python"
    assert asked == [("one",)]


def test_dependencies_that_cannot_be_read(repository: Path) -> None:
    """Where dependencies are dynamic, a differing requirements file is an error, an equal one is accepted."""
    for text in ("torch==2.8", "torch==2.9"):
        (repository / "pyproject.toml").write_text('[project]\nname = "mine"\ndynamic = ["dependencies"]\n')
        (repository / "requirements.txt").write_text(text)
        git(repository, "add", ".")
        git(repository, "commit", "-q", "-m", text)
    with version_of("HEAD", "--candidate", repository) as version:
        assert version.python == sys.executable
    with (
        pytest.raises(UsageError, match=r"`candidate`: HEAD~1: requirements.txt differs in that revision"),
        version_of("HEAD~1", "--candidate", repository),
    ):
        pass


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
