"""An object that shows whether a pickle was run."""

from __future__ import annotations

import os
from pathlib import Path


class Poison:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._folder),)
