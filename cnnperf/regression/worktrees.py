"""Worktrees of revisions, in the cache.

The owner of a worktree holds its lock, so that the worktrees of killed owners are known and removed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cnnperf.datasets import Roots
from cnnperf.errors import UsageError
from cnnperf.machine.git import git
from cnnperf.machine.program import NoAnswer
from cnnperf.regression.environments import INSTALLED, last_words

GUARD = "guard"
"""The lock under which worktrees are claimed and those without an owner are removed."""
GUARD_S = 120.0
"""Time limit for another process that holds the guard."""
LOCK = ".lock"
"""Suffix of the lock of a worktree, which stands beside it."""


@contextmanager
def worktree(root: Path, commit: str) -> Iterator[Path]:
    """Check a commit out apart from the repository's own tree, and remove it afterwards. Raises UsageError.

    Worktrees whose owner was killed are removed first.
    """
    home = _home(root)
    tree = home / f"{commit[:12]}-{secrets.token_hex(4)}"
    with _claimed(home, tree, root):
        try:
            added = asked_git(root, "worktree", "add", "--quiet", "--detach", str(tree), commit)
            if added.returncode:
                raise UsageError(f"{commit[:12]}: cannot be checked out ({last_words(added.stderr)}); {INSTALLED}")
            _fill_submodules(tree, commit)
            yield tree
        finally:
            _remove(root, tree)


def asked_git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in a folder and return the completed process. Raises UsageError if it does not answer."""
    try:
        return git(folder, *arguments)
    except NoAnswer as error:
        raise UsageError(f"{error}, but comparing revisions needs git; repair the installed git") from error


def _home(root: Path) -> Path:
    """Return the folder of the worktrees: in the cache, or in the folder for temporary files if `root` has the cache.

    In the repository's own tree, files of a worktree could not be told from those of that tree.
    """
    home = Roots.from_environment().cache.absolute() / "revisions"
    try:
        if home.resolve().is_relative_to(root):
            home = Path(tempfile.gettempdir()) / f"cnnperf-revisions-{os.getuid()}"
            home.mkdir(mode=0o700, exist_ok=True)
            if home.is_symlink() or home.stat().st_uid != os.getuid():
                raise PermissionError(0, "it belongs to another user")
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(home, error) from error
    return home.resolve()


@contextmanager
def _claimed(home: Path, tree: Path, root: Path) -> Iterator[None]:
    """Hold the lock of a worktree to be made, after those without an owner are removed."""
    lock = FileLock(_lock(tree))
    try:
        with FileLock(home / GUARD, timeout=GUARD_S):
            _prune(home, root)
            lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(f"{home}: another cnnperf has held it for {GUARD_S:g} s; end that process") from error
    except OSError as error:
        raise _unwritable(home, error) from error
    try:
        yield
    finally:
        lock.release()


def _unwritable(home: Path, error: OSError) -> UsageError:
    return UsageError(f"{home}: cannot be written ({error.strerror}); set CNNPERF_CACHE to another folder")


def _prune(home: Path, root: Path) -> None:
    """Remove the worktrees in the folder whose owner has ended, and what the repository still knows of removed ones."""
    listed = asked_git(root, "worktree", "list", "--porcelain").stdout.splitlines()
    known = {Path(line.removeprefix("worktree ")) for line in listed if line.startswith("worktree ")}
    found = {path.with_name(path.name.removesuffix(LOCK)) for path in home.iterdir() if path.name != GUARD}
    for tree in sorted(found | {tree for tree in known if tree.parent == home}):
        with suppress(Timeout), FileLock(_lock(tree), timeout=0):
            _remove(_repository(tree) or root, tree)


def _remove(repository: Path, tree: Path) -> None:
    # The folder first: git removes no worktree that lacks its file `.git`, but one whose folder is gone.
    shutil.rmtree(tree, ignore_errors=True)
    # Twice --force: git locks a worktree while it is added, and a killed git leaves it locked.
    with suppress(NoAnswer):
        git(repository, "worktree", "remove", "--force", "--force", str(tree))
    _lock(tree).unlink(missing_ok=True)


def _lock(tree: Path) -> Path:
    return tree.with_name(tree.name + LOCK)


def _repository(tree: Path) -> Path | None:
    """Return the repository of a worktree; None if its file `.git` does not say it."""
    try:
        kept = Path((tree / ".git").read_text(errors="surrogateescape").removeprefix("gitdir: ").rstrip("\n"))
        return kept.parents[1]
    except (OSError, IndexError):
        return None


def _fill_submodules(tree: Path, commit: str) -> None:
    if (tree / ".gitmodules").is_file():
        # --checkout: a repository's configuration may name a command of its own for updates.
        filled = asked_git(tree, "submodule", "--quiet", "update", "--init", "--recursive", "--checkout")
        if filled.returncode:
            raise UsageError(
                f"{commit[:12]}: its submodules cannot be checked out ({last_words(filled.stderr)}); {INSTALLED}"
            )
