"""The schema of records: the result of one task, its measurements, its machine and its files."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cnnperf.errors import StageError
from cnnperf.sides import SIDES
from cnnperf.task import Frozen, Scalar, Task

SCHEMA = 2
"""Version of the record format. 1: the first; 2: adds remarks, checksums of lines and artifacts, and a nonce."""

PARITY = "infer.parity"
"""Parity verdict of an engine's task: 1 if its output agrees with torch's, else 0."""

Status = Literal["ok", "failed", "timeout", "skipped", "disturbed"]
"""How a task ended; `disturbed`: well, but disturbed to the last attempt where the user asked for undisturbed ones."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Duration = Annotated[Finite, Field(ge=0, le=1e9)]
"""Seconds; less than 32 years, so that the end of a task is a date."""
WholeNumber = Annotated[int, Field(ge=0, le=2**63)]
Hertz = Annotated[Finite, Field(ge=0, le=1e15)]
"""Hz."""
Watts = Annotated[Finite, Field(ge=0, le=1e9)]
"""W."""

_ROUNDING = 1e-9
"""Excess over 1 of a share that was computed as a ratio of sums."""
_NUMBERS = (
    *("step", "samples", "seconds", "epoch", "resolution_s", "unsteady_pairs"),
    *("waited_share", "stolen_share", "throttled_share"),
)
"""Remarks of a measurement that are numbers, 0 at least."""
_TEXTS = ("mode", "type", "inputs", "outputs", "dtype", "uncounted", "weights", "at")
"""Tags and remarks of a profile that are text."""
_WHOLE: Mapping[str, tuple[int, int]] = {
    "batch_size": (1, 2**31),
    "order": (0, 2**31),
    "n": (1, 2**53),
    "foreign_processes": (0, 2**31),
}
"""Tags and remarks that are whole numbers, with the least and the largest."""
_LEAST = 1e-15
"""Smallest value, above 0, of any quantity but shares and pure numbers: a femtosecond, a step in some million years."""
_MOST: Mapping[str, float] = {"s": 1e12, "count": 2.0**63, "bytes": 2.0**63}
_MOST_OF_OTHERS = 1e100
"""Largest value by unit. A product or ratio of three values is thus a finite number."""
_ABOVE_0 = ("train.step_time", "profile.step_seconds", "infer.latency", "infer.pair_seconds", "infer.speedup")
"""Metrics that are never 0: tables divide by their values or take the logarithms."""
_LARGEST = 2**63
"""Bound of the whole numbers that identify a task."""
_PLACES: Mapping[str, tuple[str, ...]] = {
    "train.confusion": ("num_classes",),
    "profile.step_seconds": ("batch_size", "mode"),
    "profile.probe_flops_per_s": ("probe",),
    "infer.latency": ("batch_size",),
    "infer.pair_seconds": ("batch_size", "pair", "side"),
    "infer.mapped_share": ("batch_size",),
    "infer.node_time": ("layer", "operator"),
}
"""Tags without which a measurement has no place in a table, by metric."""
_OF_A_POINT = ("step", "samples", "seconds", "epoch")
_FACTS: Mapping[str, tuple[str, ...]] = {
    "train.train_accuracy": _OF_A_POINT,
    "train.train_accuracy_after_step": _OF_A_POINT,
    "train.validation_accuracy": _OF_A_POINT,
    "train.epoch_test_accuracy": _OF_A_POINT,
    "train.epoch_test_accuracy_raw": _OF_A_POINT,
    "profile.peak_above_start_bytes": ("at",),
    "infer.right_in_torch_only": ("n",),
}
"""Remarks without which nothing can be computed from a measurement, by metric."""


def _moment(text: str) -> str:
    if datetime.fromisoformat(text).year not in range(1970, 9000):
        raise ValueError(f"{text} is not a date from 1970 to 8999")
    return text


Moment = Annotated[str, AfterValidator(_moment)]
"""UTC, ISO 8601."""


