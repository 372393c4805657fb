"""Arguments of the library as the command line names them in messages."""

from __future__ import annotations

import re

ARGUMENTS = (
    *("allocator", "baseline", "baseline_set", "by", "candidate", "candidate_set", "data", "minutes", "only", "out"),
    *("pairs", "threads", "train", "waiting"),
)
"""Arguments that messages name, each the name of its option."""
_NAMED = re.compile(f"`({'|'.join(ARGUMENTS)})`")


def with_options(message: str) -> str:
    """Return a message with the option in place of each argument: --candidate-set for candidate_set."""
    return _NAMED.sub(lambda found: "--" + found[1].replace("_", "-"), message)
