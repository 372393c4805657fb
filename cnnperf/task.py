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
"""How a thread waits for work: it spins as long as its library does by default, for some tens of microseconds, or not
at all; then it gives its core away."""
DEFAULT_WAITING: Waiting = "brief"
Allocator = Literal["keep", "system"]
"""What the C library does with freed memory: it keeps it for the next call, or gives it back as it does by default."""
DEFAULT_ALLOCATOR: Allocator = "keep"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Environment variables by which libraries are told how many threads to compute with."""


class Frozen(BaseModel):
    """A value that does not change once made and takes no field it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Choice(Frozen):
    """One file of a room and its options; in TOML a name, or a table `{name, options…, train = {…}}`."""

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
        """Whether the name is that of an ONNX file, which is run as it is."""
        return self.name.endswith(".onnx")

    def __str__(self) -> str:
        nested = [(f"{s}.{key}", v) for s, section in self.sections.items() for key, v in section.items()]
        pairs = [f"{key}={_plain(value)}" for key, value in (*self.options.items(), *nested)]
        return f"{self.name}[{','.join(pairs)}]" if pairs else self.name

    def __hash__(self) -> int:
        return hash(str(self))


class Provenance(Frozen):
    """Where the images came from and what exactly they were; it goes into every record."""

    name: str
    """What the images are: `mnist`, `cifar10`, `synthetic`; not always what the suite asked for."""
    source: str
    """How they got here: a root's name, a download address, or how they were generated."""
    sha256: str
    """Over the four arrays, in order: training images, training labels, test images, test labels."""
    train_count: int
    test_count: int
    shape: tuple[int, int, int]
    """C×H×W of one image."""
    num_classes: int
    fallback: str | None = None
    """Why these images stand in for the ones that were asked for; None if they are those."""


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
        """Tell whether a glob names this cell or its dataset, model or device."""
        parts = (self.id, *map(str, (self.dataset, self.model, self.device)), self.model.name)
        return any(part == pattern or fnmatch.fnmatchcase(part, pattern) for part in parts)


class Task(Frozen):
    """One stage of one cell, once: the work of one fresh process."""

    cell: Cell
    stage: str
    repeat: int = 0
    seed: int
    threads: int | None
    """Threads of the computation; None until the cores have been counted."""
    waiting: Waiting | None = None
    """None in records of a version that left it to the shell, as is the allocator."""
    allocator: Allocator | None = None
    timeout_s: float
    settings: dict[str, Any] = {}
    """The stage's section; after preflight complete, with every default and the model's recipe filled in."""
    variant: dict[str, Scalar] = {}
    """What tells it apart from the other tasks of its stage and cell, such as the engine."""
    needs: tuple[str, ...] = ()
    """Keys of the tasks whose artifacts it reads; through them a change in a training changes what follows."""
    data: Provenance | None = None
    """The images it reads; None until preflight has found them."""
    suite: str = ""
    """What it was planned by."""

    @cached_property
    def key(self) -> str:
        """Hash all that decides the outcome, so that a change gives another key: not timeout, suite, data's place."""
        content = self.model_dump(mode="json", exclude={"timeout_s": True, "suite": True, "data": {"source"}})
        # Left out where empty, so that what was measured before there were any keeps its key.
        content = {name: value for name, value in content.items() if value or name not in _LATER}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields changed, whose key is its own."""
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
