"""Git, asked about a folder and nothing else."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git there and return how it ended, its words as text. Raises FileNotFoundError where there is no git.

    What a hook's environment says of the user's own repository, such as the index to write to, is kept from it.
    """
    local = _local_variables()
    environment = {name: value for name, value in os.environ.items() if name not in local}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@cache
def _local_variables() -> frozenset[str]:
    answer = subprocess.run(["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, check=False)
    return frozenset(answer.stdout.split())
