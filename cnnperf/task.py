"""Cells and tasks: a choice of dataset, model and device makes a cell; a cell and a stage make a task."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

Scalar = str | int | float | bool

Waiting = Literal["spin", "brief", "passive"]
"""How long a thread spins while it waits for work, before it yields its core: the library's default, some tens of
microseconds, or not at all."""
DEFAULT_WAITING: Waiting = "brief"
Allocator = Literal["keep", "system"]
"""Policy of the C library for freed memory: keep it for the next call, or return it to the system by its default."""
DEFAULT_ALLOCATOR: Allocator = "keep"
ProfileMode = Literal["train", "infer"]
"""Work that is profiled: training steps, or forward passes in evaluation mode."""
DEFAULT_PROFILE_MODE: ProfileMode = "train"
DEFAULT_DATASET = "cifar10"
"""Dataset of a network that is measured without a suite."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Environment variables that set the number of threads of numerical libraries."""


class Frozen(BaseModel):
    """Base of immutable models that forbid unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Choice(Frozen):
    """A choice from a room and its options; in TOML a name, or a table `{name, options…, train = {…}}`."""

    name: Annotated[str, Field(min_length=1)]
    options: dict[str, Scalar | tuple[Scalar, ...]] = {}
    sections: dict[str, dict[str, Any]] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_toml(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, Mapping) or "name" not in value:
            raise ValueError("give a name, or a table with a name")
        rest = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items() if key != "name"}
        sections = {key: item for key, item in rest.items() if isinstance(item, Mapping)}
        options = {key: item for key, item in rest.items() if key not in sections}
        return {"name": value["name"], "options": options, "sections": sections}

    @model_serializer(mode="wrap")
    def _to_toml(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        return {"name": plain["name"], **plain["options"], **plain["sections"]}

    @property
    def is_onnx(self) -> bool:
        """Whether the name is an ONNX file, which is run unchanged."""
        return self.name.endswith(".onnx")

    def __str__(self) -> str:
        nested = [(f"{s}.{key}", v) for s, section in self.sections.items() for key, v in section.items()]
        pairs = [f"{key}={_plain(value)}" for key, value in (*self.options.items(), *nested)]
        return f"{self.name}[{','.join(pairs)}]" if pairs else self.name

    def __hash__(self) -> int:
        return hash(str(self))


class Provenance(Frozen):
    """Origin and identity of the images; stored in every record."""

    name: str
    """Name of the dataset actually used: `mnist`, `cifar10`, `synthetic`; may differ from the suite's dataset."""
    source: str
    """Source of the images: a root's name, a download address, or the generator's seed."""
    sha256: str
    """SHA-256 over the four arrays, in order: training images, training labels, test images, test labels."""
    train_count: int
    test_count: int
    shape: tuple[int, int, int]
    """C×H×W of one image."""
    num_classes: int
    fallback: str | None = None
    """Reason for the use of substitute images; None if the images are those of the suite."""


class Cell(Frozen):
    """Dataset × model × device: the row of a leaderboard."""

    dataset: Choice
    model: Choice
    device: Choice

    @property
    def id(self) -> str:
        """Name the cell, such as `cifar10/resnet[depth=18]/cpu`."""
        return f"{self.dataset}/{self.model}/{self.device}"

    def matches(self, pattern: str) -> bool:
        """Return whether a glob matches this cell or its dataset, model or device."""
        parts = (self.id, *map(str, (self.dataset, self.model, self.device)), self.model.name)
        return any(part == pattern or fnmatch.fnmatchcase(part, pattern) for part in parts)


class Task(Frozen):
    """One execution of one stage of one cell, in a fresh process."""

    cell: Cell
    stage: str
    repeat: int = 0
    seed: int
    threads: int | None
    """Number of compute threads; None until preflight has counted the cores."""
    waiting: Waiting | None = None
    """Waiting policy; None, like the allocator, in records of versions that left it to the shell."""
    allocator: Allocator | None = None
    timeout_s: float
    settings: dict[str, Any] = {}
    """The stage's section; after preflight it includes every default and the model's recipe."""
    variant: dict[str, Scalar] = {}
    """Settings that distinguish the task from others of its stage and cell, such as the engine."""
    needs: tuple[str, ...] = ()
    """Keys of the tasks whose artifacts this task reads; a change in a training thus changes dependent keys."""
    data: Provenance | None = None
    """The images that the task reads; None until preflight has found them."""
    suite: str = ""
    """Name of the suite that planned the task."""

    @cached_property
    def key(self) -> str:
        """Hash of all fields that affect the result."""
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def content(self) -> dict[str, Any]:
        """All fields that affect the result: all but the timeout, the suite and the source of the data."""
        content = self.model_dump(mode="json", exclude={"timeout_s": True, "suite": True, "data": {"source"}})
        # Omitted if empty, so that tasks made before these fields existed keep their keys.
        return {name: value for name, value in content.items() if value or name not in _LATER}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields changed and its key computed anew."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("key", None)
        return copied

    @property
    def label(self) -> str:
        """Name the task for a reader: cell, stage, variant and, if there are several, the repeat."""
        variant = "".join(f" {_plain(value)}" for value in self.variant.values())
        repeat = f" repeat {self.repeat}" if self.repeat else ""
        return f"{self.cell.id} {self.stage}{variant}{repeat}"


_LATER = ("variant", "needs", "waiting", "allocator")
"""Fields that the first version of a task did not have."""


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return "×".join(map(_plain, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
