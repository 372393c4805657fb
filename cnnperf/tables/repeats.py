"""The repeats of one cell's training, and how each of their figures is reduced to one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean, median

from cnnperf.bench import metrics_of
from cnnperf.machine.disturbance import FOREIGN_PROCESSES, UNDISTURBED, disturbed, is_disturbing
from cnnperf.record import Machine, Measurement, Record
from cnnperf.stats import Interval, Quartiles, mean_proportion_interval, quartiles
from cnnperf.tables.table import Value
from cnnperf.task import Provenance, Scalar, Task
from cnnperf.training.recipe import budget_of, images_per_step
from cnnperf.units import in_runs, one_line

PLACE_FACTS = ("host", "cpu", "cpu_model", "instruction_sets", "device_label", "torch", "onnxruntime")
"""Facts of machine and software that the repeats of one row share; onnxruntime's version is one of engines alone."""

Place = tuple[Value, ...]
"""Values of `PLACE_FACTS`."""


def machine_of(place: Place) -> tuple[Value, ...]:
    """Return the values of a place that describe the machine without its GPU."""
    return place[: PLACE_FACTS.index("device_label")]


@dataclass(frozen=True, slots=True)
class Rivals:
    """Common facts of tasks of one run, on one machine with one set of software, that differ only in the engine."""

    settings: str
    """All fields that identify a task, except its repeat, its engine and the tasks that it needs, as JSON."""
    training: str | None
    """Key of the training whose weights it reads; None if the run trained none."""
    place: Place
    """Values of `PLACE_FACTS`, which differ if the run was resumed elsewhere or with other software."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """The records of one run and place whose tasks differ only in the repeat; they become one row."""

    run: str
    records: tuple[Record, ...]
    sittings: tuple[str | None, ...] = ()
    """All sittings of the run, as `sittings_of` returns them; empty where rows are not told apart by them."""
    place: Place = ()
    """Values of `PLACE_FACTS`; empty where rows are not told apart by them."""

    @property
    def task(self) -> Task:
        """Return the first repeat's task."""
        return self.records[0].task

    @property
    def machine(self) -> Machine:
        """Return the machine that the first repeat ran on."""
        return self.records[0].machine

    @property
    def data(self) -> Provenance | None:
        """Return the origin of the images."""
        return self.task.data

    @property
    def device_label(self) -> str | None:
        """Return the hardware of the device: the processor's model or the GPU's; if neither is known, torch's name.

        Of a task beside which tasks on other devices ran, also the cores that it had.
        """
        label = self.machine.label(self.task.cell.device.name)
        read_back = (m.remarks for r in self.records for m in r.find(f"{r.task.stage}.device_index"))
        label = label or next((str(each["label"]) for each in read_back if "label" in each), None)
        bound = self.machine.bound_cores
        return (
            f"{label or self.task.cell.device.name}; beside other devices, on cores {in_runs(bound)}"
            if bound
            else label
        )

    @property
    def ok(self) -> tuple[Record, ...]:
        """Return the repeats that ended well; all figures are computed from them."""
        return tuple(r for r in self.records if r.status == "ok")

    @property
    def status(self) -> str:
        """Describe how the repeats ended: their common status, or how many ended well."""
        statuses = {r.status for r in self.records}
        if len(statuses) == 1:
            return statuses.pop()
        return f"ok {len(self.ok)}/{len(self.records)}" if self.ok else "failed"

    @property
    def reason(self) -> str | None:
        """Say in one line why repeats did not end well, each reason once, and whether their tests differ in size."""
        reasons = [one_line(r.error or r.signal or r.status) for r in self.records if r.status != "ok"]
        return "; ".join(filter(None, (*dict.fromkeys(reasons), unequal_tests(self._tests())))) or None

    @property
    def unequal_code(self) -> str | None:
        """Say of which versions or commits of cnnperf the repeats that ended well are, if these differ."""
        measured = (r.machine for r in self.ok)
        code = dict.fromkeys(" ".join(filter(None, (m.packages.get("cnnperf"), m.commit))) for m in measured)
        return f"repeats are of different versions of cnnperf: {', '.join(code)}" if len(code) > 1 else None

    @property
    def sitting(self) -> str | None:
        """Return the number of the run's sitting that measured it, from 1; one per repeat if they differ.

        None if the whole run was measured in one sitting, or no repeat ended well.
        """
        if len(self.sittings) < 2:
            return None
        numbers = [str(1 + self.sittings.index(r.sitting)) for r in self.ok]
        return " ".join(numbers if len(set(numbers)) > 1 else numbers[:1]) or None

    @property
    def budget(self) -> str | None:
        """Describe the training's budget; None if the settings contain none."""
        return budget_of(self.task.settings)

    def once(self, metric: str) -> Value:
        """Return a metric that is measured once per task, over the repeats that measured it.

        Fractions, such as accuracies, are reduced to their mean, by which two runs are compared too; others to the
        median.
        """
        found = [m for r in self.ok for m in r.find(metric)]
        if not found:
            return None
        reduce = fmean if found[0].unit == "fraction" else median
        value = reduce([v for m in found for v in m.values])
        return int(value) if found[0].unit in ("count", "bytes") and value == int(value) else value

    @property
    def median_speeds(self) -> tuple[float, ...]:
        """Return each repeat's images/s: the median over its steps of the batch over the step's seconds."""
        return tuple(median(speeds) for speeds in self._speeds())

    @property
    def speed_quartiles(self) -> Quartiles | None:
        """Return the quartiles of images/s over all steps of all repeats."""
        pooled = [speed for speeds in self._speeds() for speed in speeds]
        return quartiles(pooled) if pooled else None

    @property
    def test_accuracy(self) -> float | None:
        """Return the mean over repeats of their test accuracies: each training weighs the same."""
        accuracies = [m.values[0] for m in self._tests()]
        return fmean(accuracies) if accuracies else None

    @property
    def test_interval(self) -> Interval | None:
        """Return the 95 % interval of the test accuracy: of the images of the smallest test, and of the trainings.

        All repeats are tested on the same images, so more repeats do not add images; the variation between trainings
        is known only with several repeats.
        """
        n = self.test_images
        return None if n is None else mean_proportion_interval([m.values[0] for m in self._tests()], n)

    @property
    def test_images(self) -> int | None:
        """Return how many images the repeats were tested on, the fewest where that differs."""
        return fewest_tested(self._tests())

    @property
    def test_set(self) -> Scalar | None:
        """Return whether the tests were on `all` test images, or that of any repeat on a `subset`."""
        found = [m.remarks["images"] for m in self._tests() if "images" in m.remarks]
        return "subset" if "subset" in found else next(iter(found), None)

    @property
    def disturbed(self) -> str | None:
        """Say what disturbed the repeats that ended well or, if none did, any; as `disturbance` has it."""
        return disturbance(self.ok or self.records)

    @property
    def accuracy_flag(self) -> str | None:
        """Say why the test accuracy needs a second look: no better than chance, or of a training that lost its time."""
        reasons = [by_chance(self.test_interval, self.data)]
        if self.test_accuracy is not None and self.task.settings.get("seconds") and is_disturbing(self.disturbed):
            reasons.append("disturbed: fewer steps in the seconds of its training")
        return "; ".join(filter(None, reasons)) or None

    @property
    def best_validation_accuracy(self) -> float | None:
        """Return the mean over repeats of each one's best evaluation."""
        curves = ([v for m in r.find("train.validation_accuracy") for v in m.values] for r in self.ok)
        best = [max(curve) for curve in curves if curve]
        return fmean(best) if best else None

    @property
    def times_to_target(self) -> tuple[float, ...]:
        """Return each repeat's seconds to the target accuracy, infinite where it was not reached."""
        return tuple(next((m.values[0] for m in r.find("train.time_to_target")), math.inf) for r in self.ok)

    @property
    def target_resolution(self) -> float | None:
        """Return by how many seconds at most a repeat's time to the target is too long: the gap between evaluations."""
        reached = (m for r in self.ok for m in r.find("train.time_to_target"))
        return max((float(m.remarks["resolution_s"]) for m in reached if "resolution_s" in m.remarks), default=None)

    @property
    def earliest_target(self) -> float | None:
        """Return the shortest of the seconds to the target that are possible: each repeat's less its own resolution.

        A repeat whose record has no resolution counts with its measured time. None if no repeat reached the target.
        """
        reached = [m for r in self.ok for m in r.find("train.time_to_target")]
        return min((max(0.0, m.values[0] - float(m.remarks.get("resolution_s", 0.0))) for m in reached), default=None)

    def _tests(self) -> tuple[Measurement, ...]:
        return tuple(m for r in self.ok for m in r.find(f"{metrics_of(r.task.stage)}.test_accuracy"))

    def _speeds(self) -> Iterator[tuple[float, ...]]:
        images = images_per_step(self.task.settings)
        for r in self.ok:
            steps = [s for m in r.find("train.step_time") for s in m.values]
            if images and steps:
                yield tuple(images / s for s in steps)


