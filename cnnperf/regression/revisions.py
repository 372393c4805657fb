"""Resolve the names on a command line, an interpreter or a git revision, to versions that can be measured.

Names are resolved and checked first (`named`), in the repository's objects. Only then is a worktree or an environment
made (`NamedVersion.made`).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Protocol

from filelock import FileLock
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from cnnperf.datasets import Roots
from cnnperf.duet.contest import Version
from cnnperf.errors import UsageError
from cnnperf.machine.git import git
from cnnperf.sides import Both
from cnnperf.units import one_line

HERE = "this tree"
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
WANTED = "give a Python interpreter that has this version of cnnperf"
MAY_SAY = ("pyproject.toml", "setup.cfg", "setup.py", "requirements*.txt")
"""Files that may list a project's dependencies, other than `project.dependencies`."""


Installing = Callable[[str], None]
"""Called with a sentence before an environment is made, which takes minutes."""


class NamedVersion(Protocol):
    """One of two versions, resolved from its name."""

    @property
    def identity(self) -> object:
        """Value that is equal for equal versions; None if no version was named."""

    def made(self, installing: Installing) -> AbstractContextManager[Version]:
        """Provide the version; remove its worktree afterwards. Raises UsageError."""


@dataclass(frozen=True, slots=True)
class Present:
    """This tree or an interpreter, for which nothing has to be made."""

    version: Version
    identity: str | None

    def made(self, installing: Installing) -> AbstractContextManager[Version]:
        """Provide the version."""
        return nullcontext(self.version)


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit of the repository that holds the folder."""

    text: str
    option: str
    root: Path
    commit: str
    below: PurePosixPath
    """The folder, below the root."""
    dependencies: tuple[str, ...] | None
    """The packages of its own environment; None if the present interpreter has the revision's dependencies."""

    @property
    def identity(self) -> tuple[Path, str]:
        """The commit."""
        return self.root, self.commit

    @contextmanager
    def made(self, installing: Installing) -> Iterator[Version]:
        """Check the commit out, and make an environment if its dependencies differ."""
        with _worktree(self.root, self.commit) as tree:
            here, python = tree / self.below, Path(sys.executable)
            if self.dependencies is not None:
                python = _environment(self.dependencies, tree, f"{self.option}: {self.text}", installing)
            short = self.commit[:10]
            yield Version(
                name=short if self.commit.startswith(self.text) else f"{self.text} ({short})",
                python=str(python),
                path=_places(tree, here),
                cwd=here,
                tree=tree,
                repository=self.root,
            )


def named(baseline: str | None, candidate: str | None, folder: Path | None = None) -> Both[NamedVersion]:
    """Return the versions that two options name. Raises UsageError; nothing is made.

    None is the current tree. A path is a Python interpreter or the folder of a virtual environment. Anything else is a
    git revision of the folder's repository (the working directory's): a worktree of it comes first on the module path
    of the present interpreter, or of its own environment if its dependencies differ. If the other side is a revision,
    the current tree is found in the same places.
    """
    folder = (folder or Path.cwd()).resolve()
    return Both(
        _named(baseline, "`baseline`", folder, candidate),
        _named(candidate, "`candidate`", folder, baseline),
    )


def refuse_same(baseline: NamedVersion, candidate: NamedVersion) -> None:
    """Raise UsageError for two names of one version."""
    if baseline.identity is not None and baseline.identity == candidate.identity:
        raise UsageError(
            "`baseline` and `candidate` name the same version, so nothing differs; name another one, change a setting "
            "with `candidate_set`, or leave both out to compare this tree with itself"
        )


def _named(text: str | None, option: str, folder: Path, beside: str | None) -> NamedVersion:
    if text is None:
        is_beside_revision = beside is not None and _interpreter(Path(beside).expanduser()) is None
        root = _root(folder, beside, option) if beside and is_beside_revision else None
        return Present(Version(name=HERE, path=_places(root, folder), cwd=folder) if root else Version(name=HERE), None)
    if python := _interpreter(Path(text).expanduser()):
        _refuse_bare(python, f"{option}: {text}")
        return Present(Version(name=text, python=str(python), isolated=True), str(python))
    root = _root(folder, text, option)
    commit = _commit(root, text, option)
    below = PurePosixPath(folder.relative_to(root))
    wanted = _Commit(root, commit)
    if not wanted.is_folder(below):
        raise UsageError(f"{option}: {text!r} has no folder {below}; run this in a folder of it")
    return Revision(text, option, root, commit, below, _needed(wanted, _Folder(root), below, f"{option}: {text}"))


class _Tree(Protocol):
    """Files of a commit or a folder; paths are relative to the root."""

    def names(self, folder: PurePosixPath) -> Sequence[str]:
        """Return the names in a folder."""

    def text(self, file: PurePosixPath) -> str | None:
        """Return the text of a file; None if it does not exist."""


@dataclass(frozen=True, slots=True)
class _Folder:
    root: Path

    def names(self, folder: PurePosixPath) -> Sequence[str]:
        return [path.name for path in (self.root / folder).iterdir()]

    def text(self, file: PurePosixPath) -> str | None:
        path = self.root / file
        return path.read_text(encoding="utf-8") if path.is_file() else None


