"""Preflight's worker: check every choice, build every model, prepare the data.

The single request is on stdin: a suite, a dataset, a choice, or the JSON schema of suite files. The answer goes to a
pipe.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import BaseModel, ValidationError

from cnnperf import datasets, devices, errors, models, onnx_file, registry
from cnnperf.bench import Pace, Settings, settings_of, stages_leaving, weight_files
from cnnperf.datasets import Roots
from cnnperf.devices import Device
from cnnperf.errors import (
    CnnperfError,
    DataError,
    DeviceError,
    EngineError,
    FaultsError,
    SuiteError,
    UsageError,
    absent_fields,
    first_error,
    names_listed,
)
from cnnperf.ipc.channel import Line, single_request
from cnnperf.ipc.messages import (
    ChoiceRequest,
    DataHandled,
    DataRequest,
    FromPreflight,
    Noted,
    Prepared,
    Ready,
    Refused,
    SchemaRequest,
    SchemaWritten,
    SuiteRequest,
    ToPreflight,
)
from cnnperf.machine.fingerprint import usable_cores
from cnnperf.suite import plan, with_every_device
from cnnperf.task import Cell, Choice, Scalar, Task
from cnnperf.training.recipe import Recipe, layered
from cnnperf.workers.choices import describe_choice
from cnnperf.workers.images import Finder, FoundImages, Say, announcing
from cnnperf.workers.meta import TriedModel, try_model
from cnnperf.workers.pace import PaceProbe
from cnnperf.workers.schema import suite_schema

START_S = 6.0
"""Approximate seconds to start a task's process and import torch; for estimates only."""
FLOPS_PER_S_AND_CORE = 20e9
"""Approximate training speed of a core; for estimates of budgets that are not in seconds."""
PROBES_S = 60.0
"""Maximum time of the probes of a dry run; the next one measures the networks that are left."""


def prepare_suite(request: SuiteRequest, say: Say) -> Prepared:
    """Answer preflight's request. Raises UsageError, SuiteError or DataError, worded for the user."""
    suite = with_every_device(request.suite, request.where, _count)
    if request.suite.is_open:
        suite.check_only(request.only)
    return Preparation(request.model_copy(update={"suite": suite}), say).answer()


def _count(device: str) -> int:
    """Return the number of devices of a kind; 0 if there is none, and the check of each device says why."""
    try:
        return int(registry.module("devices", device).count())
    except DeviceError:
        return 0


def data(request: DataRequest, say: Say) -> DataHandled:
    """Fetch or verify one dataset, and describe it in a sentence. Raises DataError if the dataset has no files."""
    roots = Roots.from_environment(request.data)
    if request.verb == "verify":
        return DataHandled(sentence=datasets.verify(request.dataset, roots))
    datasets.files_of(request.dataset)
    found = registry.module("datasets", request.dataset).load(roots, announcing(say)).provenance
    sentence = f"{found.name}: {found.train_count:,} + {found.test_count:,} images from {found.source}"
    return DataHandled(sentence=sentence)


ANSWERS: dict[type[ToPreflight], Callable[[Any, Say], FromPreflight]] = {
    SuiteRequest: prepare_suite,
    DataRequest: data,
    SchemaRequest: lambda request, say: SchemaWritten(document=suite_schema()),
    ChoiceRequest: lambda request, say: describe_choice(request),
}
"""Functions that answer requests, by kind."""


