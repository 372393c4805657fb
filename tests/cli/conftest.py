"""Fixtures that tests of commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnperf.record import FILE


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the run folders whose records were read, with one entry for each time."""
    found: list[Path] = []
    read_bytes = Path.read_bytes

    def noted(path: Path) -> bytes:
        if path.name == FILE:
            found.append(path.parent)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    return found