class Measurement(Frozen):
    """One measured quantity: every raw value, in SI units, in order; none deleted."""

    metric: str
    """`<stage>.<quantity>`, such as `train.step_time`."""
    unit: str
    """`s`, `bytes`, `count`, `images/s`, `fraction` for a share from 0 to 1, or `1` for any other pure number."""
    better: Literal["lower", "higher"] | None
    """Direction of improvement; None if the quantity has none, and then it is never compared."""
    values: Annotated[tuple[Finite, ...], Field(min_length=1)]
    tags: Mapping[str, Scalar] = {}
    """Identify the measurement within its metric: `engine`, `layer`, `batch_size`.

    The size of a file has the tag `artifact`; this distinguishes exact file sizes from memory sizes, which vary.
    """
    remarks: Mapping[str, Scalar] = {}
    """Facts that do not identify the measurement: its number of images (`n`), disturbances (`disturbed`), the engine's
    configuration (`provider`), and the position of a curve point (`step`)."""

    @property
    def is_point(self) -> bool:
        """Whether this is one point of a curve, such as an evaluation during training."""
        return "step" in self.remarks

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        least, most = min(self.values), max(self.values)
        self._check_range(least, most)
        if self.unit == "fraction" and not 0 <= least <= most <= 1 + _ROUNDING:
            raise ValueError(f"{self.metric}: {least if least < 0 else most} is not a fraction from 0 to 1")
        # A reading that is not compared may be the difference of two counters of the kernel, which may run backwards.
        if least < 0 and (self.unit == "count" or (self.better and self.unit != "1")):
            raise ValueError(f"{self.metric}: {least} is negative, in {self.unit}")
        for name, value in (*self.tags.items(), *self.remarks.items()):
            self._check_fact(name, value)
        classes = self.tags.get("num_classes")
        if classes is not None and (not isinstance(classes, int) or classes**2 != len(self.values)):
            raise ValueError(f"{self.metric}: {len(self.values)} values are no matrix of {classes} classes")
        return self

    def _check_range(self, least: float, most: float) -> None:
        """Raise ValueError for values from which tables could compute no finite number."""
        largest = _MOST.get(self.unit, _MOST_OF_OTHERS)
        if max(-least, most) > largest:
            raise ValueError(f"{self.metric}: {max(-least, most)} is above {largest:g}, in {self.unit}")
        if self.metric in _ABOVE_0 and least <= 0:
            raise ValueError(f"{self.metric}: {least} is not above 0")
        if self.unit not in ("1", "fraction") or self.metric in _ABOVE_0:
            tiny = next((value for value in self.values if 0 < abs(value) < _LEAST), None) if least < _LEAST else None
            if tiny is not None:
                raise ValueError(f"{self.metric}: {tiny} is below {_LEAST:g}, in {self.unit}")
        if self.metric.endswith(".test_accuracy") and not 0 <= least <= most <= 1:
            raise ValueError(f"{self.metric}: {least if least < 0 else most} is no share of images")

    def _check_fact(self, name: str, value: Scalar) -> None:
        """Raise ValueError if a tag or a remark is not of the type that its name has everywhere."""
        if name in _TEXTS and not isinstance(value, str) and self.metric.startswith("profile."):
            raise ValueError(f"{self.metric}: {name} is {value!r}, not a text")
        if name in _NUMBERS and (isinstance(value, str) or not 0 <= value <= _MOST_OF_OTHERS):
            raise ValueError(f"{self.metric}: {name} is {value!r}, not a number of 0 at least")
        if name in _WHOLE:
            least, most = _WHOLE[name]
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                fault = f"{name} is {value!r}, no whole number from {least} to {most}"
                raise ValueError(f"{self.metric}: {f'{value!r} is no number of images' if name == 'n' else fault}")


