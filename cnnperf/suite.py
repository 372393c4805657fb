"""Suites: reading and checking a suite from TOML, and planning its tasks."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field, ValidationError, field_validator

from cnnperf import registry
from cnnperf.errors import SuiteError, UsageError, first_error, names_listed, shorten
from cnnperf.task import DEFAULT_ALLOCATOR, DEFAULT_WAITING, Allocator, Cell, Choice, Frozen, Task, Waiting

LARGEST_BYTES = 2**24
"""Largest suite file that is read."""
DEFAULT_EXECUTOR = "local"
MOST_DOTS = 1000
"""Most dots in a line of a suite."""
EVERY = "all"
"""Index that stands for every device of a kind; the check before a run replaces it."""
INDEX = re.compile("0|[1-9][0-9]{0,3}")


def _with_index(value: Any) -> Any:
    """Return the table that `cuda:1` abbreviates, `{name = "cuda", index = 1}`, and any other device as it is."""
    table = value if isinstance(value, Mapping) else {"name": value}
    name = table.get("name")
    kind, colon, index = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not colon or kind not in registry.names("devices"):
        return value
    if kind not in registry.having("devices", "count"):
        raise ValueError(f"{kind} has no index; write {kind!r}")
    if "index" in table:
        raise ValueError("the index is given twice; remove one")
    if index != EVERY and not INDEX.fullmatch(index):
        raise ValueError(f"not an index; write {kind}:0 for the first device, or {kind}:{EVERY} for every device")
    return {"name": kind, "index": EVERY if index == EVERY else int(index)} | {
        key: item for key, item in table.items() if key != "name"
    }


def _is_every(device: Choice) -> bool:
    """Return whether a choice stands for every device of its kind."""
    return device.options.get("index") == EVERY and device.name in registry.having("devices", "count")


DeviceChoice = Annotated[Choice, BeforeValidator(_with_index)]
"""A device; a name may be followed by an index, as in `cuda:1` and `cuda:all`."""


class Suite(Frozen):
    """A benchmark plan: every dataset × model × device runs through the stages in order."""

    name: str = Field(
        default_factory=lambda: "suite",
        max_length=100,
        pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$",
        description="Name of the results folder; absent: the stem of the suite's file.",
    )
    datasets: tuple[Choice, ...] = Field(min_length=1, description="Datasets: a name, or {name, options…}.")
    models: tuple[Choice, ...] = Field(
        min_length=1,
        description="Models: a name, or {name, options…, train = {…}} to override a stage's section for one model.",
    )
    devices: tuple[DeviceChoice, ...] = Field(
        default=(Choice(name="cpu"),),
        min_length=1,
        description="Devices to run on: a name, a name with an index (cuda:1, cuda:all), or {name, options…}.",
    )
    stages: tuple[str, ...] = Field(
        default=registry.having("stages", "IS_DEFAULT"), min_length=1, description="Stages, in order."
    )
    only: tuple[str, ...] = Field(
        default=(), description="Keep the cells that match one of these globs: 'mnist/lenet/*', 'resnet*'. Empty: all."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Repeat i is trained with seed + i.")
    repeats: int = Field(default=1, ge=1, description="Fresh processes per task: all cells once, then all again.")
    threads: int | None = Field(default=None, ge=1, description="Number of threads; absent: every usable core.")
    waiting: Waiting = Field(
        default=DEFAULT_WAITING,
        description="How threads wait for work: spin (as torch does by default), brief (some tens of microseconds), "
        "passive (never). The same for torch and ONNX Runtime.",
    )
    allocator: Allocator = Field(
        default=DEFAULT_ALLOCATOR,
        description="Freed memory: keep (for the next step), system (give it back as the C library does by default).",
    )
    timeout_s: float = Field(
        default=3600, gt=0, allow_inf_nan=False, description="Time limit of a task; then it is stopped."
    )
    executor: Choice = Field(
        default=Choice(name=DEFAULT_EXECUTOR),
        description="Where the tasks run: a name, a name with an address (name:address), or {name, options…}.",
    )
    preflight_timeout_s: float = Field(
        default=300,
        gt=0,
        allow_inf_nan=False,
        description="Time limit of the check before the first task, without the downloads.",
    )
    require_real_data: bool = Field(
        default=False, description="Refuse to run on synthetic images if the real ones are unavailable."
    )
    sections: dict[str, dict[str, Any]] = Field(default={}, description="Settings of each stage, by its name.")

    @field_validator("executor", mode="before")
    @classmethod
    def _read_address(cls, value: Any) -> Any:
        return _with_address(value) if isinstance(value, str) else value

    def narrowed(
        self,
        *,
        only: str | None = None,
        device: str | None = None,
        stages: Iterable[str] | None = None,
        repeats: int | None = None,
    ) -> Suite:
        """Return the part that is asked for. Raises UsageError for an unknown name, or if nothing is left."""
        suite = self
        if device is not None:
            suite = suite.model_copy(update={"devices": (_device_of(device),)})
        if stages is not None:
            suite = suite.model_copy(update={"stages": tuple(stages)})
            _check_stages(suite.stages, lambda index: "`stages`")
        if repeats is not None:
            if repeats < 1:
                raise UsageError(f"`repeats`: got {repeats}; give 1 or more")
            suite = suite.model_copy(update={"repeats": repeats})
        _check_names(suite, suite.name)
        if not suite.is_open:
            suite.check_only(only)
        return suite

    @property
    def is_open(self) -> bool:
        """Whether a device stands for every device of its kind, so that only preflight knows the cells."""
        return any(map(_is_every, self.devices))

    def check_only(self, only: str | None) -> None:
        """Raise UsageError for a glob that matches no cell. None: no glob."""
        if only is not None and not any(cell.matches(only) for cell in self.cells()):
            known = names_listed((cell.id for cell in self.cells()), 250)
            raise UsageError(f"`only`: nothing matches {shorten(only, 60)!r}; give a glob over these cells: {known}")

    def executed(self, executor: str | None, *, parallel_devices: bool = False) -> Suite:
        """Return the suite with another executor, `name` or `name:address`.

        parallel_devices: run the cells of several GPUs of this machine side by side. Raises SuiteError for an unknown
        name, or if the executor is not that of this machine.
        """
        choice = self.executor if executor is None else Choice.model_validate(_with_address(executor))
        if choice.name not in (known := registry.names("executors")):
            raise SuiteError(f"`executor`: {registry.unknown('executor', choice.name, known)}")
        if parallel_devices:
            if choice.name != DEFAULT_EXECUTOR:
                raise SuiteError(f"`parallel_devices`: the executor {choice.name!r} places the cells; leave one out")
            choice = choice.model_copy(update={"options": choice.options | {"parallel_devices": True}})
        return self.model_copy(update={"executor": choice})

    def launched(
        self, *, waiting: str | None = None, allocator: str | None = None, threads: int | None = None
    ) -> Suite:
        """Return the suite with other waiting and allocator policies and threads.

        Raises UsageError for an unknown policy or for less than one thread.
        """
        given = {"waiting": (waiting, get_args(Waiting)), "allocator": (allocator, get_args(Allocator))}
        for option, (word, known) in given.items():
            if word is not None and word not in known:
                raise UsageError(f"`{option}`: {registry.unknown('policy', word, known)}")
        if threads is not None and threads < 1:
            raise UsageError(f"`threads`: got {threads}; give 1 or more")
        changed: dict[str, Any] = {option: word for option, (word, _) in given.items() if word}
        return self.model_copy(update=changed | ({} if threads is None else {"threads": threads}))

    def cells(self) -> Iterator[Cell]:
        """Yield the cells selected by `only`, in the order in which a repeat runs them."""
        for dataset in self.datasets:
            for device in self.devices:
                for model in self.models:
                    cell = Cell(dataset=dataset, model=model, device=device)
                    if not self.only or any(map(cell.matches, self.only)):
                        yield cell


def plan(suite: Suite, only: str | None = None) -> tuple[Task, ...]:
    """Lay out the tasks of a suite in the order in which they run; `only` is a glob over the cells.

    All cells run once through their stages before the next repeat starts, so that a drift of the machine's speed
    affects every cell alike.
    """
    return tuple(
        Task(
            cell=cell,
            stage=stage,
            repeat=repeat,
            seed=suite.seed + repeat,
            threads=suite.threads,
            waiting=suite.waiting,
            allocator=suite.allocator,
            timeout_s=suite.timeout_s,
            settings=suite.sections.get(stage, {}),
            suite=suite.name,
        )
        for repeat in range(suite.repeats)
        for cell in suite.cells()
        if only is None or cell.matches(only)
        for stage in suite.stages
    )


def load_suite(name: str | Path) -> Suite:
    """Read a suite from a TOML file, or a shipped suite by its name (`cifar`).

    Raises SuiteError, one sentence, for any fault in the suite.
    """
    path = suite_file(name)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read ({error.strerror}); give the path of a readable TOML file") from error
    if len(content) > LARGEST_BYTES:
        raise SuiteError(f"{path}: larger than {LARGEST_BYTES // 2**20} MiB; give the path of a suite in TOML")
    for place, row in enumerate(content.splitlines(), start=1):
        # Python's parser needs memory that grows with the square of the parts of a dotted key.
        if row.count(b".") > MOST_DOTS:
            raise SuiteError(f"{path}: line {place}: over {MOST_DOTS} dots; give shorter lines")
    try:
        document = tomllib.loads(content.decode(), parse_float=_finite)
    except _NotFiniteError as error:
        line = next(n for n, text in enumerate(content.decode().splitlines(), start=1) if str(error) in text)
        raise SuiteError(
            f"{path}: line {line}: {shorten(error, 60)} is not a finite number; give a finite number"
        ) from error
    except UnicodeDecodeError as error:
        line, column = content[: error.start].count(b"\n") + 1, error.start - content.rfind(b"\n", 0, error.start)
        raise SuiteError(
            f"{path}: not valid TOML: not UTF-8 (at line {line}, column {column}); save it as UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:  # A syntax error, or a value that Python cannot read.
        raise SuiteError(f"{path}: not valid TOML: {shorten(error)}; correct the file at that place") from error
    return parse(document, where=str(path), name=path.stem)


def parse(document: Mapping[str, Any], *, where: str, name: str) -> Suite:
    """Check a suite read from TOML; `where` is its name in errors, `name` is its default name.

    Raises SuiteError, one sentence, for any fault in the suite.
    """
    sections = {key: value for key, value in document.items() if _is_section(key)}
    fields = {key: value for key, value in document.items() if key not in sections}
    known = [*(field for field in Suite.model_fields if field != "sections"), *registry.names("stages")]
    for key in fields:
        if key not in known:
            raise SuiteError(f"{where}: {registry.unknown('key', key, known)}")
    try:
        suite = Suite.model_validate_json(
            json.dumps({"name": name, **fields, "sections": sections}, default=str), strict=True
        )
    except ValidationError as error:
        raise SuiteError(f"{where}: {first_error(error)}") from error
    except (ValueError, RecursionError) as error:
        raise SuiteError(
            f"{where}: contains a value that cannot be stored ({shorten(error)}); give shorter numbers and texts"
        ) from error
    _check_names(suite, where)
    for key in sections:
        if ":" in key and key not in suite.stages:
            raise SuiteError(f"{where}: {shorten(key, 60)}: no stage of this suite; name it in stages, or remove it")
    return suite


def with_every_device(suite: Suite, where: str, count: Callable[[str], int]) -> Suite:
    """Return the suite with the devices for which `cuda:all` stands; `where` is its name in errors.

    count: returns the number of devices of a kind; if there is none, one without an index remains, so that the check of
    that device says why. Raises SuiteError for a device that is then named twice, and for a glob without a cell.
    """
    if not suite.is_open:
        return suite
    devices: list[Choice] = []
    for device in suite.devices:
        several: list[dict[str, Any]] = [device.options]
        if _is_every(device):
            others = {name: value for name, value in device.options.items() if name != "index"}
            several = [device.options | {"index": index} for index in range(count(device.name))] or [others]
        devices += [device.model_copy(update={"options": options}) for options in several]
    found = suite.model_copy(update={"devices": tuple(devices)})
    _check_names(found, where)
    return found


def foreign_places(tasks: Iterable[Task]) -> tuple[str, ...]:
    """List the code of other packages that tasks use, as `pkg.module:attribute`; nothing is imported."""
    used: dict[str, None] = {}
    for room, name in dict.fromkeys(choice for task in tasks for choice in _choices(task)):
        with suppress(UsageError):  # The check of the suite tells an unknown name.
            if place := registry.place_of(room, name):
                used[place] = None
    return tuple(used)


def _choices(task: Task) -> Iterator[tuple[str, str]]:
    """Yield the rooms and names that a task uses, as the suite has them."""
    yield "datasets", task.cell.dataset.name
    yield "models", task.cell.model.name
    yield "devices", task.cell.device.name
    yield "stages", task.stage
    for section in (task.settings, task.cell.model.sections.get(task.stage, {})):
        engines = section.get("engines")
        for engine in engines if isinstance(engines, Sequence) else ():
            yield "engines", str(engine.get("name") if isinstance(engine, Mapping) else engine)


def shipped() -> dict[str, Path]:
    """Return the suites that come with cnnperf, by name."""
    package = Path(__file__).parent
    folder = package / "suites" if (package / "suites").is_dir() else package.parent / "suites"
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def _is_section(key: str) -> bool:
    """Return whether a key of a suite names a stage."""
    is_own = key in registry.names("stages")
    return is_own or ":" in key or (key not in Suite.model_fields and key in registry.registered("stages"))


def _with_address(executor: str) -> dict[str, str]:
    """Return the table that `name:address` abbreviates."""
    name, _, address = executor.partition(":")
    return {"name": name, "address": address} if address else {"name": name}


def _device_of(text: str) -> Choice:
    """Return the device that an argument names. Raises SuiteError."""
    try:
        found = _with_index(text)
    except ValueError as error:
        raise SuiteError(f"`device`: {error}, got {shorten(repr(text), 60)}") from error
    if isinstance(found, str) and (absent := registry.unknown_in("devices", found)):
        raise SuiteError(f"`device`: {absent}")
    return Choice.model_validate(found)


def _finite(text: str) -> float:
    # JSON, the format of stored suites and records, has no infinity or NaN.
    if not math.isfinite(value := float(text)):
        raise _NotFiniteError(text)
    return value


class _NotFiniteError(Exception):
    pass


def suite_file(name: str | Path) -> Path:
    """Return the file of a suite, given by its path or as a shipped suite by its name. Raises SuiteError."""
    path, known = Path(name), shipped()
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise SuiteError(f"{name}: cannot be read ({error.strerror}); give the path of a TOML file") from error
    if str(name) in known:
        return known[str(name)]
    if path.is_dir():
        raise SuiteError(f"{name} is a folder; give a TOML file")
    if path.exists():
        raise SuiteError(f"{name}: not a regular file; give the path of a TOML file")
    raise SuiteError(f"{name}: no such file; {registry.unknown('suite', path.stem, known)}")


def _check_names(suite: Suite, where: str) -> None:
    for room in ("datasets", "models", "devices"):
        choices: tuple[Choice, ...] = getattr(suite, room)
        seen: set[str] = set()
        for index, choice in enumerate(choices):
            place = f"{where}: {room}.{index}"
            content = json.dumps(choice.model_dump(mode="json"), sort_keys=True)
            if content in seen:
                raise SuiteError(f"{place}: {shorten(choice, 100)!r} is a duplicate; remove one")
            seen.add(content)
            is_file = room == "models" and choice.is_onnx
            if not is_file and (absent := registry.unknown_in(room, choice.name)):
                raise SuiteError(f"{place}: {absent}")
            for section in choice.sections:
                _check_stage("section", section, place)
    if suite.executor.name not in (known := registry.names("executors")):
        raise SuiteError(f"{where}: executor: {registry.unknown('executor', suite.executor.name, known)}")
    for index, pattern in enumerate(() if suite.is_open else suite.only):
        if not any(cell.matches(pattern) for cell in suite.model_copy(update={"only": ()}).cells()):
            raise SuiteError(
                f"{where}: only.{index}: {shorten(pattern, 100)!r} matches no cell; "
                "give a glob over dataset/model/device"
            )
    _check_stages(suite.stages, lambda index: f"{where}: stages.{index}")


def _check_stages(stages: Sequence[str], place: Callable[[int], str]) -> None:
    for index, stage in enumerate(stages):
        if stage in stages[:index]:
            raise SuiteError(f"{place(index)}: {stage!r} is a duplicate; remove one")
        _check_stage("stage", stage, place(index))


def _check_stage(kind: str, name: str, place: str) -> None:
    if absent := registry.unknown_in("stages", name, kind):
        raise SuiteError(f"{place}: {absent}")
