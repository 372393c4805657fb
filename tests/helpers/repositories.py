"""Repositories for tests of revisions, and the version that one option names."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from processes import completed

from cnnperf.duet.contest import Version
from cnnperf.regression.revisions import named

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
