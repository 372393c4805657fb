"""Builds of the distribution: the same tree gives the same bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from processes import completed

ROOT = Path(__file__).parents[2]


def digests(tree: Path, out: Path) -> dict[str, str]:
    """Build sdist and wheel of a tree, and return the sha256 of each file."""
    completed(sys.executable, "-m", "hatchling", "build", "-d", out, cwd=tree, check=True)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in out.iterdir()}


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    """Builds of two copies with other times of modification, in other folders, are equal byte for byte."""
    first, second = tmp_path / "one", tmp_path / "another" / "copy"
    for tree in (first, second):
        kept = shutil.ignore_patterns(".git", ".venv", "results", "__pycache__", ".*_cache")
        shutil.copytree(ROOT, tree, ignore=kept)
    for file in second.rglob("*"):
        os.utime(file, (1_000_000_000, 1_000_000_000))
    built = digests(first, tmp_path / "built-1")
    assert {name.rpartition(".")[2] for name in built} == {"gz", "whl"}
    assert digests(second, tmp_path / "built-2") == built