class Artifact(Frozen):
    """A file that a task wrote."""

    path: str
    """Path relative to the run folder, inside it."""
    sha256: str | None = None
    """SHA-256 of the content; None in records of schema 1."""

    @classmethod
    def of(cls, run: Path, path: str) -> Artifact:
        """Describe a file as it is now. Raises OSError."""
        return cls(path=path, sha256=_sha256(run / path))

    def verified(self, run: Path) -> Path:
        """Return the file's path.

        Raises StageError if the file is outside the run folder, is no readable regular file, or has changed since it
        was recorded.
        """
        path = run / self.path
        cure = "run the task that wrote it again"
        try:
            is_inside = path.resolve().is_relative_to(run.resolve())
            if not is_inside:
                raise StageError(f"{path}: outside the run folder, and thus not read; {cure}")
            if not stat.S_ISREG(path.stat().st_mode):
                raise StageError(f"{path}: not a regular file; {cure}")
            found = self.sha256 and _sha256(path)
        except (OSError, RuntimeError, ValueError) as error:  # Also a circle of links, and a path with a zero byte.
            reason = getattr(error, "strerror", None) or error
            raise StageError(f"{path}: cannot be read ({reason}); {cure}") from error
        if found != self.sha256:
            raise StageError(
                f"{path}: its content has changed since its task wrote it (sha256 {found}, recorded {self.sha256}); "
                f"restore it from a copy, or {cure}"
            )
        return path


class Processor(Frozen):
    """The processor as the kernel describes it; None for fields that the kernel does not report."""

    vendor: str | None = None
    """Vendor as in `/proc/cpuinfo`: `AuthenticAMD`; on ARM the implementer's number, `0x41`."""
    family: str | None = None
    model: str | None = None
    """Model number; on ARM the part number, `0xd0c`. Several core models are joined by `+`."""
    stepping: str | None = None
    """Stepping; on ARM variant and revision, `r3p1`."""
    microcode: str | None = None
    instruction_sets: tuple[str, ...] | None = None
    """On x86 the flags of vector and matrix instructions (AVX, AVX-512, VNNI, BF16, AMX), on ARM all `Features`."""
    cache_bytes: Mapping[str, WholeNumber] = {}
    """Size of one cache of the first core by name: `L1d`, `L1i`, `L2`, `L3`."""
    physical_cores: WholeNumber | None = None
    """Physical cores of the whole machine, not only of this process; two threads of one core count once."""
    smt: bool | None = None
    """Whether two threads share a core now."""
    nominal_hz: Hertz | None = None
    """Nominal frequency without boost, as stated by the vendor."""
    frequency_hz: Hertz | None = None
    """Mean frequency over the cores when the machine was described; `<metric>_frequency` is measured during a task."""
    virtual: bool | None = None
    """Whether the processor reports a hypervisor below this system."""
    hypervisor: str | None = None
    """Vendor of the hypervisor: `KVM`."""
    numa_nodes: WholeNumber | None = None

    @property
    def identity(self) -> str | None:
        """Return family, model and stepping as text, to distinguish processors of one name."""
        facts = {"family": self.family, "model": self.model, "stepping": self.stepping}
        return " ".join(f"{name} {value}" for name, value in facts.items() if value) or None


class Platform(Frozen):
    """The kernel and the C library, with their memory settings; None for fields that they do not report."""

    kernel: str | None = None
    libc: str | None = None
    """Name and version: `glibc 2.36`."""
    page_bytes: WholeNumber | None = None
    transparent_hugepages: str | None = None
    """`always`, `madvise` or `never`."""