class Preparation:
    """The checks of one suite; each choice is checked once."""

    def __init__(self, request: SuiteRequest, say: Say) -> None:
        self._request = request
        self._suite = request.suite
        self._finder = Finder(request, say)
        self._note = cache(lambda text: say(Noted(text=text)))
        self._keys: dict[tuple[str, str], list[str]] = {}
        """Keys of the tasks completed so far, by cell and stage."""
        self._warnings: dict[str, None] = {}
        """Warnings about models and devices, each once."""
        self._chosen: dict[tuple[str, str], Settings] = {}
        """Merged settings, before `quick`, by cell and stage."""
        self._images = cache(self._find)
        self._network = cache(self._build)
        self._reason = cache(self._missing)
        self._pace = cache(self._find_pace)
        self._probes_s = 0.0

    def answer(self) -> Prepared:
        """Complete every task of the suite."""
        suite = self._suite.model_copy(update={"repeats": 1}) if self._request.quick else self._suite
        tasks = plan(suite, self._request.only)
        # Check all tasks before loading any images, which may need a download.
        _check_each((task.cell.model, partial(self._check_options, task.cell.model)) for task in tasks)
        settings = [self._settings(task) for task in tasks]
        planned = list(zip(tasks, settings, strict=True))
        _check_each((task.cell.model, partial(self._check_takes, task, merged)) for task, merged in planned)
        _check_each((task.cell.model, partial(self._check_network, task, merged)) for task, merged in planned)
        return Prepared(
            tasks=tuple(ready for task, merged in planned for ready in self._ready(task, merged)),
            warnings=(*self._finder.warnings, *self._warnings),
            downloads={
                task.cell.dataset.name: size
                for task in tasks
                if (size := self._images(task.cell.dataset).download_bytes)
            },
        )

    def _ready(self, task: Task, settings: Settings) -> Iterator[Ready]:
        """Complete a task, once for each variant of it."""
        cell = task.cell
        images, reason = self._images(cell.dataset), self._reason(cell.device, settings.device_count(cell.device.name))
        network = self._network(cell.model, images.shape, images.num_classes)
        settings = self._at_batch(task, settings, network.batch)
        self._check_fits(task, settings, images)
        threads = task.threads or usable_cores()
        samples = settings.planned_samples(images.train_count) or 0
        on_one_core = 3 * network.flops * samples / FLOPS_PER_S_AND_CORE
        complete = {
            "threads": threads,
            "settings": settings.model_dump(mode="json"),
            "data": images.provenance,
        }
        steps = tuple(settings.step_settings().items())
        pace = None if reason else self._pace(cell, images.shape, images.num_classes, threads, steps)
        for variant in settings.variants(cell.device.name):
            budget = settings.estimate_s(variant)
            seconds = _whole_s(task, budget or on_one_core / threads)
            if pace:
                seconds = START_S + min(settings.work_s(variant, pace, images), task.timeout_s)
            ready = Ready(
                task=task.model_copy(
                    update={**complete, "variant": variant, "needs": self._needs(task, settings, variant)}
                ),
                chosen=task.settings,
                folder=images.folder,
                skip=reason,
                estimate_s=0.0 if reason else seconds,
                nominal_s=_whole_s(task, budget or on_one_core),
                weight_bytes=0 if reason else weight_files(task.stage) * network.weight_bytes,
            )
            if not task.repeat:
                self._keys.setdefault((cell.id, task.stage), []).append(ready.task.key)
            yield ready

    def _check_network(self, task: Task, settings: Settings) -> None:
        """Raise SuiteError for a model that cannot be built, or whose outputs a stage does not take."""
        model, images = task.cell.model, self._images(task.cell.dataset)
        network, steps = self._network(model, images.shape, images.num_classes), settings.takes_steps()
        where = self._where_of(model)
        if steps and network.training_fault:
            raise SuiteError(f"{where}: {network.training_fault}")
        in_training = network.training_extras if steps else None
        for extras, mode in ((network.extras, ""), (in_training, " in training mode")):
            is_known = steps and extras is not None and extras.names is not None
            if extras and not (is_known or settings.takes_extras):
                raise SuiteError(
                    f"{where}: {str(model)!r} returns more than its logits{mode} ({extras.words}), which "
                    f"{task.stage!r} does not take; return the logits alone"
                )
        if network.unchecked:
            self._warnings[f"{model.name}: latency without parity and accuracy: {network.unchecked}"] = None
        if in_training and in_training.names:
            heads = ", ".join(in_training.names)
            self._warnings[
                f"{model} returns {in_training.words} in training mode: its logits are trained, its auxiliary heads "
                f"are not ({heads})"
            ] = None

    def _at_batch(self, task: Task, settings: Settings, batch: int | None) -> Settings:
        """Return the settings for a file of a fixed batch. Raises SuiteError for other batch sizes in the suite."""
        try:
            return settings if batch is None else settings.at_batch(batch)
        except UsageError as error:
            raise SuiteError(f"{self._request.where}: {task.stage}: {error} (for {task.cell.id})") from error

    def _check_fits(self, task: Task, settings: Settings, images: FoundImages) -> None:
        """Raise SuiteError for settings that the device or the number of images makes impossible."""
        try:
            settings.check(task.cell.device.name, images.train_count, images.test_count)
        except UsageError as error:
            raise SuiteError(f"{self._request.where}: {task.stage}: {error} (for {task.cell.id})") from error

    def _check_takes(self, task: Task, settings: Settings) -> None:
        """Raise SuiteError if a stage or one of its engines does not accept an ONNX file."""
        model = task.cell.model
        for variant in settings.variants(task.cell.device.name) if model.is_onnx else ():
            if not settings.takes_onnx(variant):
                kind, name = ("engine", variant["engine"]) if "engine" in variant else ("stage", task.stage)
                raise SuiteError(
                    f"{self._where_of(model)}: {model.name}: the {kind} {name!r} cannot load an ONNX file; "
                    f"remove it from the {kind}s"
                )

    def _needs(self, task: Task, settings: Settings, variant: Mapping[str, Scalar]) -> tuple[str, ...]:
        """Return the keys of the tasks, of the cell and its first repeat, whose artifacts a task reads."""
        before = {stage: keys for (cell, stage), keys in self._keys.items() if cell == task.cell.id}
        needed = settings.needed(variant)
        for artifact in needed:
            leaving = stages_leaving(artifact, before)
            if not any(stage in before for stage in leaving):
                names = " or ".join(map(repr, leaving)) or f"a stage with {artifact!r}"
                raise SuiteError(
                    f"{self._request.where}: stages: {task.stage!r} reads a file that {names} writes; "
                    f"name {names} before {task.stage!r}"
                )
        read = (stage for artifact in (*settings.reads, *needed) for stage in stages_leaving(artifact, before))
        return tuple(key for stage in dict.fromkeys(read) for key in before.get(stage, ()))

    def _find(self, choice: Choice) -> FoundImages:
        self._note(f"the images of {str(choice)!r}")
        options = self._options("datasets", choice, datasets.GIVEN)
        try:
            return self._finder.find(choice, options)
        except DataError:
            raise  # The sentence names a file or folder.
        except UsageError as error:
            raise SuiteError(f"{self._request.where}: {'.'.join(self._place('datasets', choice))}: {error}") from error

    def _build(self, choice: Choice, shape: tuple[int, int, int], num_classes: int) -> TriedModel:
        self._note(f"the network {str(choice)!r}")
        if choice.is_onnx:
            return self._look(choice, shape, num_classes)
        try:
            return try_model(choice, shape, num_classes)
        except UsageError as error:
            raise SuiteError(f"{self._where_of(choice)}: {error}") from error

    def _look(self, choice: Choice, shape: tuple[int, int, int], num_classes: int) -> TriedModel:
        """Check that an ONNX file accepts the images; its arithmetic is not counted."""
        where = self._where_of(choice)
        if choice.options:
            raise SuiteError(f"{where}: {choice.name}: an ONNX file has no options, got {', '.join(choice.options)}")
        try:
            path = Path(choice.name)
            size, found = onnx_file.check_fit(path, shape, num_classes).size, onnx_file.signature(path)
            return TriedModel(weight_bytes=size, flops=0, batch=found.batch, unchecked=found.unchecked)
        except (UsageError, EngineError) as error:
            raise SuiteError(f"{where}: {error}") from error

    def _find_pace(
        self,
        cell: Cell,
        shape: tuple[int, int, int],
        num_classes: int,
        threads: int,
        steps: tuple[tuple[str, Any], ...],
    ) -> Pace | None:
        """Return a network's pace, measured in a dry run only: a run begins at once. None if unknown, or for a file.

        steps: the settings of the training steps, empty for the defaults.
        """
        if cell.model.is_onnx:
            return None
        device = registry.make("devices", cell.device.name, **self._options("devices", cell.device))
        tried = self._network(cell.model, shape, num_classes)
        probe = PaceProbe(cell.model, shape, num_classes, device, threads, Recipe(steps=1, **dict(steps)), tried)
        known = probe.known()
        if known or not self._request.probes or self._probes_s > PROBES_S:
            return known
        self._note(f"the pace of {str(cell.model)!r}")
        start = perf_counter()
        found = probe.measured()
        self._probes_s += perf_counter() - start
        return found

    def _missing(self, choice: Choice, count: int) -> str | None:
        """Return the reason why one of `count` devices from this index on is unavailable; None if all are there."""
        options = self._options("devices", choice)
        try:
            for index in range(count):
                others = {"index": options.get("index", 0) + index} if index else {}
                self._check_alone(choice, registry.make("devices", choice.name, **{**options, **others}))
        except DeviceError as error:
            return str(error)
        except UsageError as error:
            place = ".".join(self._place("devices", choice))
            raise SuiteError(f"{self._request.where}: {place}: {error}") from error
        return None

    def _check_alone(self, choice: Choice, device: Device) -> None:
        """Say which other processes compute on a device. Raises UsageError unless the request allows them."""
        if self._request.is_elsewhere:
            return
        others = devices.others_on(choice.name, device)
        if others:
            words = f"{device.label} is used by {names_listed(others)}"
            if not self._request.allow_busy:
                raise UsageError(f"{words}; end them, or give `allow_busy` to get figures that are marked as disturbed")
            self._warnings[f"{choice}: {words}, which disturbs all figures"] = None
        elif others is None and choice.name in registry.having("devices", "foreign_processes"):
            cure = "pip install 'cnnperf[cuda]'"
            self._warnings[f"{choice}: NVML does not tell whether other processes use {device.label}; {cure}"] = None

    def _check_options(self, model: Choice) -> None:
        """Raise SuiteError for a model that cannot be imported, or whose options are invalid."""
        self._note(f"the import of {model.name!r}")
        if not model.is_onnx:
            self._options("models", model, models.GIVEN)

    def _settings(self, task: Task) -> Settings:
        """Merge the stage's defaults, the model's recipe, the suite's section and the model's override.

        The model's options, on which a recipe depends, were checked before.
        """
        model, stage, where = task.cell.model, task.stage, self._request.where
        self._options("datasets", task.cell.dataset, datasets.GIVEN)
        self._options("devices", task.cell.device)
        try:
            kind = settings_of(stage)
        except UsageError as error:
            raise SuiteError(f"{where}: stages.{self._suite.stages.index(stage)}: {error}") from error
        override = model.sections.get(stage, {})
        own = [*self._place("models", model), stage]
        _refuse_unknown("setting", task.settings, kind, where, stage)
        _refuse_unknown("setting", override, kind, where, *own)
        recipe = models.recipe(model, task.cell.dataset.name, task.cell.device.name)
        for read in (stage for artifact in kind.reads for stage in stages_leaving(artifact, self._suite.stages)):
            recipe = layered(recipe, self._suite.sections.get(read, {}), model.sections.get(read, {}))
        try:
            settings = kind.resolve(recipe, task.settings, override)
            settings.agree({before: of for (cell, before), of in self._chosen.items() if cell == task.cell.id})
        except ValidationError as error:
            [*_, loc] = error.errors()[0]["loc"] or ("",)
            overridden = loc in override or (not loc and bool(override))
            raise SuiteError(f"{where}: {first_error(error, *(own if overridden else [stage]))}") from error
        except UsageError as error:
            raise SuiteError(f"{where}: {stage}: {error} (for {task.cell.id})") from error
        self._chosen[task.cell.id, stage] = settings
        return settings.quick() if self._request.quick else settings

    def _options(self, room: str, choice: Choice, given: Collection[str] = ()) -> dict[str, Any]:
        """Check a choice's options against the signature of its verb and return the validated options."""
        where, place = self._request.where, self._place(room, choice)
        try:
            kind = registry.options(registry.find(room, choice.name), given)
            _refuse_unknown("option", choice.options, kind, choice.name)
            options = kind.model_validate(choice.options, strict=True)
        except ValidationError as error:
            if absent := absent_fields(error):
                table = ", ".join((f'name = "{choice.name}"', *(f"{name} = …" for name in absent)))
                words = f"{choice.name} needs {', '.join(absent)}; write {{ {table} }}"
                raise SuiteError(f"{where}: {'.'.join(place)}: {words}") from error
            raise SuiteError(f"{where}: {first_error(error, *place)}") from error
        except UsageError as error:
            raise SuiteError(f"{where}: {'.'.join(place)}: {error}") from error
        return {key: getattr(options, key) for key in options.model_fields_set}

    def _place(self, room: str, choice: Choice) -> tuple[str, str]:
        return room, str(getattr(self._suite, room).index(choice))

    def _where_of(self, model: Choice) -> str:
        """Return the place of a model in the suite, as errors name it."""
        return f"{self._request.where}: {'.'.join(self._place('models', model))}"


