"""The `[infer]` section of a suite: the engines and the batches."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from cnnperf import registry
from cnnperf.bench import Images, Pace, Settings
from cnnperf.engines import FILES, GIVEN, NETWORKS, abilities, baseline_of
from cnnperf.errors import UsageError, first_error
from cnnperf.inference.inputs import GOLDEN_IMAGES, QUICK_TEST_IMAGES, TEST_BATCH, TEST_IMAGES
from cnnperf.task import Choice, Scalar
from cnnperf.timing.sampling import SPAN
from cnnperf.training.recipe import number_of

LATENCY_WARMUP_S = 10.0
"""Maximum warm-up time at a batch size."""
NODE_RUNS = 20
"""Runs in which each layer is timed."""
AUTO_SIZES = tuple(2**power for power in range(8))
"""Batch sizes that `auto` usually tries; for estimates only."""
COMPARED_IMAGES = 3 * GOLDEN_IMAGES // 4
"""Images whose logits are compared, at three batch sizes; for estimates only."""
LARGEST = 4096
"""Largest batch size that `auto` tries."""
LARGEST_REQUESTED = 2**16
"""Largest batch size that a suite may request."""


def _listed(value: Any) -> Any:
    """TOML and JSON have arrays, settings have tuples."""
    return tuple(value) if isinstance(value, list) else value


def _chosen(value: Any) -> Choice:
    try:
        return value if isinstance(value, Choice) else Choice.model_validate(value)
    except ValidationError as error:
        raise ValueError(first_error(error)) from error


def _sized(value: Any) -> Any:
    """Report one error for batch sizes: pydantic would report one for each of the two permitted types."""
    value = _listed(value)
    if value == "auto" or (
        isinstance(value, tuple)
        and value
        and all(type(size) is int and 1 <= size <= LARGEST_REQUESTED for size in value)
    ):
        return value
    listed = "" if isinstance(value, tuple) else " in a list"
    raise ValueError(f"give whole numbers from 1 to {LARGEST_REQUESTED:,}{listed}, or 'auto' alone")


Size = Annotated[int, Field(ge=1, le=LARGEST_REQUESTED)]
EngineChoice = Annotated[Choice, BeforeValidator(_chosen)]


class Infer(Settings):
    """Inference: the engines, the batch sizes and the number of calls and pairs."""

    reads: ClassVar[tuple[str, ...]] = ("weights",)

    engines: Annotated[tuple[EngineChoice, ...], BeforeValidator(_listed)] = Field(
        default=tuple(Choice(name=baseline_of(kind)) for kind in (NETWORKS, FILES)),
        min_length=1,
        description="Engines: a name (cnnperf list engines), or {name, options…}.",
    )
    batch_sizes: Annotated[
        Literal["auto"] | Annotated[tuple[Size, ...], Field(min_length=1)], BeforeValidator(_sized)
    ] = Field(
        default=(1, 32), description="Images per batch; auto doubles from 1 until the throughput stops rising by 3 %."
    )
    samples: int = Field(
        default=64,
        ge=11,
        description="Minimum number of timed calls; a p90 needs at least 64, a p99 662, more if calls depend on "
        "each other.",
    )
    seconds: float = Field(default=1.0, ge=0, allow_inf_nan=False, description="Minimum seconds of timed calls.")
    pairs: int = Field(
        default=6,
        ge=0,
        le=100,
        description="Fresh pairs of processes, engine and torch in turns; 0: the speed-up is the ratio of separate "
        "latencies, without an interval.",
    )
    test_images: int = Field(
        default=TEST_IMAGES,
        ge=1,
        description="Test images whose classes are compared; at most those of [export], to which the default is "
        "lowered.",
    )
    max_accuracy_drop: float = Field(
        default=0.02, ge=0, le=1, description="Largest accuracy drop from torch with which an engine is still ranked."
    )

    @model_validator(mode="after")
    def _check_engines(self) -> Infer:
        for engine in self.engines:
            if absent := registry.unknown_in("engines", engine.name):
                raise ValueError(absent)
            options = registry.options(registry.find("engines", engine.name), GIVEN)
            for key in (*engine.options, *engine.sections):
                if key not in options.model_fields:
                    raise ValueError(f"{engine.name}: {registry.unknown('option', key, options.model_fields)}")
            try:
                options.model_validate(engine.options, strict=True)
            except ValidationError as error:
                raise ValueError(first_error(error, engine.name)) from error
        for name in ("engines", "batch_sizes"):
            given = getattr(self, name)
            if given != "auto" and len(set(given)) < len(given):
                raise ValueError(f"{name} has a duplicate; remove it")
        return self

    def engine(self, variant: Mapping[str, Scalar]) -> Choice:
        """Return the engine of a task."""
        return next(engine for engine in self.engines if str(engine) == variant["engine"])

    def variants(self, device: str) -> tuple[dict[str, Scalar], ...]:
        """Return a task for each engine."""
        return tuple({"engine": str(engine)} for engine in self.engines)

    def needed(self, variant: Mapping[str, Scalar]) -> tuple[str, ...]:
        """Return the artifacts that the engine loads."""
        loads = abilities(self.engine(variant).name).loads
        return (loads,) if loads else ()

    def agree(self, before: Mapping[str, Settings]) -> None:
        """Raise UsageError if test_images exceeds the number of logits that a stage writes."""
        are_read = any(self.needed(variant) for variant in self.variants(""))
        if not are_read or "test_images" not in self.model_fields_set:
            return
        for stage, of_stage in before.items():
            left = of_stage.reference_images()
            if left is not None and self.test_images > left:
                raise UsageError(
                    f"test_images {self.test_images:,} is more than the {left:,} of [{stage}], which gives the logits; "
                    f"lower it, or raise test_images of [{stage}]"
                )

    def at_batch(self, batch: int) -> Infer:
        """Return the settings with this batch size alone. Raises UsageError if the suite names another."""
        if "batch_sizes" in self.model_fields_set and self.batch_sizes != (batch,):
            raise UsageError(f"batch_sizes: the file takes batches of {batch} only; give {batch} alone, or none")
        return self.model_copy(update={"batch_sizes": (batch,)})

    def takes_onnx(self, variant: Mapping[str, Scalar]) -> bool:
        """Return whether the engine loads an ONNX file."""
        return "onnx" in self.needed(variant)

    def quick(self) -> Infer:
        """Return the settings with fewer samples and no pairs."""
        return self.model_copy(
            update={"samples": 11, "seconds": 0.1, "pairs": 0, "test_images": min(self.test_images, QUICK_TEST_IMAGES)}
        )

    def work_s(self, variant: Mapping[str, Scalar], pace: Pace, images: Images) -> float:
        """Return the seconds of an engine as fast as torch: warm-up, calls, parity and layers beside the turns."""
        sizes = AUTO_SIZES if self.batch_sizes == "auto" else self.batch_sizes
        calls = [pace.forward(size) for size in sizes]
        timed_s = sum(
            max(call, min(LATENCY_WARMUP_S, 2 * SPAN * call)) + max(self.seconds, self.samples * call) for call in calls
        )
        count = min(self.test_images, images.test_count) + COMPARED_IMAGES
        compared_s = count * pace.forward(TEST_BATCH) / TEST_BATCH
        turns_s = 2 * self._pairs(variant) * sum(calls)
        others_s = self.estimate_s(variant) - len(sizes) * self.seconds
        return timed_s + compared_s + NODE_RUNS * calls[-1] + turns_s + others_s

    def _pairs(self, variant: Mapping[str, Scalar]) -> int:
        return 0 if self.engine(variant).name == baseline_of(NETWORKS) else self.pairs

    def estimate_s(self, variant: Mapping[str, Scalar]) -> float:
        """Return the estimated seconds of an engine: processes, turns and compilation for each pair."""
        name, sizes = self.engine(variant).name, len(AUTO_SIZES if self.batch_sizes == "auto" else self.batch_sizes)
        compiling = abilities(name).compile_s * sizes
        return sizes * (1 + self.seconds) + 3 * compiling + self._pairs(variant) * (2 + 1.5 * sizes + compiling)


def engines_of(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the engines in the settings of a stored task, with their options; none if they do not state them."""
    engines = settings.get("engines")
    found: list[str] = []
    for each in engines if isinstance(engines, list | tuple) else ():
        with suppress(ValidationError):
            found.append(str(Choice.model_validate(each)))
    return tuple(found)


def allowed_drop(settings: Mapping[str, Any]) -> float | None:
    """Return the permitted accuracy drop of an engine in the settings of a stored task; None if they state none."""
    return number_of(settings, "max_accuracy_drop")
