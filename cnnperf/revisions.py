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

import cnnperf
from cnnperf.datasets import Roots
from cnnperf.duet_arms import Arm
from cnnperf.errors import UsageError

HERE = "this tree"
KEPT = 4
"""Environments made for revisions that are kept for the next time; the others go, the longest unused first."""
READY = "cnnperf-ready"
"""The file in an environment that says it is complete; its time is when it was last used."""


@contextmanager
def arm_of(text: str | None, option: str, repository: Path | None = None) -> Iterator[Arm]:
    """Give the arm that an option's value names, and clear away afterwards what had to be made for it.

    None is what runs now, as it is. A path is a Python interpreter or the folder of a virtual environment. Anything
    else is a git revision of the repository (the working directory's): a worktree of it comes first on the module path
    of the present interpreter, or of an environment of its own if its dependencies differ. Raises UsageError.
    """
    if text is None:
        yield Arm(name=HERE)
    elif python := _interpreter(Path(text).expanduser()):
        yield Arm(name=text, python=str(python), isolated=True)
    else:
        folder = (repository or Path.cwd()).resolve()
        root, commit = _resolved(text, option, folder)
        with _worktree(root, commit) as tree:
            # As here, what the working directory holds can be imported, wherever in the repository that is.
            here = tree / folder.relative_to(root)
            if not here.is_dir():
                raise UsageError(f"{option}: {text!r} has no folder {folder.relative_to(root)}; run this in one it has")
            places = dict.fromkeys((here, here / "src", tree, tree / "src"))
            yield Arm(
                name=f"{text} ({commit[:10]})" if not commit.startswith(text) else commit[:10],
                python=str(_python_for(tree, root, option, text)),
                path=tuple(place for place in places if place.is_dir()),
                cwd=here,
            )


def _interpreter(path: Path) -> Path | None:
    if path.is_dir() and (path / "pyvenv.cfg").is_file():
        path = path / "bin" / "python"
    # Not resolved: the link in an environment's bin is what makes it that environment.
    return path.absolute() if path.is_file() and os.access(path, os.X_OK) else None


def _resolved(text: str, option: str, folder: Path) -> tuple[Path, str]:
    """Return the root of the repository and the commit."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top.returncode:
        raise UsageError(
            f"{option}: {text!r} is no Python interpreter, and {folder} is in no git repository whose revision it "
            "could be; give the path of an interpreter, or run this in a repository"
        )
    root = Path(top.stdout.strip()).resolve()
    commit = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}")
    if commit.returncode:
        raise UsageError(
            f"{option}: {text!r} is neither a Python interpreter nor a revision of {root}; give a path, a branch, a "
            "tag or a commit (in CI: fetch it first)"
        )
    return root, commit.stdout.strip()


@contextmanager
def _worktree(root: Path, commit: str) -> Iterator[Path]:
    """Check a commit out beside the repository's own tree, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="cnnperf-revision-") as folder:
        tree = Path(folder) / commit[:12]
        try:
            added = _git(root, "worktree", "add", "--quiet", "--detach", str(tree), commit)
            if added.returncode:
                raise UsageError(f"{commit[:12]}: cannot be checked out: {_last(added.stderr)}")
            yield tree
        finally:
            _git(root, "worktree", "remove", "--force", str(tree))


def _python_for(tree: Path, root: Path, option: str, text: str) -> Path:
    """Return the interpreter for a revision: the present one, unless it asks for other packages than this tree."""
    wanted, present = (_dependencies(folder / "pyproject.toml", option) for folder in (tree, root))
    return Path(sys.executable) if wanted == present else _environment(wanted, tree, f"{option}: {text}")


def _dependencies(project: Path, option: str) -> tuple[str, ...]:
    """Return the packages that a project asks for; nothing where there is no such file.

    Raises UsageError if this Python is none that it asks for: an environment made for it would have the same.
    """
    try:
        content = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
    except FileNotFoundError:
        return ()
    except ValueError as error:
        raise UsageError(f"{option}: pyproject.toml of that revision is not valid TOML: {error}") from error
    wanted, here = content.get("requires-python", ""), platform.python_version()
    try:
        suits = SpecifierSet(wanted).contains(here, prereleases=True)
    except InvalidSpecifier as error:
        raise UsageError(f"{option}: pyproject.toml of that revision: requires-python: {error}") from error
    if not suits:
        raise UsageError(
            f"{option}: that revision asks for Python {wanted}, and this is {here}; run cnnperf in one that suits it, "
            "or give the interpreter of an environment that has it"
        )
    return tuple(sorted(content.get("dependencies", [])))


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
    checkout = Path(cnnperf.__file__).parent.parent
    if (checkout / "pyproject.toml").is_file():
        return f"--editable={checkout}"  # The environment is kept, and the checkout changes.
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
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UsageError("git is not installed, and is needed to compare revisions") from error


def _last(text: str) -> str:
    lines = text.strip().splitlines() or ["without a word"]
    return next((line for line in reversed(lines) if line.startswith("ERROR: ")), lines[-1])
