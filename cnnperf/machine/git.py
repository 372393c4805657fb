"""Git commands in a folder, isolated from the caller's git environment and from programs of the folder's repository."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

from cnnperf.machine.program import QUESTION_S, answer

WRITING_S = 600.0
"""Time limit for a command that writes or fetches a tree; all others answer questions."""
LIMITS_S = {"worktree": WRITING_S, "submodule": WRITING_S}
NOT_RUN = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "protocol.ext.allow=never")
"""Settings under which git runs no hook, no file-system monitor and no command that a URL names."""


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in a folder and return the completed process, output as text. Raises NoAnswer.

    The variables that git sets for hooks, such as the index file of the user's repository, are removed. Filters that
    the user's or the repository's configuration names do run, since the files of a checkout without them differ.
    """
    local = _local_variables()
    environment = {name: value for name, value in os.environ.items() if name not in local}
    settings = [word for setting in NOT_RUN for word in ("-c", setting)]
    limit_s = LIMITS_S.get(arguments[0], QUESTION_S)
    return answer("git", *settings, "-C", str(folder), *arguments, limit_s=limit_s, environment=environment)


@cache
def _local_variables() -> frozenset[str]:
    return frozenset(answer("git", "rev-parse", "--local-env-vars").stdout.split())
