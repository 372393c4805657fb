"""The `[profile]` section of a suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from cnnperf.bench import Images, Pace, Settings
from cnnperf.errors import UsageError
from cnnperf.task import DEFAULT_PROFILE_MODE, ProfileMode, Scalar
from cnnperf.training.recipe import BUDGET_SETTINGS, Recipe, layered

NOT_PROFILED = (*BUDGET_SETTINGS, "processes", "sync_batch_norm")
"""Settings of a training that its profile does not have: steps of one process are profiled."""
QUICK_SAMPLES = 3
OTHER_STEPS = 17
"""Approximate steps of warm-up, arithmetic, memory and trace."""
PROBES_S = 3.0
"""Approximate seconds of the probes of the machine."""
BatchSizes = Annotated[
    tuple[Annotated[int, Field(ge=1, le=2**20)], ...],
    # TOML and JSON have no tuples.
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    Field(min_length=1),
]


class Profile(Settings):
    """Profiling: training or inference, the batch sizes and the number of samples."""

    reads: ClassVar[tuple[str, ...]] = ("weights",)
    takes_extras: ClassVar[bool] = True

    mode: ProfileMode = Field(
        default=DEFAULT_PROFILE_MODE, description="Profile training steps, or forward passes in evaluation mode."
    )
    batch_sizes: BatchSizes = Field(
        default_factory=lambda: (Recipe.model_fields["batch_size"].default,),
        description="Images per step; one profile for each. Absent: batch_size of `train` below, else of the model's "
        "train table, [train] or the model's recipe, whichever is found first, else 128.",
    )
    samples: int = Field(
        default=10,
        ge=1,
        le=10_000,
        description="Steps with hooks, alternating with as many without; on a GPU laps of steps, of 0.1 s each.",
    )
    trace_steps: int = Field(default=2, ge=1, le=100, description="Steps in the torch.profiler trace.")
    train: dict[str, Any] = Field(
        default={},
        description="The training whose steps are profiled (optimizer, precision, memory_format, flip …), as in "
        "[train]. What it leaves out: as the cell's training has it, except `compile` and `processes`: a profile is "
        "always of the eager network, whose layers have hooks, in one process.",
    )

    @classmethod
    def resolve(cls, model_recipe: Mapping[str, Any], section: Mapping[str, Any], override: Mapping[str, Any]) -> Self:
        """Merge the training's settings, the suite's section and the model's override. Raises ValidationError.

        The training's budget is dropped, and with it test_curve, which needs a budget in epochs, and processes.
        """
        merged: dict[str, Any] = {**section, **override}
        training = layered(model_recipe, section.get("train", {}), override.get("train", {}))
        merged["train"] = {key: value for key, value in training.items() if key not in NOT_PROFILED}
        if "batch_size" in training:
            merged.setdefault("batch_sizes", (training["batch_size"],))
        return cls.model_validate(merged, strict=True)

    @model_validator(mode="after")
    def _check_training(self) -> Self:
        self.recipe(self.batch_sizes[0])
        return self

    def recipe(self, batch_size: int) -> Recipe:
        """Return the training whose steps are profiled.

        Nothing is validated or tested: no images are reserved for it, so that a small dataset can be profiled too, and
        settings that would contradict this have no effect.
        """
        changed = {"steps": 1, "batch_size": batch_size, "compile": False}
        unvalidated = {"validation_images": 0, "target_accuracy": None, "stop_at_target": True}
        untested = {"test_images": None, "normalize_eval": True}
        return Recipe.model_validate({**self.train, **changed, **unvalidated, **untested}, strict=True)

    def check(self, device: str, train_count: int, test_count: int) -> None:
        """Raise UsageError if the settings do not suit the device or the dataset's size."""
        for batch_size in self.batch_sizes:
            try:
                self.recipe(batch_size).check(device, train_count, test_count)
            except UsageError as error:
                raise UsageError(f"batch_sizes {batch_size}: {error}") from error

    def takes_steps(self) -> bool:
        """Return whether training steps are profiled."""
        return self.mode == "train"

    def quick(self) -> Self:
        """Return the settings with a few samples only."""
        return self.model_copy(update={"samples": min(self.samples, QUICK_SAMPLES)})

    def work_s(self, variant: Mapping[str, Scalar], pace: Pace, images: Images) -> float:
        """Return the seconds of all steps and of the probes."""
        call = pace.step if self.takes_steps() else pace.forward
        return PROBES_S + self._steps * sum(call(batch_size) for batch_size in self.batch_sizes)

    def step_settings(self) -> Mapping[str, Any]:
        """Return the settings of the training whose steps are profiled."""
        return self.recipe(self.batch_sizes[0]).step_settings()

    @property
    def _steps(self) -> int:
        return 2 * self.samples + OTHER_STEPS + self.trace_steps

    def planned_samples(self, train_count: int) -> int:
        """Return the images of all steps."""
        return sum(self.batch_sizes) * self._steps


def flattened(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recorded settings of a profile, those of its training each by itself: `train.batch_size`."""
    others = {name: value for name, value in settings.items() if name != "train"}
    training = settings.get("train")
    of_training = training if isinstance(training, Mapping) else {}
    return {**others, **{f"train.{name}": value for name, value in of_training.items()}}


def compiles(settings: Mapping[str, Any]) -> bool:
    """Return whether the training of recorded settings compiles its network, which the profile does not."""
    return bool(flattened(settings).get("train.compile"))