def disturbance(records: Sequence[Record], **tags: Scalar) -> str | None:
    """Say what disturbed the measurements of repeats that carry these tags, and how many of several repeats.

    UNDISTURBED if nothing did, None if that was not measured in all of them.
    """
    measured = [
        # Other processes on the device disturb all figures of a task.
        [*of_repeat, *(m for m in r.measurements if FOREIGN_PROCESSES in m.remarks)]
        for r in records
        if (of_repeat := [m for m in r.measurements if tags.items() <= m.tags.items()])
    ]
    found = [disturbed(of_repeat) for of_repeat in measured]
    count = sum(map(is_disturbing, found))
    if not count:
        return None if None in found or not found else UNDISTURBED
    worst = disturbed(chain(*measured))
    return worst if len(found) == 1 else f"{count} of {len(found)} repeats: {worst}"


def by_chance(accuracy: Interval | None, data: Provenance | None) -> str | None:
    """Say that an accuracy is not above that of guessing a class, 1 of their number; None if it is, or is unknown."""
    if accuracy is None or data is None or data.num_classes < 1 or accuracy.low > 1 / data.num_classes:
        return None
    return f"no better than chance, which is 1 in {data.num_classes}"


def fewest_tested(tests: Iterable[Measurement]) -> int | None:
    """Return the images of the smallest of the tests; None without any."""
    return min((int(m.remarks["n"]) for m in tests if "n" in m.remarks), default=None)


