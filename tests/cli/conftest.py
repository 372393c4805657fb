"""Fixtures that tests of commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cnnperf.record import FILE, folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the run folders whose records were read, with one entry for each time."""
    found: list[Path] = []

    def noted(path: Path, mode: str, **options: Any) -> Any:
        if (path.name, mode) == (FILE, "rb"):
            found.append(path.parent)
        return open(path, mode, **options)

    monkeypatch.setattr(folder, "open", noted, raising=False)
    return found
