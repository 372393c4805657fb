"""The `[train]` section of a suite: its settings, their defaults and contradictions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from cnnperf.bench import Images, Pace, Settings
from cnnperf.errors import UsageError
from cnnperf.task import Scalar

Count = Annotated[int, Field(ge=1, lt=2**53)]
Rate = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Damping = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]

BUDGETS = ("epochs", "steps", "samples", "seconds")
BUDGET_SETTINGS = (*BUDGETS, "test_curve")
"""The budgets, and the setting that needs one in epochs."""
OPTIMIZER_SETTINGS = ("lr", "bias_lr", "momentum", "weight_decay")
"""Settings that are tuned for one optimizer and do not suit another."""
DEFAULT_OPTIMIZER: Final = "adamw"
DEFAULT_LR = {"sgd": 0.05, "nesterov": 0.05, "adamw": 0.001, "muon": 0.05}
FORWARD_SETTINGS = ("batch_size", "precision", "memory_format", "compile")
"""Settings that affect the work of a forward pass on images that are normalised already."""
STEP_SETTINGS = ("optimizer", "precision", "memory_format", "muon_steps")
"""Settings that affect the time of an eager step, beside the batch size."""
COLORS = 3
"""Channels of a colour image: red, green and blue."""
LARGEST_NUMBER = 1e100
"""Largest number of recorded settings that is computed with."""
EVALUATION_SHARE = 1 / 4
"""Maximum evaluation time as a share of the training seconds, unless the minimum number of images takes longer."""
SUBSETS = (5000, 2000)
"""Numbers of images to evaluate if all are too many; the last is the minimum."""
MOST_POINTS = 20
"""Maximum points of a validation curve."""
UNTIMED_STEPS, UNTIMED_TESTS = 5, 5
"""Approximate steps and batches in evaluation before the training; for estimates only."""
QUICK_S = 3.0
OF_PROCESSES = ("cpu", "cuda")
"""Devices on which several processes can train one network."""


class Recipe(Settings):
    """Training: the budget, the optimizer, the learning rate and the augmentation."""

    epochs: Count | None = Field(
        default=None,
        description="Budget: passes over the training images; an epoch's last, partial batch is dropped. Without any "
        "budget: 1.",
    )
    steps: Count | None = Field(default=None, description="Budget: optimizer steps.")
    samples: Count | None = Field(
        default=None, description="Budget: training images, with repetitions; the step that reaches it is the last."
    )
    seconds: Seconds | None = Field(
        default=None, description="Budget: seconds of training; loading, compiling, warm-up and evaluation not counted."
    )
    target_accuracy: Share | None = Field(
        default=None, description="Report the time to this accuracy on the validation images, and stop there."
    )
    stop_at_target: bool = Field(
        default=True,
        description="Whether target_accuracy ends the training, at a validation, whose step depends on measured speed; "
        "false uses the whole budget.",
    )
    validation_images: int = Field(
        default=5000, ge=0, description="Training images reserved for validation, by a fixed seed; 0 trains on all."
    )
    test_images: Count | None = Field(
        default=None,
        description="Test images for the final accuracy, a fixed choice; absent: the largest of all, 5000 and 2000 "
        "that fits into what validation left of a quarter of the training seconds, the smallest of them if none does.",
    )
    test_flip: bool = Field(
        default=False,
        description="Also test with the mean logits of each image and its mirror image, in a separate column.",
    )
    batch_size: int = Field(default=128, ge=1, le=2**20, description="Images per step, and per evaluation batch.")
    optimizer: Literal["sgd", "nesterov", "adamw", "muon"] = Field(
        default=DEFAULT_OPTIMIZER,
        description="muon: orthogonalised momentum for all matrices but the classifier's, nesterov for the rest.",
    )
    lr: Rate = Field(
        default_factory=lambda fields: DEFAULT_LR[fields["optimizer"]],
        description="Peak learning rate; absent: 0.001 for adamw, 0.05 for the others.",
    )
    bias_lr: Rate = Field(
        default_factory=lambda fields: fields["lr"],
        description="Peak learning rate of biases and norms; absent: the same as lr.",
    )
    momentum: Damping = Field(default=0.9, description="Momentum of sgd, nesterov and of muon's nesterov part.")
    weight_decay: Rate = Field(default=0.0, description="L2 penalty; decoupled in adamw, and in muon's matrices.")
    muon_lr: Rate = Field(default=0.1, description="Peak learning rate of the matrices under muon.")
    muon_momentum: Damping = Field(default=0.6, description="Nesterov momentum of the matrices under muon.")
    muon_steps: int = Field(default=3, ge=1, le=20, description="Newton–Schulz iterations per step of muon.")
    muon_renormalise: bool = Field(default=True, description="With muon, rescale each matrix to the norm √rows.")
    schedule: Literal["constant", "cosine", "one-cycle"] = Field(
        default="one-cycle", description="Learning rate over the budget; one-cycle rises for `warmup`, then falls to 0."
    )
    warmup: Damping = Field(default=0.1, description="Share of the budget over which one-cycle rises.")
    label_smoothing: Damping = Field(
        default=0.0, description="Share of the target distributed evenly over all classes."
    )
    flip: Literal["none", "random", "alternating"] = Field(
        default="none", description="Mirror images horizontally: at random, or in every other epoch."
    )
    crop: int = Field(
        default=0, ge=0, le=64, description="Pixels of padding before a random crop to the original size; 0: off."
    )
    crop_padding: Literal["zeros", "reflect"] = Field(default="zeros", description="Content of the padding.")
    grayscale: Share = Field(default=0.0, description="Probability that a colour image is converted to grey.")
    cutout: int = Field(
        default=0, ge=0, le=1024, description="Side in pixels of a square that is blanked at a random place; 0: off."
    )
    normalize: Literal["dataset", "half", "unit"] = Field(
        default="dataset", description="dataset: by its mean and standard deviation; half: to [-1, 1]; unit: to [0, 1]."
    )
    normalize_eval: bool = Field(
        default=True,
        exclude_if=bool,
        description="Test on images normalised as in training; false: also on raw pixels in [0, 1], in separate "
        "columns, to show the effect of that mistake.",
    )
    train_accuracy: Literal["before_step", "after_step"] = Field(
        default="before_step",
        exclude_if=lambda reading: reading == "before_step",
        description="Measure training accuracy before each step; after_step: also after every fifth step on the same "
        "batch, to show the bias of that method.",
    )
    test_curve: bool = Field(
        default=False,
        exclude_if=lambda is_asked: not is_asked,
        description="Test after every epoch, for a curve; needs a budget in epochs.",
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="bf16 and fp16 are autocast; fp16 scales its gradients and needs CUDA."
    )
    memory_format: Literal["contiguous", "channels_last"] = Field(
        default="contiguous", description="Order of images and weights in memory: N×C×H×W or N×H×W×C."
    )
    compile: bool = Field(default=False, description="Compile the network with torch.compile.")
    processes: int = Field(
        default=1,
        ge=1,
        le=1024,
        exclude_if=lambda number: number == 1,
        description="Processes that train the network together (DistributedDataParallel), each on an equal part of "
        "every batch: on CUDA one per GPU from the device's index on, with nccl; on the CPU each with its part of the "
        "threads, with gloo.",
    )
    sync_batch_norm: bool = Field(
        default=False,
        exclude_if=lambda is_asked: not is_asked,
        description="With several processes: batch norm by the statistics of the whole batch, which they exchange; "
        "false: each process by those of its part.",
    )

    @classmethod
    def resolve(cls, model_recipe: Mapping[str, Any], section: Mapping[str, Any], override: Mapping[str, Any]) -> Self:
        """Merge the model's recipe, the suite's section and the model's override as `layered` does.

        The default budget is one epoch. Raises ValidationError.
        """
        return cls.model_validate(layered({"epochs": 1}, model_recipe, section, override), strict=True)

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        given = [budget for budget in BUDGETS if getattr(self, budget) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(BUDGETS)}, got {' and '.join(given) or 'none'}")
        if self.target_accuracy is not None and not self.validation_images:
            raise ValueError("target_accuracy is measured on validation images; set validation_images above 0")
        if self.target_accuracy is None and not self.stop_at_target:
            raise ValueError("stop_at_target requires target_accuracy; give target_accuracy, or leave both out")
        if self.test_curve and not self.epochs:
            raise ValueError("test_curve tests after every epoch; give the budget in epochs, or leave it out")
        if not self.normalize_eval and self.normalize == "unit":
            raise ValueError(
                "normalize 'unit' trains on raw pixels, so normalize_eval = false has no effect; leave one out"
            )
        if self.optimizer == "nesterov" and not self.momentum:
            raise ValueError("optimizer 'nesterov' needs momentum above 0; use 'sgd' to train without")
        if self.optimizer == "muon" and self.precision == "fp16":
            raise ValueError("optimizer 'muon' does not take precision 'fp16', whose gradients are scaled; use 'bf16'")
        if self.processes > 1:
            self._refuse_for_several_processes()
        elif self.sync_batch_norm:
            raise ValueError("sync_batch_norm = true needs processes above 1; give processes, or leave it out")
        return self

    def _refuse_for_several_processes(self) -> None:
        if self.batch_size % self.processes:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by processes {self.processes}, each of which takes an "
                "equal part of a batch; change one of them"
            )
        if self.compile:
            raise ValueError("compile = true trains in one process; set processes = 1, or leave compile out")
        if self.train_accuracy == "after_step":
            raise ValueError(
                "train_accuracy 'after_step' evaluates whole batches, of which each of several processes has a part; "
                "leave it out, or set processes = 1"
            )

    def check(self, device: str, train_count: int, test_count: int) -> None:
        """Raise UsageError if the recipe does not suit the device or the dataset's size."""
        if self.processes > 1 and device not in OF_PROCESSES:
            raise UsageError(
                f"processes {self.processes} needs device {' or '.join(OF_PROCESSES)}, got {device}; set processes = 1"
            )
        if self.precision == "fp16" and device != "cuda":
            raise UsageError(f"precision 'fp16' needs device cuda, got {device}; use 'fp32' or 'bf16'")
        if self.validation_images >= train_count:
            raise UsageError(
                f"validation_images {self.validation_images:,} leaves none of the {train_count:,} training images; "
                "lower it"
            )
        if self.batch_size > (left := train_count - self.validation_images):
            raise UsageError(f"batch_size {self.batch_size:,} is more than the {left:,} training images; lower it")
        if (self.test_images or 0) > test_count:
            raise UsageError(f"test_images {self.test_images:,} is more than the {test_count:,} available; lower it")

    def takes_steps(self) -> bool:
        """Return True."""
        return True

    def device_count(self, device: str) -> int:
        """Return the number of devices in use at once: a GPU for each process."""
        return self.processes if device == "cuda" else 1

    def quick(self) -> Self:
        """Return the recipe with its budget cut to a few seconds."""
        seconds = min(self.seconds or QUICK_S, QUICK_S)
        return self.model_copy(update={**dict.fromkeys(BUDGETS), "seconds": seconds, "test_curve": False})

    def without_validation(self) -> Self:
        """Return the recipe of timed calls: all images for training, since nothing is validated, and one process."""
        return self.model_copy(update={"validation_images": 0, "processes": 1, "sync_batch_norm": False})

    def of_call(self) -> dict[str, Any]:
        """Return the settings of a timed call as a plain document, without those that no call reads."""
        return self.model_dump(mode="json", exclude={"validation_images"})

    def estimate_s(self, variant: Mapping[str, Scalar]) -> float | None:
        """Return the budget in seconds; None if the budget has another unit."""
        return self.seconds

    def work_s(self, variant: Mapping[str, Scalar], pace: Pace, images: Images) -> float:
        """Return the seconds of the budget, of the steps before it, and of the evaluations."""
        step_s, test_s = pace.step(self.batch_size), pace.forward(self.batch_size)
        steps, image_s = self.planned_steps(images.train_count), test_s / self.batch_size
        training_s = (self.seconds or 0.0) if steps is None else steps * step_s
        fewest = sum(min(SUBSETS[-1], count) for count in (self.validation_images, images.test_count))
        fewest += (self.epochs or 0) * images.test_count if self.test_curve else 0
        most_s = (MOST_POINTS * self.validation_images + images.test_count) * image_s
        evaluation_s = max(fewest * image_s, min(most_s, EVALUATION_SHARE * training_s))
        return training_s + UNTIMED_STEPS * step_s + UNTIMED_TESTS * test_s + evaluation_s

    def step_settings(self) -> Mapping[str, Any]:
        """Return the settings of the training whose steps are taken."""
        return {name: getattr(self, name) for name in STEP_SETTINGS}

    def planned_steps(self, train_count: int) -> int | None:
        """Return the steps in the budget for a dataset of this size; None if it is in seconds."""
        if self.epochs:
            return self.epochs * ((train_count - self.validation_images) // self.batch_size)
        if self.samples:
            return math.ceil(self.samples / self.batch_size)
        return self.steps

    def planned_samples(self, train_count: int) -> int | None:
        """Return the images in the budget, repetitions counted; None if it is in seconds."""
        steps = self.planned_steps(train_count)
        return steps and steps * self.batch_size


def normalization_of(settings: Mapping[str, Any]) -> str:
    """Return the normalisation of a training recorded with these settings; the default if they do not state it."""
    return str(settings.get("normalize", Recipe.model_fields["normalize"].default))


def mean_and_deviation(kind: str, mean: Sequence[float], std: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return the mean and the deviation of each channel by which a value of `normalize` scales pixels in [0, 1].

    mean, std: the dataset's, one value per channel.
    """
    if kind == "dataset":
        return list(mean), list(std)
    center, width = (0.5, 0.5) if kind == "half" else (0.0, 1.0)
    return [center] * len(mean), [width] * len(std)


def number_of(settings: Mapping[str, Any], name: str) -> float | None:
    """Return a number of recorded settings, which hold anything; None if they state none that can be computed with."""
    value = settings.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= LARGEST_NUMBER:
        return None
    return value


def images_per_step(settings: Mapping[str, Any]) -> int | None:
    """Return the images in a step of a training recorded with these settings; None if they state no number."""
    images = number_of(settings, "batch_size")
    return images if isinstance(images, int) and images > 0 else None


def unequal_images(one: Mapping[str, Any], other: Mapping[str, Any], stage: str) -> str | None:
    """Return the fault if calls with these settings of a stage take unequal numbers of images; else None."""
    if images_per_step(one) == images_per_step(other):
        return None
    setting = f"{stage}.batch_size"
    return f"a call takes different numbers of images on the two sides; set one {setting} in the suite for both"


def with_images_per_step(section: Mapping[str, Any], images: int) -> dict[str, Any]:
    """Return the settings of a section with another number of images in a step."""
    return {**section, "batch_size": images}


def label_smoothing_of(settings: Mapping[str, Any]) -> float | None:
    """Return the label smoothing of a training recorded with these settings; None if they do not state it."""
    return number_of(settings, "label_smoothing")


def target_of(settings: Mapping[str, Any]) -> float | None:
    """Return the accuracy to which recorded settings time the training, whether or not it ends there; None without."""
    return number_of(settings, "target_accuracy")


def timed(settings: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """Return resolved settings with all equal that make a step at learning rate 0 and a forward pass the same work.

    channels: of the images. A setting that the chosen optimizer or augmentation does not read, or that does not apply
    to such images, is left out; a factor is reduced to whether it is above 0, since its value changes numbers and no
    operation. Rates are reduced to whether biases have a group of their own.
    """
    found = {**settings, "bias_lr": settings["bias_lr"] == settings["lr"]}
    unread = ["lr", "muon_lr"]
    unread += ["momentum"] * (settings["optimizer"] == "adamw")
    unread += ["muon_momentum", "muon_steps", "muon_renormalise"] * (settings["optimizer"] != "muon")
    unread += ["crop_padding"] * (not settings["crop"])
    unread += ["grayscale"] * (channels != COLORS)
    factors = ("momentum", "muon_momentum", "weight_decay", "label_smoothing", "grayscale")
    found |= {name: found[name] > 0 for name in factors}
    return _without(found, tuple(unread))


def budget_of(settings: Mapping[str, Any]) -> str | None:
    """Describe the budget of recorded settings: `60 s`, `1 epoch`, `500 steps or until 90 %`; None if there is none.

    A target that does not end the training is not part of the budget.
    """
    for name in BUDGETS:
        if (amount := number_of(settings, name)) is not None:
            target = target_of(settings) if settings.get("stop_at_target", True) else None
            unit = "s" if name == "seconds" else name.removesuffix("s") if amount == 1 else name
            until = "" if target is None else f" or until {100 * target:.6g} %"
            return f"{amount:.15g} {unit}{until}"
    return None


def ways_to_equal_steps(trainings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what to change in the recorded settings of trainings that took unequal steps, so that they take equal."""
    recorded = list(trainings)
    is_cut = any(target_of(each) is not None and each.get("stop_at_target", True) for each in recorded)
    ways = ["set stop_at_target = false"] * is_cut
    if not is_cut or any(each.get("seconds") is not None for each in recorded):
        ways.insert(0, "give the budget in steps or epochs")
    return ways


def layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge layers of a training's settings; later ones have precedence.

    A layer with a budget replaces the earlier budget. A layer that changes the optimizer drops the earlier rates.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        if not layer.keys().isdisjoint(BUDGETS):
            merged = _without(merged, BUDGETS)
        if "optimizer" in layer and layer["optimizer"] != merged.get("optimizer", DEFAULT_OPTIMIZER):
            merged = _without(merged, OPTIMIZER_SETTINGS)
        merged |= layer
    return merged


def _without(settings: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in keys}