class Gpu(Frozen):
    """A GPU or a MIG instance, as the driver and torch describe it; None for fields that neither reports."""

    name: str
    uuid: str | None = None
    """UUID with its prefix: `GPU-…`, for an instance `MIG-…`."""
    mig: str | None = None
    """Profile of a MIG instance: `3g.20gb`; None for a whole GPU."""
    board: str | None = None
    """UUID of the GPU that contains the instance."""
    index: int | None = None
    """Index in PCI bus order, which may differ from the CUDA index."""
    pci_bus_id: str | None = None
    capability: str | None = None
    """Compute capability: `9.0`."""
    memory_bytes: WholeNumber | None = None
    """Memory of the whole GPU in bytes, as reported by the driver."""
    usable_bytes: WholeNumber | None = None
    """Memory available to torch in bytes: without the driver's reserve; for an instance, its share."""
    multiprocessors: WholeNumber | None = None
    power_limit_w: Watts | None = None
    """Power to which the driver limits the whole GPU."""
    max_sm_clock_hz: Hertz | None = None
    """Highest clock of the multiprocessors."""
    max_memory_clock_hz: Hertz | None = None
    sm_clock_hz: Hertz | None = None
    """Clock of the multiprocessors that is set for applications; None where the driver has no such setting."""
    memory_clock_hz: Hertz | None = None
    """Clock of the memory that is set for applications."""

    @property
    def label(self) -> str:
        """Return the fields that two GPUs of one kind share, as text: name, memory, compute capability and profile."""
        size = self.memory_bytes or self.usable_bytes
        facts = (
            f"{size / 2**30:.0f} GiB" if size else None,
            f"compute capability {self.capability}" if self.capability else None,
            f"MIG {self.mig}" if self.mig else None,
        )
        return ", ".join((self.name, *filter(None, facts)))


class Libraries(Frozen):
    """The libraries loaded in a task's process, as the process itself lists them at its end."""

    openmp: tuple[str, ...] | None = None
    """Files of all OpenMP runtimes in the process, relative to `site-packages` if inside it."""
    allocators: tuple[str, ...] | None = None
    """Files of all allocators in the process that replace the C library's."""
    onednn: str | None = None
    mkl: str | None = None
    openmp_version: str | None = None
    """OpenMP specification that torch was built for, by date: `201511` is OpenMP 4.5."""
    cpu_capability: str | None = None
    """The widest instructions that torch's own kernels use: `AVX512`."""
    parallel_info: str | None = None
    """Text of `torch.__config__.parallel_info()`."""
    cuda: str | None = None
    cudnn: str | None = None


class Machine(Frozen):
    """The machine and the software that a task ran on."""

    host: str
    os: str
    cpu: str
    """The processor's name, which several models may share; `cpu_model` is unambiguous."""
    cores: Annotated[WholeNumber, Field(ge=1)]
    """Cores that this process may use, limited by affinity and cgroup quota."""
    memory_bytes: WholeNumber
    governor: str | None = None
    gpu: str | None = None
    """The accelerator's name."""
    driver: str | None = None
    python: str
    packages: Mapping[str, str]
    """Versions of cnnperf and of the packages that it computes with, by name."""
    commit: str | None = None
    """Git commit of cnnperf's checkout, with `+` appended if files were changed; None if cnnperf is installed."""
    threads: int | None = None
    """Number of compute threads, read back from the library; None if it never started."""
    bound_cores: tuple[WholeNumber, ...] | None = None
    """Cores to which the task's process was bound, because tasks on other devices ran beside it; None if to none."""
    processor: Processor | None = None
    """The processor; None, like the fields below, in records of versions that did not store it."""
    platform: Platform | None = None
    gpus: tuple[Gpu, ...] = ()
    """All GPUs and MIG instances of the machine, used or not."""
    accelerator: Gpu | None = None
    """The GPU that torch computed on, else the GPU with CUDA index 0; None if that one is unknown."""
    environment: Mapping[str, str] | None = None
    """Environment variables of the task's process that affect allocator, threads, kernels and GPU; None if unknown."""
    libraries: Libraries | None = None
    """Libraries in the task's process; None if the process did not report them."""

    @property
    def cpu_model(self) -> str | None:
        """Return name, family, model and stepping of the processor; None if unknown."""
        identity = self.processor.identity if self.processor else None
        return f"{self.cpu}, {identity}" if identity else None

    @property
    def instruction_sets(self) -> str | None:
        """Return the processor's instruction sets in one line; None if unknown."""
        found = self.processor.instruction_sets if self.processor else None
        return None if found is None else " ".join(found)

    def label(self, device: str) -> str | None:
        """Return the hardware of a device, given the stem of its file; None if unknown."""
        if device == "cpu":
            return self.cpu_model or self.cpu
        return self.accelerator.label if self.accelerator else self.gpu


