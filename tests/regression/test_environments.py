"""The Python of a version: interpreters that were named, and environments that are made for revisions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from repositories import PROJECT, commit, git, version_of

from cnnperf.errors import UsageError
from cnnperf.regression import environments, revisions
from cnnperf.regression.environments import KEPT, READY


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
    monkeypatch.setattr(environments, "ANSWER_S", limit_s)
    odd = tmp_path / "odd"
    odd.write_text(f"{text}\n")
    odd.chmod(0o755)
    with pytest.raises(UsageError, match=rf"^`candidate`: .*odd {words}.*; give a Python interpreter that has"):
        version_of(str(odd), "--candidate")


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
        Path(environments.Roots.from_environment().cache / "environments").mkdir(parents=True, exist_ok=True)
        if command[3] == "venv":
            (Path(command[4]) / "bin").mkdir(parents=True)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("cnnperf.regression.environments.subprocess.run", run)
    commit(repository, "newest", '"one", "two>2"')
    with version_of("HEAD", "--candidate", repository) as same:
        assert same.python == sys.executable
    git(repository, "checkout", "-q", "before")
    for _ in range(2):
        with version_of("main", "--candidate", repository) as version:
            assert version.python != sys.executable
    assert [command[3] for command in made] == ["venv", "pip"]
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
    ("text", "words"),
    [
        ("[project]\ndependencies = 3", "dependencies must be a list, got 3"),
        ("[project]\ndependencies = [1]", "dependencies: 1 is no requirement"),
        ('[project]\ndependencies = ["--index-url=x"]', "dependencies: '--index-url=x' is no requirement"),
        ('[project]\ndependencies = ["a @ file:///\\u0000"]', "is no requirement"),
        ("[project]\nrequires-python = 3", "requires-python must be a string, got 3"),
        ('project = "x"', "project must be a table, got 'x'"),
        (f"a = {'[' * 5000}", "is not valid TOML"),
        (f"a = {'9' * 5000}", "is not valid TOML"),
    ],
)
def test_a_project_of_wrong_types(repository: Path, text: str, words: str) -> None:
    """A value of a wrong type in a revision's pyproject.toml is named, in one sentence."""
    (repository / "pyproject.toml").write_text(text)
    git(repository, "commit", "-q", "-a", "-m", "wrong")
    git(repository, "checkout", "-q", "before")
    pattern = f"^`baseline`: main: pyproject.toml of that revision.*{re.escape(words)}"
    with pytest.raises(UsageError, match=pattern), version_of("main", "--baseline", repository):
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
    monkeypatch.setattr(environments, "CHECKOUT", tmp_path)
    assert environments._own_requirement() == requirement
    Requirement(requirement)


def test_in_a_checkout_it_is_that_checkout() -> None:
    """In a checkout the requirement for cnnperf is that checkout, editable."""
    assert environments._own_requirement() == f"--editable={Path(__file__).parents[2]}"


def test_old_environments_go(tmp_path: Path) -> None:
    """The environments that were unused for longest are removed, never the one in use."""
    import os

    for age in range(KEPT + 3):
        folder = tmp_path / str(age)
        folder.mkdir()
        (folder / READY).touch()
        os.utime(folder / READY, (1e9 - age, 1e9 - age))
    environments._prune(tmp_path, tmp_path / str(KEPT + 2))
    assert sorted(folder.name for folder in tmp_path.iterdir()) == [*map(str, range(KEPT)), str(KEPT + 2)]


def test_the_nearest_project_tells_what_is_asked_for(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project file of the working directory gives the dependencies before that of the root."""
    asked: list[object] = []
    monkeypatch.setattr(revisions, "environment_with", lambda wanted, *_: asked.append(wanted) or Path("python"))
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
        pytest.raises(
            UsageError,
            match=r"`candidate`: HEAD~1: requirements.txt differs in that revision, and may list other packages",
        ),
        version_of("HEAD~1", "--candidate", repository),
    ):
        pass
