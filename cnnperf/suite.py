"""The suite: what to measure, read from TOML in one place, and the tasks it comes to."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from cnnperf import registry
from cnnperf.errors import SuiteError, UsageError

Scalar = str | int | float | bool


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
    timeout_s: float
    settings: dict[str, Any] = {}
    """The stage's section; after preflight complete, with every default and the model's recipe filled in."""
    data: Provenance | None = None
    """The images it reads; None until preflight has found them."""

    @cached_property
    def key(self) -> str:
        """Hash all that decides the outcome (the timeout does not), so that a change gives another key."""
        content = self.model_dump(mode="json", exclude={"timeout_s"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """Name the task for a reader: cell, stage and, if there are several, the repeat."""
        repeat = f" repeat {self.repeat}" if self.repeat else ""
        return f"{self.cell.id} {self.stage}{repeat}"


class Suite(Frozen):
    """What to measure: every dataset × model × device, through the stages in order."""

    name: str = Field(default="suite", description="Name of the results folder; the file's stem unless given.")
    datasets: tuple[Choice, ...] = Field(min_length=1, description="Datasets: a name, or {name, options…}.")
    models: tuple[Choice, ...] = Field(
        min_length=1,
        description="Models: a name, or {name, options…, train = {…}} to override a stage's section for one model.",
    )
    devices: tuple[Choice, ...] = Field(default=(Choice(name="cpu"),), min_length=1, description="Devices to run on.")
    stages: tuple[str, ...] = Field(default=("train",), min_length=1, description="Stages, in order.")
    only: tuple[str, ...] = Field(
        default=(), description="Keep the cells that match one of these globs: 'mnist/lenet/*', 'resnet*'. Empty: all."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Repeat i is trained with seed + i.")
    repeats: int = Field(default=1, ge=1, description="Fresh processes per task.")
    threads: int | None = Field(default=None, ge=1, description="Threads; every usable core if absent.")
    timeout_s: float = Field(default=3600, gt=0, allow_inf_nan=False, description="A task that takes longer is ended.")
    require_real_data: bool = Field(
        default=False, description="Refuse to run on synthetic images where the real ones cannot be had."
    )
    sections: dict[str, dict[str, Any]] = Field(default={}, description="Settings of each stage, by its name.")

    def narrowed(
        self,
        *,
        only: str | None = None,
        device: str | None = None,
        stages: Iterable[str] | None = None,
    ) -> Suite:
        """Return the part of the suite that a command line asks for. Raises UsageError if nothing is left."""
        suite = self
        if device is not None:
            suite = suite.model_copy(update={"devices": (Choice(name=device),)})
        if stages is not None:
            suite = suite.model_copy(update={"stages": tuple(stages)})
        _check_names(suite, "command line")
        if only is not None and not any(cell.matches(only) for cell in suite.cells()):
            known = ", ".join(cell.id for cell in suite.cells())
            raise UsageError(f"--only: nothing matches {only!r}; give a glob over these cells: {known}")
        return suite

    def cells(self) -> Iterator[Cell]:
        """Yield the dataset × device × model that `only` keeps, in the order in which they run."""
        for dataset in self.datasets:
            for device in self.devices:
                for model in self.models:
                    cell = Cell(dataset=dataset, model=model, device=device)
                    if not self.only or any(map(cell.matches, self.only)):
                        yield cell


def plan(suite: Suite, only: str | None = None) -> tuple[Task, ...]:
    """Lay out the tasks of a suite in the order in which they run; `only` is a glob over the cells."""
    return tuple(
        Task(
            cell=cell,
            stage=stage,
            repeat=repeat,
            seed=suite.seed + repeat,
            threads=suite.threads,
            timeout_s=suite.timeout_s,
            settings=suite.sections.get(stage, {}),
        )
        for cell in suite.cells()
        if only is None or cell.matches(only)
        for stage in suite.stages
        for repeat in range(suite.repeats)
    )


def load_suite(name: str | Path) -> Suite:
    """Read a suite from a TOML file, or one that cnnperf ships by its name (`cifar`).

    Raises SuiteError, one sentence, for whatever is wrong with it.
    """
    path = _locate(name)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=_finite)
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read ({error.strerror}); give the path of a readable TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: not valid TOML: {error}; mend the file there") from error
    return parse(document, where=str(path), name=path.stem)


def parse(document: Mapping[str, Any], *, where: str, name: str) -> Suite:
    """Check a suite that was read from TOML; `where` names it in errors, `name` is its name unless it has one.

    Raises SuiteError, one sentence, for whatever is wrong with it.
    """
    stages = registry.names("stages")
    fields = {key: value for key, value in document.items() if key not in stages}
    known = [*(field for field in Suite.model_fields if field != "sections"), *stages]
    for key in fields:
        if key not in known:
            raise SuiteError(f"{where}: {registry.unknown('key', key, known)}")
    sections = {key: value for key, value in document.items() if key in stages}
    try:
        suite = Suite.model_validate_json(
            json.dumps({"name": name, **fields, "sections": sections}, default=str), strict=True
        )
    except ValidationError as error:
        raise SuiteError(f"{where}: {first_error(error)}") from error
    _check_names(suite, where)
    return suite


def shipped() -> dict[str, Path]:
    """Return the suites that come with cnnperf, by name."""
    package = Path(__file__).parent
    folder = package / "suites" if (package / "suites").is_dir() else package.parent / "suites"
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def first_error(error: ValidationError, *places: str) -> str:
    """Word the first fault that pydantic found: where (below `places`), what, got, and how many more there are."""
    faults = error.errors(include_url=False)
    fault = faults[0]
    # Unions put their branches' names into the location; a reader knows keys and positions only.
    branches = ("constrained-", "tuple[", "function-")
    inner = [str(part) for part in fault["loc"] if not str(part).startswith(branches)]
    place = ".".join([*places, *inner]).removeprefix("sections.")
    got = "" if fault["type"] == "missing" or not inner else f", got {_shorten(fault['input'])}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{place}: " * bool(place) + fault["msg"].removeprefix("Value error, ") + got + more


def _finite(text: str) -> float:
    # JSON, in which suites and records travel, has no word for these.
    if not math.isfinite(value := float(text)):
        raise tomllib.TOMLDecodeError(f"{text} is not a finite number")
    return value


def _locate(name: str | Path) -> Path:
    path, known = Path(name), shipped()
    if path.exists():
        return path
    if str(name) in known:
        return known[str(name)]
    raise SuiteError(f"{name}: no such file; {registry.unknown('suite', path.stem, known)}")


def _check_names(suite: Suite, where: str) -> None:
    for room in ("datasets", "models", "devices"):
        choices: tuple[Choice, ...] = getattr(suite, room)
        for index, choice in enumerate(choices):
            place = f"{where}: {room}.{index}"
            if choice in choices[:index]:
                raise SuiteError(f"{place}: {str(choice)!r} stands there twice; remove one")
            if ":" not in choice.name and choice.name not in registry.names(room):
                raise SuiteError(f"{place}: {registry.unknown(room[:-1], choice.name, registry.names(room))}")
            for section in choice.sections:
                _check_stage("section", section, place)
    for index, pattern in enumerate(suite.only):
        if not any(cell.matches(pattern) for cell in suite.model_copy(update={"only": ()}).cells()):
            raise SuiteError(
                f"{where}: only.{index}: {pattern!r} matches no cell; give a glob over dataset/model/device"
            )
    for index, stage in enumerate(suite.stages):
        _check_stage("stage", stage, f"{where}: stages.{index}")


def _check_stage(kind: str, name: str, place: str) -> None:
    if name not in registry.names("stages"):
        raise SuiteError(f"{place}: {registry.unknown(kind, name, registry.names('stages'))}")


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shorten(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
