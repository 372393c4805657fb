"""Stand-ins for tests of claims: a device that lags behind its caller, a small run, and made-up readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cnnperf.claims import Bar, CheckedFigure
from cnnperf.devices.cpu import Cpu

CALL_S, HOST_S = 0.001, 0.00001
"""How long a call takes the lagging device, and how long the host takes to queue it."""


@dataclass
class Lagging(Cpu):
    """A device that computes behind its caller, with the only clocks of the simulation.

    Work is queued at once and completed later; a mark is reached when all that was queued before it is done.
    """

    host_s: float = 0.0
    done_s: float = 0.0
    faster: float = 1.0
    """Factor by which the marks are wrong."""
    waits: bool = True
    """Whether `synchronize` does what it says."""
    torch_name: str = "cpu"

    def call(self) -> None:
        """Queue one call."""
        self.host_s += HOST_S
        self.done_s = max(self.done_s, self.host_s) + CALL_S

    def wait(self) -> None:
        """Wait for the queued work, even if `synchronize` does not."""
        self.host_s = max(self.host_s, self.done_s)

    def synchronize(self) -> None:
        """Wait until all work is done, if `waits` is set."""
        if self.waits:
            self.wait()

    def mark(self) -> float:
        """Queue a mark."""
        return max(self.done_s, self.host_s)

    def elapsed_s(self, start: float, end: float) -> float:
        """Return the seconds between two marks, which must have been reached."""
        assert end <= self.host_s, "the second mark has not been reached"
        return self.faster * (end - start)


SMALL: dict[str, Any] = {
    "datasets": [{"name": "synthetic", "train": 256, "test": 64}],
    "models": ["lenet"],
    "train": {"steps": 4, "batch_size": 32, "validation_images": 0, "normalize": "dataset"},
    "export": {"test_images": 64},
    "infer": {"engines": ["onnxruntime"], "batch_sizes": [1, 4], "samples": 11, "seconds": 0, "pairs": 0}
    | {"test_images": 64},
}


def verdicts(readings: Any) -> list[str]:
    """Return the verdict of each reading."""
    return [reading.verdict for reading in readings]


def made_up(**changes: Any) -> CheckedFigure:
    """Return a reading that holds, with changed fields."""
    given: dict[str, Any] = {"quantity": "q", "unit": "s", "figure": 1.0, "reading": 1.0, "source": "s"}
    return CheckedFigure(**{**given, "bar": Bar.within(0.1, "why"), **changes})