def _check_each(checks: Iterable[tuple[Choice, Callable[[], object]]]) -> None:
    """Run checks of models, each model until its first fault. Raises a SuiteError that names every bad model."""
    faults: dict[Choice, SuiteError] = {}
    for model, check in checks:
        if model not in faults:
            try:
                check()
            except SuiteError as error:
                faults[model] = error
    if len(faults) > 1:
        raise FaultsError("\n".join(" ".join(str(fault).split()) for fault in faults.values()))
    for fault in faults.values():
        raise fault


def _whole_s(task: Task, seconds: float) -> float:
    """Return the planned seconds of a task's process, from those of its budget."""
    return START_S + min(1.25 * seconds, task.timeout_s)


def _refuse_unknown(kind: str, given: Iterable[str], options: type[BaseModel], *where: str) -> None:
    if options.model_config.get("extra") == "allow":
        return
    for key in given:
        if key not in options.model_fields:
            raise SuiteError(f"{': '.join(where)}: {registry.unknown(kind, key, options.model_fields)}")


def main(descriptor: int) -> None:
    """Answer the single request on stdin; send errors that the user can correct by class name and message."""
    line = Line(descriptor)
    request: Any = single_request()
    try:
        line.say(ANSWERS[type(request)](request, line.say))
    except CnnperfError as fault:
        kind = next(kind for kind in type(fault).__mro__ if kind.__module__ == errors.__name__)
        line.say(Refused(error=kind.__name__, reason=str(fault)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
