"""Git commands in a folder, isolated from the caller's git environment."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in a folder and return the completed process, output as text. Raises FileNotFoundError without git.

    The variables that git sets for hooks, such as the index file of the user's repository, are removed.
    """
    local = _local_variables()
    environment = {name: value for name, value in os.environ.items() if name not in local}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@cache
def _local_variables() -> frozenset[str]:
    answer = subprocess.run(["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, check=False)
    return frozenset(answer.stdout.split())
