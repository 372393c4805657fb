"""All that a stage is given: the bench that it works on, and the settings of its section."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from cnnperf import record as store
from cnnperf import registry
from cnnperf.datasets import Dataset
from cnnperf.devices import Device
from cnnperf.record import Measurement, Record
from cnnperf.task import Frozen, Scalar, Task


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
    needs: Mapping[str, Record] = field(default_factory=dict)
    """The records, without measurements, of the tasks that this one needs, by stage."""

    def found(self, kind: str) -> Path | None:
        """Return the artifact of a kind that a needed task left; None if none did.

        Raises StageError for one that is no longer what that task wrote.
        """
        left = (record.artifacts.get(kind) for record in self.needs.values())
        return next((artifact.verified(self.run) for artifact in left if artifact), None)

    def maker(self, kind: str) -> Record | None:
        """Return the record of the task that left an artifact; None if none did."""
        return next((record for record in self.needs.values() if kind in record.artifacts), None)

    def keep(self, *measurements: Measurement) -> None:
        """Keep these if the system ends this process because memory is short; the task is then started again."""
        store.keep(self.run, self.task, measurements)

    def kept(self) -> tuple[Measurement, ...]:
        """Return what a process of this task kept before the system ended it; nothing where none was ended."""
        return store.kept(self.run, self.task)

    def artifact(self, kind: str, name: str) -> Path:
        """Return the path for an artifact of this task (`weights`, `weights.pt`) and enter it in the record."""
        folder = self.run / "artifacts" / self.task.key
        folder.mkdir(parents=True, exist_ok=True)
        self.artifacts[kind] = str((folder / name).relative_to(self.run))
        return folder / name


def stages_leaving(artifact: str) -> tuple[str, ...]:
    """List the stages that leave an artifact, as `LEAVES` in their files declares."""
    return tuple(
        name for name in registry.names("stages") if artifact in registry.declared("stages", name).get("LEAVES", ())
    )


class Settings(Frozen):
    """A stage's section: every field a key of the suite's TOML, with its default, its bounds and a description."""

    needs: ClassVar[tuple[str, ...]] = ()
    """Artifacts that it cannot do without; the stages that leave them stand before it in the suite."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Artifacts that it reads if a stage before it leaves them; `resolve` is told the sections of such stages."""
    takes_extras: ClassVar[bool] = False
    """Whether a network may return more than its logits; of what it returns these come first."""

    @classmethod
    def resolve(cls, model_recipe: Mapping[str, Any], section: Mapping[str, Any], override: Mapping[str, Any]) -> Self:
        """Lay the model's override on the suite's section. Raises ValidationError.

        model_recipe: what the model's file recommends for training and, over it, the sections of the stages that this
        one reads; a stage that has no use for it passes it over, as here.
        """
        return cls.model_validate({**section, **override}, strict=True)

    def variants(self, device: str) -> tuple[dict[str, Scalar], ...]:
        """Return what a cell's tasks of this stage differ in: one task each."""
        return ({},)

    def needed(self, variant: Mapping[str, Scalar]) -> tuple[str, ...]:
        """Return the artifacts that a variant cannot do without."""
        return self.needs

    def takes_onnx(self, variant: Mapping[str, Scalar]) -> bool:
        """Tell whether a variant can do with an ONNX file in a network's place."""
        return False

    def reference_images(self) -> int | None:
        """Return of how many test images the stage leaves torch's logits; None if of none."""
        return None

    def quick(self) -> Self:
        """Return the settings with the budget cut to a few seconds."""
        return self

    def agree(self, before: Mapping[str, Settings]) -> None:
        """Raise UsageError for what the settings of the stages before it in the suite, by name, make impossible."""

    def check(self, device: str, train_count: int, test_count: int) -> None:
        """Raise UsageError for what only shows beside the device or the dataset's size."""

    def estimate_s(self, variant: Mapping[str, Scalar]) -> float | None:
        """Return the seconds that the budget plans for; None if it is not in seconds."""
        return None

    def planned_samples(self, train_count: int) -> int | None:
        """Return the number of training images in the budget, where it is not in seconds."""
        return None