@dataclass(frozen=True, slots=True)
class _Commit:
    root: Path
    commit: str

    def is_folder(self, folder: PurePosixPath) -> bool:
        return _git(self.root, "cat-file", "-t", self._object(folder)).stdout.strip() == "tree"

    def names(self, folder: PurePosixPath) -> Sequence[str]:
        return _git(self.root, "ls-tree", "-z", "--name-only", self._object(folder)).stdout.split("\0")

    def text(self, file: PurePosixPath) -> str | None:
        found = _git(self.root, "cat-file", "blob", self._object(file))
        return None if found.returncode else found.stdout

    def _object(self, path: PurePosixPath) -> str:
        return f"{self.commit}:" if path == PurePosixPath() else f"{self.commit}:{path}"


def _places(root: Path, folder: Path) -> tuple[Path, ...]:
    """Return the first entries of the module path: the folder and the root, each followed by its `src`."""
    places = dict.fromkeys((folder, folder / "src", root, root / "src"))
    return tuple(place for place in places if place.is_dir())


def _interpreter(path: Path) -> Path | None:
    if path.is_dir() and (path / "pyvenv.cfg").is_file():
        path = path / "bin" / "python"
    # Not resolved: the link in an environment's bin is what makes it that environment.
    return path.absolute() if path.is_file() and os.access(path, os.X_OK) else None


def _refuse_bare(python: Path, where: str) -> None:
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
        said = one_line(_last(done.stderr or done.stdout))
        raise UsageError(f"{where} is not a working Python (exit status {done.returncode}, {said!r}); {WANTED}")


def _root(folder: Path, text: str, option: str) -> Path:
    """Return the root of the folder's repository."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top.returncode:
        raise UsageError(
            f"{option}: {text!r} is not a Python interpreter, and {folder} is not in a git repository "
            f"({_last(top.stderr)}); give the path of an interpreter, or run this in a repository"
        )
    return Path(top.stdout.strip()).resolve()


def _commit(root: Path, text: str, option: str) -> str:
    """Return the commit of a revision."""
    commit = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}")
    if commit.returncode:
        raise UsageError(
            f"{option}: {text!r} is neither a Python interpreter nor a revision of {root}; give a path, a branch, a "
            "tag or a commit (in CI: fetch it first)"
        )
    return commit.stdout.strip()


@contextmanager
def _worktree(root: Path, commit: str) -> Iterator[Path]:
    """Check a commit out beside the repository's own tree, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="cnnperf-revision-") as folder:
        tree = Path(folder) / commit[:12]
        try:
            added = _git(root, "worktree", "add", "--quiet", "--detach", str(tree), commit)
            if added.returncode:
                raise UsageError(f"{commit[:12]}: cannot be checked out ({_last(added.stderr)}); {INSTALLED}")
            _fill_submodules(tree, commit)
            yield tree
        finally:
            _git(root, "worktree", "remove", "--force", str(tree))


def _fill_submodules(tree: Path, commit: str) -> None:
    if (tree / ".gitmodules").is_file():
        filled = _git(tree, "submodule", "--quiet", "update", "--init", "--recursive")
        if filled.returncode:
            raise UsageError(
                f"{commit[:12]}: its submodules cannot be checked out ({_last(filled.stderr)}); {INSTALLED}"
            )


def _needed(wanted: _Tree, present: _Tree, below: PurePosixPath, where: str) -> tuple[str, ...] | None:
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


def _project(tree: _Tree, folder: PurePosixPath) -> PurePosixPath:
    """Return the nearest folder, up to the root, that has a pyproject.toml; the root if none has."""
    upwards = (folder, *folder.parents)
    return next((place for place in upwards if tree.text(place / "pyproject.toml") is not None), PurePosixPath())


def _dependencies(tree: _Tree, project: PurePosixPath, where: str) -> tuple[str, ...] | None:
    """Return a project's dependencies; None if its pyproject.toml does not list them.

    Raises UsageError if the project does not support this Python: a new environment would have the same Python.
    """
    text = tree.text(project / "pyproject.toml")
    if text is None:
        return None
    try:
        content = tomllib.loads(text).get("project", {})
    except ValueError as error:
        raise UsageError(
            f"{where}: pyproject.toml of that revision is not valid TOML ({error}); {INSTALLED}"
        ) from error
    _refuse_python(content.get("requires-python", ""), where)
    return tuple(sorted(content["dependencies"])) if "dependencies" in content else None


def _refuse_python(wanted: str, where: str) -> None:
    here = platform.python_version()
    try:
        suits = SpecifierSet(wanted).contains(here, prereleases=True)
    except InvalidSpecifier as error:
        raise UsageError(f"{where}: pyproject.toml of that revision: requires-python: {error}; {INSTALLED}") from error
    if not suits:
        raise UsageError(
            f"{where}: that revision needs Python {wanted}, and this is {here}; run cnnperf with that version, or "
            "give the interpreter of an environment that has it"
        )


def _refuse_unreadable(trees: tuple[_Tree, _Tree], projects: tuple[PurePosixPath, PurePosixPath], where: str) -> None:
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
                f"{where}: {name} differs in that revision, and may need other packages; make an environment for "
                "it and give its interpreter, or list them in pyproject.toml under project.dependencies"
            )


def _environment(dependencies: Sequence[str], tree: Path, where: str, installing: Installing) -> Path:
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
                [sys.executable, "-m", "venv", str(folder)],
                [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *dependencies],
            ):
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise UsageError(f"{where} cannot be installed ({_last(done.stderr)}); {INSTALLED}")
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


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return git(folder, *arguments)
    except FileNotFoundError as error:
        raise UsageError("git is not installed, but comparing revisions needs it; install git") from error


def _last(text: str) -> str:
    lines = text.strip().splitlines() or ["no output"]
    return next((line for line in reversed(lines) if line.startswith("ERROR: ")), lines[-1])
