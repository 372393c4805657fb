"""Resolve the names on a command line, an interpreter or a git revision, to versions that can be measured.

Names are resolved and checked first (`named`), in the repository's objects. Only then is a worktree or an environment
made (`NamedVersion.made`).
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from cnnperf.duet.contest import Version
from cnnperf.duet.versions import refuse_protocol
from cnnperf.errors import CnnperfWarning, UsageError
from cnnperf.regression.environments import (
    Installing,
    brief,
    environment_with,
    interpreter,
    last_words,
    needed_packages,
    refuse_bare,
)
from cnnperf.regression.worktrees import asked_git, worktree
from cnnperf.sides import Both

HERE = "this tree"
HERE_NAMED = "."
"""The name of this tree as it is, which no revision can have."""
UPWARDS = re.compile(r"(\.\./)*")
"""The way from a folder to the root of its repository, as git prints it."""
PROTOCOL_LINE = "^PROTOCOL = [0-9]{1,9}$"
"""The line of cnnperf's code with the version of its protocol; every version that compares has it, in some file."""
HASH = re.compile("[0-9a-f]{40,64}")
"""A commit, in full."""


class NamedVersion(Protocol):
    """One of two versions, resolved from its name."""

    @property
    def name(self) -> str:
        """Name of the version in messages."""

    @property
    def identity(self) -> object:
        """Value that is equal for equal versions; None if no version was named."""

    def made(self, installing: Installing) -> AbstractContextManager[Version]:
        """Provide the version; remove its worktree afterwards. Raises UsageError."""


@dataclass(frozen=True, slots=True)
class Present:
    """A version that needs no preparation: this tree or an interpreter."""

    version: Version
    identity: str | None

    @property
    def name(self) -> str:
        """Name of the version in messages."""
        return self.version.name

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
    def name(self) -> str:
        """The revision as it was named, and the first digits of its commit."""
        short = self.commit[:10]
        return short if self.commit.startswith(self.text) else f"{brief(self.text)} ({short})"

    @property
    def identity(self) -> tuple[Path, str]:
        """The commit."""
        return self.root, self.commit

    @contextmanager
    def made(self, installing: Installing) -> Iterator[Version]:
        """Check the commit out, and make an environment if its dependencies differ."""
        with worktree(self.root, self.commit) as tree:
            here, python = tree / self.below, Path(sys.executable)
            if self.dependencies is not None:
                python = environment_with(self.dependencies, tree, f"{self.option}: {brief(self.text)}", installing)
            yield Version(
                name=self.name,
                python=str(python),
                path=_places(tree, here),
                cwd=here,
                tree=tree,
                repository=self.root,
            )


def named(baseline: str | None, candidate: str | None, folder: Path | None = None) -> Both[NamedVersion]:
    """Return the versions that two options name. Raises UsageError; nothing is made.

    None and `.` are the current tree. Another path is a Python interpreter or the folder of a virtual environment.
    Anything else is a git revision of the folder's repository (the working directory's): a worktree of it comes first
    on the module path of the present interpreter, or of its own environment if its dependencies differ. If the other
    side is a revision, the current tree is found in the same places.
    """
    folder = (folder or Path.cwd()).resolve()
    baseline, candidate = map(_unless_here, (baseline, candidate))
    return Both(
        _named(baseline, "`baseline`", folder, candidate),
        _named(candidate, "`candidate`", folder, baseline),
    )


def refuse_same(baseline: NamedVersion, candidate: NamedVersion) -> None:
    """Raise UsageError for two names of one version."""
    if baseline.identity is not None and baseline.identity == candidate.identity:
        raise UsageError(
            "`baseline` and `candidate` name the same version, so nothing differs; name another one, change a setting "
            f"with `candidate_set`, or give {HERE_NAMED} for both to compare this tree with itself"
        )


def warn_uncommitted(candidate: NamedVersion) -> None:
    """Warn if the candidate is the checked-out commit and this tree has changes that it lacks."""
    if not isinstance(candidate, Revision):
        return
    head = asked_git(candidate.root, "rev-parse", "--verify", "--quiet", "HEAD").stdout.strip()
    changed = asked_git(candidate.root, "diff", "--name-only", "-z", "HEAD").stdout.split("\0")[:-1]
    if head == candidate.commit and changed:
        others = f" and {len(changed) - 1} more" if changed[1:] else ""
        warnings.warn(
            f"`candidate`: {brief(candidate.text)} is measured without the uncommitted changes of this tree "
            f"({brief(changed[0])}{others}); commit them, or leave `candidate` out to measure this tree",
            CnnperfWarning,
            stacklevel=2,
        )


def _unless_here(text: str | None) -> str | None:
    """Return a name; None for the current tree, unless its folder is a virtual environment."""
    return None if text == HERE_NAMED and not interpreter(text) else text


