"""The Python of a version: an interpreter that was named, or an environment with the packages that a revision needs."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Protocol

from filelock import FileLock
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from cnnperf.datasets import Roots
from cnnperf.errors import UsageError
from cnnperf.units import one_line

CHECKOUT = Path(__file__).parents[2]
"""The folder that holds this cnnperf: a checkout, or where pip puts packages."""
KEPT = 4
"""Maximum number of environments of revisions that are kept; the longest unused are removed first."""
READY = "cnnperf-ready"
"""The file that marks an environment as complete; its modification time is that of the last use."""
HAS_CNNPERF = "from importlib.util import find_spec; print(find_spec('cnnperf') is not None)"
ANSWER_S = 30.0
"""Time limit for an interpreter's answer whether it has a package."""
INSTALLED = "give the interpreter of an environment that has that revision"
"""Cure where a revision cannot be checked out or installed."""
BRIEF = 100
"""Maximum number of characters of a foreign text in a message."""
WANTED = "give a Python interpreter that has this version of cnnperf"
MAY_SAY = ("pyproject.toml", "setup.cfg", "setup.py", "requirements*.txt")
"""Files that may list a project's dependencies, other than `project.dependencies`."""
Installing = Callable[[str], None]
"""Called with a sentence before an environment is made, which takes minutes."""


def interpreter(text: str) -> Path | None:
    """Return the interpreter that a path names, itself or by its virtual environment; None if it names none."""
    # os.path: for a path that is too long or may not be followed, these functions answer no instead of raising.
    path = os.path.expanduser(text)  # noqa: PTH111
    if os.path.isfile(os.path.join(path, "pyvenv.cfg")):  # noqa: PTH113, PTH118
        path = os.path.join(path, "bin", "python")  # noqa: PTH118
    # Not resolved: the link in an environment's bin is what makes it that environment.
    return Path(path).absolute() if os.path.isfile(path) and os.access(path, os.X_OK) else None  # noqa: PTH113


def refuse_bare(python: Path, where: str) -> None:
    """Raise UsageError unless the interpreter answers that it has cnnperf."""
    asked = [str(python), "-P", "-c", HAS_CNNPERF]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, errors="replace", check=False, timeout=ANSWER_S)
    except OSError as error:
        raise UsageError(f"{where} cannot be started ({error.strerror}); {WANTED}") from error
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"{where} did not say within {ANSWER_S:g} s whether it has cnnperf; {WANTED}") from error
    answer = done.stdout.strip()
    if answer == "False":
        raise UsageError(f"{where} has no cnnperf; install this version there")
    if done.returncode or answer != "True":
        said = last_words(done.stderr or done.stdout)
        raise UsageError(f"{where} is not a working Python (exit status {done.returncode}, '{said}'); {WANTED}")


class Tree(Protocol):
    """Files of a commit or a folder; paths are relative to the root."""

    @property
    def name(self) -> str:
        """Name in messages."""

    def names(self, folder: PurePosixPath) -> Sequence[str]:
        """Return the names in a folder."""

    def text(self, file: PurePosixPath) -> str | None:
        """Return the text of a file; None if it does not exist."""


def needed_packages(wanted: Tree, present: Tree, below: PurePosixPath, where: str) -> tuple[str, ...] | None:
    """Return the dependencies of a revision; None if they are those of this tree, or if either does not list them.

    below: the working directory, below the root of both.
    """
    projects = _project(wanted, below), _project(present, below)
    asked, had = (
        _dependencies(tree, project, where) for tree, project in zip((wanted, present), projects, strict=True)
    )
    if asked is None or had is None:
        _refuse_unreadable((wanted, present), projects, where)
        return None
    return None if asked == had else asked


def _project(tree: Tree, folder: PurePosixPath) -> PurePosixPath:
    """Return the nearest folder, up to the root, that has a pyproject.toml; the root if none has."""
    upwards = (folder, *folder.parents)
    return next((place for place in upwards if tree.text(place / "pyproject.toml") is not None), PurePosixPath())


def _dependencies(tree: Tree, project: PurePosixPath, where: str) -> tuple[str, ...] | None:
    """Return a project's dependencies; None if its pyproject.toml does not list them.

    Raises UsageError if the file is not a project's, or if the project does not support this Python: a new environment
    would have the same Python.
    """
    text = tree.text(project / "pyproject.toml")
    if text is None:
        return None
    file = f"{where}: pyproject.toml of {tree.name}"
    try:
        content = tomllib.loads(text).get("project", {})
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not valid TOML ({brief(str(error))}); {INSTALLED}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file}: project must be a table, got {brief(repr(content))}; {INSTALLED}")
    wanted = content.get("requires-python", "")
    if not _suits(wanted, file):
        raise UsageError(
            f"{where}: {tree.name} needs Python {brief(wanted)}, and this is {platform.python_version()}; run cnnperf "
            "with that version, or give the interpreter of an environment that has it"
        )
    if "dependencies" not in content:
        return None
    return _requirements(content["dependencies"], file)


