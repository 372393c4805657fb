"""From what a command line names, an interpreter or a git revision, to an arm that can be measured."""

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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from filelock import FileLock
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from cnnperf.datasets import Roots
from cnnperf.duet.sides import Arm
from cnnperf.errors import UsageError
from cnnperf.machine.git import git

HERE = "this tree"
CHECKOUT = Path(__file__).parents[2]
"""The folder that holds this cnnperf: a checkout, or where pip puts packages."""
KEPT = 4
"""Environments made for revisions that are kept for the next time; the others go, the longest unused first."""
READY = "cnnperf-ready"
"""The file in an environment that says it is complete; its time is when it was last used."""
MAY_SAY = ("pyproject.toml", "setup.cfg", "setup.py", "requirements*.txt")
"""Where a project may say what it asks for, if not under `project.dependencies`."""


@contextmanager
def arm_of(text: str | None, option: str, folder: Path | None = None, *, beside: str | None = None) -> Iterator[Arm]:
    """Give the arm that an option's value names, and clear away afterwards what had to be made for it.

    None is what runs now, as it is. A path is a Python interpreter or the folder of a virtual environment. Anything
    else is a git revision of the folder's repository (the working directory's): a worktree of it comes first on the
    module path of the present interpreter, or of an environment of its own if its dependencies differ. `beside` is what
    the other arm is: beside a revision, this tree is found in the same places. Raises UsageError.
    """
    folder = (folder or Path.cwd()).resolve()
    if text is None:
        is_beside_revision = beside is not None and _interpreter(Path(beside).expanduser()) is None
        root = _root(folder, beside, option) if beside and is_beside_revision else None
        yield Arm(name=HERE, path=_places(root, folder), cwd=folder) if root else Arm(name=HERE)
    elif python := _interpreter(Path(text).expanduser()):
        yield Arm(name=text, python=str(python), isolated=True)
    else:
        root = _root(folder, text, option)
        commit = _commit(root, text, option)
        with _worktree(root, commit) as tree:
            here = tree / folder.relative_to(root)
            if not here.is_dir():
                raise UsageError(
                    f"{option}: {text!r} has no folder {folder.relative_to(root)}; run this in a folder of it"
                )
            yield Arm(
                name=f"{text} ({commit[:10]})" if not commit.startswith(text) else commit[:10],
                python=str(_python_for(here, folder, (tree, root), f"{option}: {text}")),
                path=_places(tree, here),
                cwd=here,
                tree=tree,
                repository=root,
            )


def _places(root: Path, folder: Path) -> tuple[Path, ...]:
    """Return what comes first on the module path: the folder and the root, and the `src` of either."""
    places = dict.fromkeys((folder, folder / "src", root, root / "src"))
    return tuple(place for place in places if place.is_dir())


def _interpreter(path: Path) -> Path | None:
    if path.is_dir() and (path / "pyvenv.cfg").is_file():
        path = path / "bin" / "python"
    # Not resolved: the link in an environment's bin is what makes it that environment.
    return path.absolute() if path.is_file() and os.access(path, os.X_OK) else None


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
    """Return the commit that a revision is."""
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
                raise UsageError(f"{commit[:12]}: cannot be checked out: {_last(added.stderr)}")
            _fill_submodules(tree, commit)
            yield tree
        finally:
            _git(root, "worktree", "remove", "--force", str(tree))


def _fill_submodules(tree: Path, commit: str) -> None:
    if (tree / ".gitmodules").is_file():
        filled = _git(tree, "submodule", "--quiet", "update", "--init", "--recursive")
        if filled.returncode:
            raise UsageError(f"{commit[:12]}: its submodules cannot be checked out: {_last(filled.stderr)}")


def _python_for(here: Path, folder: Path, roots: tuple[Path, Path], where: str) -> Path:
    """Return the interpreter for a revision: the present one, unless it asks for other packages than this tree.

    here and folder: the working directory in the revision and in this tree; roots: of both.
    """
    projects = [_project(place, root) for place, root in zip((here, folder), roots, strict=True)]
    wanted, present = (_dependencies(project, where) for project in projects)
    if wanted is None or present is None:
        _refuse_unreadable(projects[0], projects[1], where)
        return Path(sys.executable)
    return Path(sys.executable) if wanted == present else _environment(wanted, roots[0], where)


def _project(folder: Path, root: Path) -> Path:
    """Return the nearest folder, up to the root, that has a pyproject.toml; the root if none has."""
    upwards = [folder, *folder.parents]
    among = upwards[: upwards.index(root) + 1]
    return next((place for place in among if (place / "pyproject.toml").is_file()), root)


def _dependencies(project: Path, where: str) -> tuple[str, ...] | None:
    """Return the packages that a project asks for; None where its pyproject.toml does not say.

    Raises UsageError if this Python is none that it asks for: an environment made for it would have the same.
    """
    try:
        content = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UsageError(f"{where}: pyproject.toml of that revision is not valid TOML: {error}") from error
    _refuse_python(content.get("requires-python", ""), where)
    return tuple(sorted(content["dependencies"])) if "dependencies" in content else None


def _refuse_python(wanted: str, where: str) -> None:
    here = platform.python_version()
    try:
        suits = SpecifierSet(wanted).contains(here, prereleases=True)
    except InvalidSpecifier as error:
        raise UsageError(f"{where}: pyproject.toml of that revision: requires-python: {error}") from error
    if not suits:
        raise UsageError(
            f"{where}: that revision needs Python {wanted}, and this is {here}; run cnnperf with that version, or "
            "give the interpreter of an environment that has it"
        )


def _refuse_unreadable(wanted: Path, present: Path, where: str) -> None:
    """Raise UsageError if files differ that may say what a project asks for, where pyproject.toml does not."""
    names = {path.name for project in (wanted, present) for glob in MAY_SAY for path in project.glob(glob)}
    for name in sorted(names):
        texts = [_text(project / name) for project in (wanted, present)]
        if texts[0] != texts[1]:
            raise UsageError(
                f"{where}: {name} differs in that revision, and may need other packages; make an environment for "
                "it and give its interpreter, or list them in pyproject.toml under project.dependencies"
            )


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _environment(dependencies: Sequence[str], tree: Path, where: str) -> Path:
    """Return the interpreter of an environment with these packages, made now or left from an earlier time."""
    if not (tree / "cnnperf" / "__init__.py").is_file():
        dependencies = [*dependencies, _own_requirement()]
    key = hashlib.sha256(json.dumps([sys.version, *dependencies]).encode()).hexdigest()[:16]
    home = Roots.from_environment().cache / "environments"
    home.mkdir(parents=True, exist_ok=True)
    folder = home / key
    with FileLock(home / f"{key}.lock"):
        if not (folder / READY).exists():
            shutil.rmtree(folder, ignore_errors=True)
            print(f"cnnperf: {where} has other dependencies; making an environment for it", file=sys.stderr)  # noqa: T201
            for command in (
                [sys.executable, "-m", "venv", str(folder)],
                [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *dependencies],
            ):
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise UsageError(f"{where} cannot be installed: {_last(done.stderr)}")
        (folder / READY).write_text(f"{time.time()}\n")
    _prune(home, folder)
    return folder / "bin" / "python"


def _own_requirement() -> str:
    """Return what pip installs as this cnnperf: this checkout, where it was installed from (PEP 610), or a version."""
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
        raise UsageError("git is not installed, and is needed to compare revisions") from error


def _last(text: str) -> str:
    lines = text.strip().splitlines() or ["without a word"]
    return next((line for line in reversed(lines) if line.startswith("ERROR: ")), lines[-1])