def _named(text: str | None, option: str, folder: Path, beside: str | None) -> NamedVersion:
    if text is None:
        is_beside_revision = beside is not None and interpreter(beside) is None
        root = _root(folder, beside, option) if beside and is_beside_revision else None
        return Present(Version(name=HERE, path=_places(root, folder), cwd=folder) if root else Version(name=HERE), None)
    _refuse_unusable(text, option)
    if python := interpreter(text):
        refuse_bare(python, f"{option}: {brief(text)}")
        return Present(Version(name=text, python=str(python), isolated=True), str(python))
    root = _root(folder, text, option)
    commit = _commit(root, text, option)
    below = PurePosixPath(folder.relative_to(root))
    said = brief(text)
    wanted = _Commit(root, commit)
    if not wanted.is_folder(below):
        raise UsageError(f"{option}: '{said}' has no folder {below}; run this in a folder of it")
    if (protocol := wanted.protocol()) is not None:
        refuse_protocol(option, said, protocol)
    packages = needed_packages(wanted, _Folder(root), below, f"{option}: {said}")
    return Revision(text, option, root, commit, below, packages)


@dataclass(frozen=True, slots=True)
class _Folder:
    root: Path
    name: str = HERE

    def names(self, folder: PurePosixPath) -> Sequence[str]:
        return [path.name for path in (self.root / folder).iterdir()]

    def text(self, file: PurePosixPath) -> str | None:
        path = self.root / file
        try:
            return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


@dataclass(frozen=True, slots=True)
class _Commit:
    root: Path
    commit: str
    name: str = "that revision"

    def is_folder(self, folder: PurePosixPath) -> bool:
        return asked_git(self.root, "cat-file", "-t", self._object(folder)).stdout.strip() == "tree"

    def names(self, folder: PurePosixPath) -> Sequence[str]:
        return asked_git(self.root, "ls-tree", "-z", "--name-only", self._object(folder)).stdout.split("\0")

    def text(self, file: PurePosixPath) -> str | None:
        found = asked_git(self.root, "cat-file", "blob", self._object(file))
        return None if found.returncode else found.stdout

    def protocol(self) -> int | None:
        """Return the protocol of comparisons of the commit's own cnnperf; None if it holds none that compares."""
        places = ("cnnperf", "src/cnnperf")
        line = asked_git(self.root, "grep", "-h", "--no-color", "-E", PROTOCOL_LINE, self.commit, "--", *places).stdout
        found = re.match(r"PROTOCOL = (\d{1,9})$", line, re.MULTILINE | re.ASCII)
        return int(found[1]) if found else None

    def _object(self, path: PurePosixPath) -> str:
        return f"{self.commit}:" if path == PurePosixPath() else f"{self.commit}:{path}"


def _places(root: Path, folder: Path) -> tuple[Path, ...]:
    """Return the first entries of the module path: the folder and the root, each followed by its `src`."""
    places = dict.fromkeys((folder, folder / "src", root, root / "src"))
    return tuple(place for place in places if place.is_dir())


def _refuse_unusable(text: str, option: str) -> None:
    """Raise UsageError for a name that cannot be given to a program."""
    try:
        is_usable = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        is_usable = False
    if not is_usable:
        raise UsageError(f"{option}: {ascii(text)[:100]} is neither a path nor a revision; give one of these")


def _root(folder: Path, text: str, option: str) -> Path:
    """Return the root of the folder's repository."""
    top = asked_git(folder, "rev-parse", "--show-toplevel", "--show-cdup")
    if "safe.directory" in top.stderr:
        raise UsageError(
            f"{option}: git refuses the repository of {folder}, which belongs to another user; if you trust it, name "
            "it in git's setting safe.directory"
        )
    if top.returncode:
        raise UsageError(
            f"{option}: '{brief(text)}' is not a Python interpreter, and {folder} is not in a git repository "
            f"({last_words(top.stderr)}); give the path of an interpreter, or run this in a repository"
        )
    # The way up, not the path: git prints a path's bytes, which may be no text.
    upwards = top.stdout.removesuffix("\n").rpartition("\n")[2]
    root = (folder / upwards).resolve() if UPWARDS.fullmatch(upwards) else None
    if root is None:
        raise UsageError(f"{option}: git does not say where the repository of {folder} begins; run this in its tree")
    return root


def _commit(root: Path, text: str, option: str) -> str:
    """Return the commit of a revision."""
    commit = asked_git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}")
    if commit.returncode or not HASH.fullmatch(commit.stdout.strip()):
        raise UsageError(
            f"{option}: '{brief(text)}' is neither a Python interpreter nor a revision of {root}; give a path, a "
            "branch, a tag or a commit (in CI: fetch it first)"
        )
    return commit.stdout.strip()