def unequal_tests(tests: Iterable[Measurement]) -> str | None:
    """Say on how many images repeats were tested where these numbers differ; None where they do not."""
    counts = sorted({int(m.remarks["n"]) for m in tests if "n" in m.remarks})
    if len(counts) < 2:
        return None
    return f"repeats were tested on {counts[0]:,} to {counts[-1]:,} images; the interval is that of the fewest"


def sittings_of(records: Iterable[Record]) -> tuple[str | None, ...]:
    """Return the sittings of a run in their order; those of records without one count as one, the first."""
    return tuple(sorted({r.sitting for r in records}, key=lambda sitting: sitting or ""))


def placed(records: Iterable[Record]) -> Callable[[Record], Place]:
    """Return a function for the place of any record of a run.

    records: all those of the run. A process that never reached its GPU may not know which that is; it counts as the
    one that others used there.
    """
    known: dict[tuple[Value, ...], Value] = {}
    for r in records:
        label = Repeats("", (r,)).device_label
        if label is not None:
            known.setdefault((str(r.task.cell.device), *_machine(r.machine)), label)

    def place(record: Record) -> Place:
        of_others = known.get((str(record.task.cell.device), *_machine(record.machine)))
        packages = record.machine.packages
        return (
            *_machine(record.machine),
            Repeats("", (record,)).device_label or of_others,
            packages.get("torch"),
            packages.get("onnxruntime") if engine_of(record.task) else None,
        )

    return place


def _machine(machine: Machine) -> tuple[Value, ...]:
    return machine.host, machine.cpu, machine.cpu_model, machine.instruction_sets


ANY_REPEAT = {"repeat": 0, "seed": 0}
"""The fields that affect a task's key and in which the repeats of one row may differ, with one value for all."""


def alike(run: str, records: Iterable[Record], of_run: Iterable[Record]) -> Iterator[Repeats]:
    """Yield the records that become one row together; settings or a place that changed later make another row.

    of_run: all records of the run.
    """
    of_run = tuple(of_run)
    sittings, place_of = sittings_of(of_run), placed(of_run)
    groups: dict[tuple[str, Place], list[Record]] = {}
    for r in records:
        groups.setdefault((r.task.model_copy(update=ANY_REPEAT).key, place_of(r)), []).append(r)
    for (_, place), members in groups.items():
        yield Repeats(run, tuple(sorted(members, key=lambda r: r.task.repeat)), sittings, place)


def first_key(task: Task) -> str:
    """Return the key of the same task in repeat 0, which identifies all its repeats."""
    return task.model_copy(update={"repeat": 0, "seed": task.seed - task.repeat}).key


def engine_of(task: Task) -> str | None:
    """Return the engine that a task runs, with its options; None if it runs none."""
    engine = task.variant.get("engine")
    return None if engine is None else str(engine)


def rivals(task: Task, trainings: Collection[str], place: Place) -> Rivals:
    """Return the common facts of a task and its rivals; `trainings` are the keys of the run's trainings."""
    compared = task.model_copy(update={**ANY_REPEAT, "variant": {}, "needs": ()})
    settings = json.dumps(compared.content, sort_keys=True)
    return Rivals(settings, next((key for key in task.needs if key in trainings), None), place)
