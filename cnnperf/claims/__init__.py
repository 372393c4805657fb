"""The project's claims, each compared with an independent reading on one device. One file per claim.

A file defines `CLAIM`, the claim in a sentence; `LIMIT_S`, its time limit in seconds (None: all remaining time, after
the other claims); and `check(context)`, which yields CheckedFigures. `check` runs in a fresh process. It raises
NotApplicable if this machine cannot test the claim; any other error means that the claim did not hold. Torch is
imported only inside `check`, so that the command lists the claims without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cnnperf.ipc.checked_figure import Bar as Bar
from cnnperf.ipc.checked_figure import CheckedFigure as CheckedFigure

if TYPE_CHECKING:
    from cnnperf.devices import Device


class NotApplicable(Exception):  # noqa: N818 - a finding about the machine
    """The reason why a claim cannot be tested on this machine."""


@dataclass(frozen=True, slots=True)
class Context:
    """The inputs of a claim."""

    device: str
    """Name of the device: `cpu`, `cuda`."""
    acquire: Callable[[], Device]
    """Returns the device; on CUDA this imports torch."""
    scratch: Path
    """Folder shared by all claims of a self-test; a claim reuses the finished tasks of earlier claims."""
    seconds: float
    """Time limit of the claim in seconds."""
    threads: int
    progress: Callable[[str], None] = lambda text: None
    """Shows the current work on the screen."""
