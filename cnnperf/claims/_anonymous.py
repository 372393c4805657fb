"""Takes the places of this machine out of a text, so that it can be sent to others."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cnnperf.datasets import Roots

ABSOLUTE = re.compile(r"""(?<![\w.:/<>-])/(?:[\w.+@%=~-]+/)+([\w.+@%=~-]*)""")
"""A path from the root that names two folders or more; of an address, which has two slashes, nothing."""


def places() -> Mapping[str, str]:
    """Return the folders that are known by name, the longest first."""
    roots = Roots.from_environment()
    known = {
        Path(__file__).parent.parent: "<cnnperf>",
        Path(tempfile.gettempdir()): "<tmp>",
        Path(sys.prefix): "<python>",
        Path(sys.base_prefix): "<python>",
        roots.cache: "<cache>",
        Path.cwd(): "<cwd>",
        Path.home(): "<home>",
    }
    named = {str(path): name for path, name in known.items() if path != Path("/")}
    return dict(sorted(named.items(), key=lambda item: -len(item[0])))


def anonymous(text: str, known: Mapping[str, str]) -> str:
    """Replace known folders by their names, and of any other absolute path all but the last part."""
    for path, name in known.items():
        text = re.sub(rf"{re.escape(path)}(?![\w.-])", name, text)
    return ABSOLUTE.sub(r".../\1", text)
