"""A stage's inputs: the bench (task, device, dataset) and the settings of its section.

A stage's file may declare further properties, which `registry.declared` reads:

IS_DEFAULT = True           a suite without `stages` has this stage
LEAVES = ("weights",)       kinds of the artifacts that the stage writes
UNTIMED = ("seconds",)      settings that change neither its step nor the forward pass; only of the one stage that
                            `cnnperf ab` compares
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from cnnperf import registry
from cnnperf.datasets import Dataset
from cnnperf.devices import Device
from cnnperf.errors import UsageError
from cnnperf.record import Measurement, Record, keep, kept
from cnnperf.task import Frozen, Scalar, Task


def _unheard(words: str) -> None:
    """Ignore what a stage says."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The inputs of a stage: task, device, dataset and run folder; artifacts are entered here."""

    task: Task
    device: Device
    dataset: Dataset
    run: Path
    """The run folder."""
    progress: Callable[..., None]
    """`progress(step=…, loss=…)`: numbers for the screen; may be called at any rate outside the timed part."""
    artifacts: dict[str, str] = field(default_factory=dict)
    """Files that the task wrote, by kind, as paths relative to the run folder; stored in the record."""
    needs: Mapping[str, Record] = field(default_factory=dict)
    """Records of the tasks that this task needs, by stage, without measurements."""

    phase: Callable[[str], None] = _unheard
    """`phase("training")`: the name of the work that begins, for the error of a task that runs out of time."""
    abandon: Callable[[str], None] = _unheard
    """`abandon("rank 1 was killed")`: ends the process with this error in the record, from a thread that sees that the
    main one hangs in a call of a library."""

    def found(self, kind: str) -> Path | None:
        """Return the artifact of this kind that a needed task wrote; None if there is none.

        Raises StageError if the file has changed since.
        """
        left = (record.artifacts.get(kind) for record in self.needs.values())
        return next((artifact.verified(self.run) for artifact in left if artifact), None)

    def maker(self, kind: str) -> Record | None:
        """Return the record of the needed task that wrote an artifact of this kind; None if there is none."""
        return next((record for record in self.needs.values() if kind in record.artifacts), None)

    def keep(self, *measurements: Measurement) -> None:
        """Save measurements that survive if the system kills this process for lack of memory and the task restarts."""
        keep(self.run, self.task, measurements)

    def kept(self) -> tuple[Measurement, ...]:
        """Return the measurements saved by an earlier, killed process of this task; empty if there was none."""
        return kept(self.run, self.task)

    def artifact(self, kind: str, name: str) -> Path:
        """Return the path for an artifact of this task (`weights`, `weights.pt`) and enter it in the record."""
        folder = self.run / "artifacts" / self.task.key
        folder.mkdir(parents=True, exist_ok=True)
        self.artifacts[kind] = str((folder / name).relative_to(self.run))
        return folder / name


def stages_leaving(artifact: str, others: Iterable[str] = ()) -> tuple[str, ...]:
    """List the stages that write an artifact of this kind: those that ship, and `others` of a suite."""
    return tuple(name for name in dict.fromkeys((*registry.names("stages"), *others)) if artifact in left_by(name))


def left_by(stage: str) -> tuple[str, ...]:
    """Return the artifacts that a stage writes, as its file declares by `LEAVES`; empty for a stage that is absent."""
    try:
        return tuple(registry.declared("stages", stage).get("LEAVES", ()))
    except UsageError:
        return ()


HOLD_WEIGHTS = ("weights", "onnx")
"""Artifacts that contain a network's weights; where they lie beside an ONNX file, in `onnx_data`, they count once."""


def weight_files(stage: str) -> int:
    """Return how many copies of the network's weights a task of this stage leaves in the run folder."""
    return sum(artifact in left_by(stage) for artifact in HOLD_WEIGHTS)


@cache
def trains(stage: str) -> bool:
    """Return whether a stage is a training: it writes weights."""
    return "weights" in left_by(stage)


def metrics_of(stage: str) -> str:
    """Return the first word of a stage's metrics: `train` for every training, else the stage's name."""
    return "train" if trains(stage) else stage


class Images(Protocol):
    """The images of a dataset, as far as estimates depend on them."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image, C×H×W."""

    @property
    def train_count(self) -> int:
        """Number of training images."""

    @property
    def test_count(self) -> int:
        """Number of test images."""