class Record(Frozen):
    """The record of one task: task, settings, machine, status and raw samples."""

    version: int = Field(default=SCHEMA, alias="schema")
    task: Task
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    """The task's key when it ran; a resumed run finds finished tasks by this key."""
    nonce: str | None = None
    """Unique identifier of this attempt at the task; None if no process was started, and in records of schema 1."""
    sitting: str | None = None
    """When the invocation that ran this task opened the run folder, UTC, ISO 8601.

    Cells alternate within one invocation. None in records of versions that did not store it; all of these in a run
    count as one sitting."""
    shard: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}/[1-9][0-9]{0,5}$")] | None = None
    """The part of the suite that the invocation ran: `2/3`; None if it ran the whole suite."""
    machine: Machine
    started: Moment
    duration_s: Duration
    """Wall time from spawn to exit."""
    parent_cpu_s: Duration = 0.0
    """CPU time that the parent process used during the task."""
    status: Status
    error: str | None = None
    signal: str | None = None
    log_tail: tuple[str, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    artifacts: Mapping[str, Artifact] = {}
    """Files that the task wrote, by kind: `weights`, `examples`."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        for m in self.measurements:
            for names, place in ((_PLACES, m.tags), (_FACTS, m.remarks)):
                lacking = [name for name in names.get(m.metric, ()) if name not in place]
                if lacking:
                    raise ValueError(f"{m.metric}: lacks {', '.join(lacking)}")
        self._check_pairs()
        self._check_counts()
        numbers = {"repeat": self.task.repeat, "seed": self.task.seed, "threads": self.task.threads or 0}
        for name, number in numbers.items():
            if abs(number) > _LARGEST:
                raise ValueError(f"task: {name} is beyond {_LARGEST}")
        return self

    def _check_pairs(self) -> None:
        """Raise ValueError for a pair of processes that lacks a side, or whose sides have unequal samples."""
        pairs: dict[tuple[Scalar, Scalar], dict[Scalar, int]] = {}
        for m in self.find("infer.pair_seconds"):
            pairs.setdefault((m.tags["batch_size"], m.tags["pair"]), {})[m.tags["side"]] = len(m.values)
        for (batch_size, pair), samples in pairs.items():
            if set(samples) != set(SIDES) or len(set(samples.values())) > 1:
                raise ValueError(f"infer.pair_seconds: pair {pair} at batch {batch_size} has the samples {samples}")

    def _check_counts(self) -> None:
        """Raise ValueError if more images were counted than tested."""
        for lost, gained in zip(
            self.find("infer.right_in_torch_only"), self.find("infer.right_in_engine_only"), strict=False
        ):
            images = lost.remarks["n"]
            counts = (lost.values[0], gained.values[0])
            if sum(counts) > float(images) or not all(count.is_integer() for count in counts):
                raise ValueError(f"infer.right_in_torch_only: {counts} of {images} images")

    def find(self, metric: str, **tags: Scalar) -> tuple[Measurement, ...]:
        """Return the measurements of one metric that carry these tags."""
        wanted = tags.items()
        return tuple(m for m in self.measurements if m.metric == metric and wanted <= m.tags.items())


def single(
    metric: str,
    unit: str,
    value: float,
    better: Literal["lower", "higher"] | None = None,
    remarks: Mapping[str, Scalar] = {},
    /,
    **tags: Scalar,
) -> Measurement:
    """Return a measurement of one value."""
    return Measurement(metric=metric, unit=unit, better=better, values=(value,), tags=tags, remarks=remarks)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