def _suits(wanted: object, where: str) -> bool:
    """Return whether this Python is one that a project supports."""
    if not isinstance(wanted, str):
        raise UsageError(f"{where}: requires-python must be a string, got {brief(repr(wanted))}; {INSTALLED}")
    try:
        return SpecifierSet(wanted).contains(platform.python_version(), prereleases=True)
    except InvalidSpecifier as error:
        raise UsageError(f"{where}: requires-python: {brief(str(error))}; {INSTALLED}") from error


def _requirements(listed: object, where: str) -> tuple[str, ...]:
    """Return the listed requirements, sorted. Raises UsageError if one is none, such as an option of pip."""
    if not isinstance(listed, list):
        raise UsageError(f"{where}: project.dependencies must be a list, got {brief(repr(listed))}; {INSTALLED}")
    for each in listed:
        try:
            is_good = isinstance(each, str) and each.isprintable() and bool(Requirement(each))
        except InvalidRequirement:
            is_good = False
        if not is_good:
            raise UsageError(f"{where}: project.dependencies: {brief(repr(each))} is no requirement; {INSTALLED}")
    return tuple(sorted(listed))


def _refuse_unreadable(trees: tuple[Tree, Tree], projects: tuple[PurePosixPath, PurePosixPath], where: str) -> None:
    """Raise UsageError if other files that may list dependencies differ."""
    names = {
        name
        for tree, project in zip(trees, projects, strict=True)
        for name in tree.names(project)
        if any(fnmatchcase(name, glob) for glob in MAY_SAY)
    }
    for name in sorted(names):
        texts = [tree.text(project / name) for tree, project in zip(trees, projects, strict=True)]
        if texts[0] != texts[1]:
            raise UsageError(
                f"{where}: {brief(name)} differs in that revision, and may list other packages; make an environment "
                "for it and give its interpreter, or list them in pyproject.toml under project.dependencies"
            )


def environment_with(dependencies: Sequence[str], tree: Path, where: str, installing: Installing) -> Path:
    """Return the interpreter of an environment with these packages, kept from an earlier run or made now."""
    if not (tree / "cnnperf" / "__init__.py").is_file():
        dependencies = [*dependencies, _own_requirement()]
    key = hashlib.sha256(json.dumps([sys.version, *dependencies]).encode()).hexdigest()[:16]
    home = Roots.from_environment().cache / "environments"
    home.mkdir(parents=True, exist_ok=True)
    folder = home / key
    with FileLock(home / f"{key}.lock"):
        if not (folder / READY).exists():
            shutil.rmtree(folder, ignore_errors=True)
            installing(f"{where} has other dependencies; making an environment for it")
            for command in (
                [sys.executable, "-P", "-m", "venv", str(folder)],
                [str(folder / "bin" / "python"), "-P", "-m", "pip", "install", "--quiet", *dependencies],
            ):
                done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
                if done.returncode:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise UsageError(f"{where} cannot be installed ({last_words(done.stderr)}); {INSTALLED}")
        (folder / READY).write_text(f"{time.time()}\n")
    _prune(home, folder)
    return folder / "bin" / "python"


def _own_requirement() -> str:
    """Return pip's requirement for this cnnperf: this checkout, its installation's source (PEP 610) or its version."""
    if (CHECKOUT / "pyproject.toml").is_file():
        return f"--editable={CHECKOUT}"  # The environment is kept, and the checkout changes.
    distribution = metadata.distribution("cnnperf")
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not origin:
        return f"cnnperf=={distribution.version}"
    url, vcs = origin["url"], origin.get("vcs_info")
    source = f"{vcs['vcs']}+{url}@{vcs['commit_id']}" if vcs else url
    fragment = f"#subdirectory={origin['subdirectory']}" if "subdirectory" in origin else ""
    return f"cnnperf @ {source}{fragment}"


def _prune(home: Path, used: Path) -> None:
    marks = sorted(home.glob(f"*/{READY}"), key=lambda mark: mark.stat().st_mtime, reverse=True)
    for mark in marks[KEPT:]:
        if mark.parent != used:
            shutil.rmtree(mark.parent, ignore_errors=True)


def last_words(text: str) -> str:
    """Return the line of a failed command's output that says why, in brief.

    It is the last line, or the last that pip or git marks as an error.
    """
    lines = text.strip().splitlines() or ["no output"]
    return brief(next((line for line in reversed(lines) if line.startswith(("ERROR: ", "fatal: "))), lines[-1]))


def brief(text: str) -> str:
    """Return a text on one line of at most BRIEF characters, for a message."""
    line = one_line(text[: 10 * BRIEF])
    return line if len(line) <= BRIEF else f"{line[: BRIEF - 1]}…"
