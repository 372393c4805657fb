"""What is done with a network. One file a stage; `measure(bench, settings)` yields Measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cnnperf.datasets import Dataset
from cnnperf.devices import Device
from cnnperf.suite import Task


@dataclass(frozen=True, slots=True)
class Bench:
    """What a stage works on: its task, the device, the images, and a folder for what it leaves behind."""

    task: Task
    device: Device
    dataset: Dataset
    run: Path
    """The run folder."""
    progress: Callable[..., None]
    """`progress(step=…, loss=…)`: numbers for the screen; call it as often as you like outside the timed part."""
    artifacts: dict[str, str] = field(default_factory=dict)
    """What was written, by kind, as paths relative to the run folder; it goes into the record."""

    def artifact(self, kind: str, name: str) -> Path:
        """Return the path for an artifact of this task (`weights`, `weights.pt`) and enter it in the record."""
        folder = self.run / "artifacts" / self.task.key
        folder.mkdir(parents=True, exist_ok=True)
        self.artifacts[kind] = str((folder / name).relative_to(self.run))
        return folder / name