class Pace(Frozen):
    """Seconds of a network's training step and forward pass on this machine, each at one or two numbers of images."""

    step_s: Mapping[int, float]
    """Seconds by the number of images."""
    forward_s: Mapping[int, float]

    def step(self, images: int) -> float:
        """Return the seconds of a training step."""
        return _on_line(self.step_s, images)

    def forward(self, images: int) -> float:
        """Return the seconds of a forward pass."""
        return _on_line(self.forward_s, images)


def _on_line(seconds: Mapping[int, float], images: int) -> float:
    """Return the seconds on the line through the points; in proportion to the images if there is one."""
    (few, low), (many, high) = min(seconds.items()), max(seconds.items())
    if few == many:
        return high * images / many
    slope = max(0.0, (high - low) / (many - few))
    return max(high + slope * (images - many), low * min(1.0, images / few))


class Settings(Frozen):
    """A stage's section: each field is a key of the suite's TOML with a default, bounds and a description."""

    needs: ClassVar[tuple[str, ...]] = ()
    """Artifacts that the stage requires; the suite lists the stages that write them before this one."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Artifacts that the stage reads if an earlier stage writes them; `resolve` receives those stages' sections."""
    takes_extras: ClassVar[bool] = False
    """Whether a network may return unnamed values after its logits."""

    @classmethod
    def resolve(cls, model_recipe: Mapping[str, Any], section: Mapping[str, Any], override: Mapping[str, Any]) -> Self:
        """Apply the model's override to the suite's section. Raises ValidationError.

        model_recipe: the training settings that the model's file recommends, updated by the sections of the stages that
        this one reads. A stage may ignore it, as this default does.
        """
        return cls.model_validate({**section, **override}, strict=True)

    def variants(self, device: str) -> tuple[dict[str, Scalar], ...]:
        """Return the variants of this stage in a cell; each variant is one task."""
        return ({},)

    def needed(self, variant: Mapping[str, Scalar]) -> tuple[str, ...]:
        """Return the artifacts that a variant requires."""
        return self.needs

    def takes_onnx(self, variant: Mapping[str, Scalar]) -> bool:
        """Return whether a variant accepts an ONNX file as its model."""
        return False

    def takes_steps(self) -> bool:
        """Return whether the stage takes training steps; otherwise the network stays in evaluation mode."""
        return False

    def device_count(self, device: str) -> int:
        """Return the number of devices of this kind that the stage uses at once, from the cell's index on."""
        return 1

    def reference_images(self) -> int | None:
        """Return the number of test images whose torch logits the stage writes; None if it writes none."""
        return None

    def quick(self) -> Self:
        """Return the settings with the budget cut to a few seconds."""
        return self

    def at_batch(self, batch: int) -> Self:
        """Return the settings for a network that takes batches of this size only. Raises UsageError for other sizes."""
        return self

    def agree(self, before: Mapping[str, Settings]) -> None:
        """Raise UsageError if these settings contradict those of earlier stages, given by name."""

    def check(self, device: str, train_count: int, test_count: int) -> None:
        """Raise UsageError if the settings do not suit the device or the dataset's size."""

    def estimate_s(self, variant: Mapping[str, Scalar]) -> float | None:
        """Return the budget in seconds; None if the budget has another unit."""
        return None

    def step_settings(self) -> Mapping[str, Any]:
        """Return the settings on which the time of the stage's training step depends; empty if it takes none."""
        return {}

    def work_s(self, variant: Mapping[str, Scalar], pace: Pace, images: Images) -> float:
        """Return the estimated seconds of a variant for a network of this pace, without the start of its process."""
        return self.estimate_s(variant) or 0.0

    def planned_samples(self, train_count: int) -> int | None:
        """Return the budget in training images; None if the budget is in seconds."""
        return None


def settings_of(stage: str) -> type[Settings]:
    """Return the class of a stage's section: the annotation of a parameter of its verb. Raises UsageError."""
    measure = inspect.unwrap(registry.find("stages", stage))
    for parameter in inspect.signature(measure).parameters.values():
        kind = registry.evaluated(parameter.annotation, measure)
        if inspect.isclass(kind) and issubclass(kind, Settings):
            return kind
    raise UsageError(
        f"{stage!r}: no parameter is annotated with a subclass of cnnperf.stages.Settings; annotate the second one"
    )
