"""Removal of this machine's paths from a text, so that it can be shared."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cnnperf.datasets import Roots

ABSOLUTE = re.compile(r"""(?<![\w.:/<>-])/(?:[\w.+@%=~-]+/)+([\w.+@%=~-]*)""")
"""An absolute path of at least two components; internet addresses do not match."""


def places() -> Mapping[str, str]:
    """Return the named folders, the longest path first."""
    roots = Roots.from_environment()
    known = {
        Path(__file__).parent.parent: "<cnnperf>",
        Path(tempfile.gettempdir()): "<tmp>",
        Path(sys.prefix): "<python>",
        Path(sys.base_prefix): "<python>",
        roots.cache: "<cache>",
        Path.cwd(): "<cwd>",
    }
    with suppress(RuntimeError):  # A user without a home folder.
        known[Path.home()] = "<home>"
    named = {str(path): name for path, name in known.items() if path != Path("/")}
    return dict(sorted(named.items(), key=lambda item: -len(item[0])))


def anonymous(text: str, known: Mapping[str, str]) -> str:
    """Replace known folders by their names, and shorten any other absolute path to its last component."""
    for path, name in known.items():
        text = re.sub(rf"{re.escape(path)}(?![\w.-])", name, text)
    return ABSOLUTE.sub(r".../\1", text)
