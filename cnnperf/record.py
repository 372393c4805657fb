"""The record: what one task left behind, and the file of JSON lines that keeps it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from io import FileIO
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock, Timeout
from pydantic import ConfigDict, Field, ValidationError

from cnnperf.errors import CnnperfWarning, StageError, StoreError, first_error
from cnnperf.task import Frozen, Scalar, Task

SCHEMA = 2
"""Version of the record's form. 1: the first; 2: remarks beside tags, checksums of lines and artifacts, a nonce."""

FILE = "records.jsonl"

PARITY = "infer.parity"
"""Whether an engine computes what torch computes, as its task judged it: 1 or 0."""

_CURE = "restore the file from a copy or remove the line"
_CHECKSUM = re.compile(rb',"checksum":"([0-9a-f]{8})"\}\Z')
_BLOCK = 4096
"""Bytes to read at once in search of a line's beginning."""

_RENAMED_1 = {"train.images_per_s": "train.total_images_per_s"}
"""Metrics that some versions of schema 1 recorded under another name."""
_REMARKS_1 = frozenset(
    (
        *("n", "images", "calls", "pairs", "unsteady_pairs", "steady", "disturbed", "resolution_s"),
        *("weights", "order", "type", "inputs", "outputs", "dtype", "uncounted", "at", "bound", "at_batch_size"),
        *("interop_threads", "spinning", "waiting", "provider", "optimization", "input"),
        *("calibration_images", "cpu_flags", "label", "tf32", "cudnn_benchmark", "deterministic", "precision"),
    )
)
"""Remarks that schema 1 kept among the tags."""
_PLACE_1 = frozenset(("step", "samples", "seconds", "epoch"))
"""The same of a point of a curve, which has a `step`."""

Status = Literal["ok", "failed", "timeout", "skipped"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Measurement(Frozen):
    """One quantity as it was measured: every raw value, in SI units, in order; none deleted."""

    metric: str
    """`<stage>.<quantity>`, such as `train.step_time`."""
    unit: str
    """`s`, `bytes`, `fraction`, `count`, `images/s`, or `1` for a pure number."""
    better: Literal["lower", "higher"] | None
    """Which direction is an improvement; None for what is neither, which is compared with nothing."""
    values: tuple[Finite, ...]
    tags: Mapping[str, Scalar] = {}
    """What tells it apart from others of its metric: `engine`, `layer`, `batch_size`.

    The size of a file names it as `artifact`: that tells it from the bytes of memory, which are never quite the same.
    """
    remarks: Mapping[str, Scalar] = {}
    """What is known about it and tells it from no other: of how many images it is (`n`), what disturbed it
    (`disturbed`), how an engine was configured (`provider`); of a point of a curve, its place (`step`)."""

    @property
    def is_point(self) -> bool:
        """Whether it is one point of a curve, as an evaluation during a training is."""
        return "step" in self.remarks


class Artifact(Frozen):
    """A file that a task wrote."""

    path: str
    """Relative to the run folder."""
    sha256: str | None = None
    """Over its content; None in records of schema 1, which have none."""

    @classmethod
    def of(cls, run: Path, path: str) -> Artifact:
        """Describe a file as it is now. Raises OSError."""
        return cls(path=path, sha256=_sha256(run / path))

    def verified(self, run: Path) -> Path:
        """Return the file. Raises StageError if it is gone, or no longer what its task wrote."""
        path = run / self.path
        try:
            found = self.sha256 and _sha256(path)
        except OSError as error:
            raise StageError(f"{path}: cannot be read ({error.strerror}); run the task that wrote it again") from error
        if found != self.sha256:
            raise StageError(
                f"{path}: its content has changed since its task wrote it (sha256 {found}, recorded {self.sha256}); "
                "restore it from a copy, or run the task that wrote it again"
            )
        return path


class Processor(Frozen):
    """The processor as the kernel describes it; a field is absent where the kernel does not tell."""

    vendor: str | None = None
    """As `/proc/cpuinfo` writes it: `AuthenticAMD`; on ARM the implementer's number, `0x41`."""
    family: str | None = None
    model: str | None = None
    """The model's number; on ARM the part's, `0xd0c`. Cores of several models: all of them, joined by `+`."""
    stepping: str | None = None
    """On ARM variant and revision, `r3p1`."""
    microcode: str | None = None
    instruction_sets: tuple[str, ...] | None = None
    """On x86 the flags of vector and matrix instructions (AVX, AVX-512, VNNI, BF16, AMX), on ARM all `Features`."""
    cache_bytes: Mapping[str, int] = {}
    """Size of one cache of the first core by name: `L1d`, `L1i`, `L2`, `L3`."""
    physical_cores: int | None = None
    """Cores of the machine, not only those that this process may use; two threads of one core count once."""
    smt: bool | None = None
    """Whether two threads share a core now."""
    nominal_hz: Finite | None = None
    """The frequency that the maker names, without boost."""
    frequency_hz: Finite | None = None
    """Mean over the cores when the machine was described; `<metric>_frequency` is that during a measurement."""
    virtual: bool | None = None
    """Whether the processor says that a hypervisor runs below this system."""
    hypervisor: str | None = None
    """Its vendor: `KVM`."""
    numa_nodes: int | None = None

    @property
    def identity(self) -> str | None:
        """Word what tells it from another processor of its name: `family 25 model 17 stepping 1`."""
        facts = {"family": self.family, "model": self.model, "stepping": self.stepping}
        return " ".join(f"{name} {value}" for name, value in facts.items() if value) or None


class Platform(Frozen):
    """The kernel and the C library, with what they decide about memory; a field is absent where they do not tell."""

    kernel: str | None = None
    libc: str | None = None
    """Name and version: `glibc 2.36`."""
    page_bytes: int | None = None
    transparent_hugepages: str | None = None
    """`always`, `madvise` or `never`."""


class Gpu(Frozen):
    """A GPU, or an instance of one (MIG), as the driver and torch describe it; a field is absent where neither does."""

    name: str
    uuid: str | None = None
    """With its prefix: `GPU-…`, of an instance `MIG-…`."""
    mig: str | None = None
    """The profile of an instance: `3g.20gb`; None for a whole GPU."""
    board: str | None = None
    """The UUID of the GPU that an instance is part of."""
    index: int | None = None
    """The GPU's place in the order of the PCI bus, which need not be its CUDA index."""
    pci_bus_id: str | None = None
    capability: str | None = None
    """Compute capability: `9.0`."""
    memory_bytes: int | None = None
    """Memory of the whole GPU, as the driver counts it."""
    usable_bytes: int | None = None
    """Memory that torch may use: less than the former by what the driver keeps, or an instance's share."""
    multiprocessors: int | None = None

    @property
    def label(self) -> str:
        """Word what must be equal for two GPUs to be alike: name, memory, compute capability and profile."""
        size = self.memory_bytes or self.usable_bytes
        facts = (
            f"{size / 2**30:.0f} GiB" if size else None,
            f"compute capability {self.capability}" if self.capability else None,
            f"MIG {self.mig}" if self.mig else None,
        )
        return ", ".join((self.name, *filter(None, facts)))


class Libraries(Frozen):
    """The libraries that the process of a task computed with, as it saw them itself at its end."""

    openmp: tuple[str, ...] | None = None
    """The files of all OpenMP runtimes in the process, below `site-packages` where they lie there."""
    allocators: tuple[str, ...] | None = None
    """The files of all allocators in the process that stand in for the C library's."""
    onednn: str | None = None
    mkl: str | None = None
    openmp_version: str | None = None
    """The specification that torch was built for, by its date: `201511` is OpenMP 4.5."""
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
    """The processor's name, which need not tell two processors apart: `cpu_model` does."""
    cores: int
    """Cores that this process may use: affinity and cgroup quota count."""
    memory_bytes: int
    governor: str | None = None
    gpu: str | None = None
    """The accelerator's name."""
    driver: str | None = None
    python: str
    packages: Mapping[str, str]
    """Versions of cnnperf and of the packages that do the work, by name."""
    commit: str | None = None
    """Git commit of cnnperf's checkout, `+` behind it where files were changed; None for an installed one."""
    threads: int | None = None
    """Threads of the computation as read back from the library that ran it; None if it never started."""
    processor: Processor | None = None
    """None in records of versions that did not ask; so are the fields below."""
    platform: Platform | None = None
    gpus: tuple[Gpu, ...] = ()
    """All GPUs and instances of the machine, whichever is used."""
    accelerator: Gpu | None = None
    """The GPU that CUDA offers first, or the one that torch computed on; None where the former cannot be told."""
    environment: Mapping[str, str] | None = None
    """Variables of the task's process that decide about allocator, threads, kernels and GPU; None if it told none."""
    libraries: Libraries | None = None
    """None if the task's process told none."""

    @property
    def cpu_model(self) -> str | None:
        """Return name, family, model and stepping of the processor; None where they are not known."""
        identity = self.processor.identity if self.processor else None
        return f"{self.cpu}, {identity}" if identity else None

    @property
    def instruction_sets(self) -> str | None:
        """Return the processor's instruction sets in one line; None where they are not known."""
        found = self.processor.instruction_sets if self.processor else None
        return None if found is None else " ".join(found)

    def label(self, device: str) -> str | None:
        """Return the hardware of a device, by the stem of its file, as far as it is known."""
        if device == "cpu":
            return self.cpu_model or self.cpu
        return self.accelerator.label if self.accelerator else self.gpu


class Record(Frozen):
    """The record of one task: what ran where and with which settings, how it ended, and its raw samples."""

    version: int = Field(default=SCHEMA, alias="schema")
    task: Task
    key: str
    """The task's key when it ran; resume goes by it."""
    nonce: str | None = None
    """Tells this attempt at the task from every other; None if no process was started, and in records of schema 1."""
    machine: Machine
    started: str
    """UTC, ISO 8601."""
    duration_s: Finite
    """Wall time from spawn to exit."""
    parent_cpu_s: Finite = 0.0
    """CPU time that the parent used meanwhile."""
    status: Status
    error: str | None = None
    signal: str | None = None
    log_tail: tuple[str, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    artifacts: Mapping[str, Artifact] = {}
    """What the task wrote, by kind: `weights`, `examples`."""

    def find(self, metric: str, **tags: Scalar) -> tuple[Measurement, ...]:
        """Return the measurements of one metric that carry these tags."""
        wanted = tags.items()
        return tuple(m for m in self.measurements if m.metric == metric and wanted <= m.tags.items())


def lock(run: Path) -> FileLock:
    """Return the lock that a writer of a run folder holds; acquiring it does not wait."""
    return FileLock(run / ".lock", timeout=0)


def line_of(record: Record) -> bytes:
    """Return the line that keeps a record."""
    return sealed(record.model_dump_json(by_alias=True).encode())


def sealed(content: bytes) -> bytes:
    """Return the line of a JSON object, with the CRC-32 of its content as the last field."""
    return content[:-1] + b',"checksum":"%08x"}\n' % zlib.crc32(content)


def append(run: Path, record: Record) -> None:
    """Write one record as a line and fsync it, so that a crash loses one task and never a run.

    The caller holds the lock. What a crash left of a line goes first, and a line that could not be written whole (disk
    full) is taken back. Raises OSError.
    """
    line = line_of(record)
    with open(run / FILE, "a+b", buffering=0) as file:
        start = _end_of_last_line(file)
        file.truncate(start)
        try:
            written = 0
            while written < len(line):
                written += file.write(line[written:])
            os.fsync(file.fileno())
        except OSError:
            file.truncate(start)
            raise


def read(run: str | Path) -> tuple[Record, ...]:
    """Read a run folder's records, the latest of each task, in the order in which the tasks first ran.

    A torn last line, left by a crash, is dropped with a warning and removed from the file unless a run is writing it.
    Records of schema 1 are read as of today's. Raises StoreError for a folder without records, a line that is no record
    or does not match its checksum, or a record of a newer cnnperf.
    """
    return _read(Path(run) / FILE, lock(Path(run)))


def read_locked(run: Path) -> tuple[Record, ...]:
    """Read a run folder's records as `read` does, for a caller that holds the lock."""
    return _read(run / FILE, nullcontext())


def _read(path: Path, locked: AbstractContextManager[object]) -> tuple[Record, ...]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be read ({error.strerror}); give a run folder, one that holds {FILE}"
        ) from error
    *lines, torn = content.split(b"\n")
    if torn:
        _repair(path, len(content) - len(torn), len(torn), locked)
    latest: dict[str, Record] = {}
    for number, line in enumerate(lines, start=1):
        record = _parse(line, f"{path}: line {number}")
        latest[record.key] = record
    return tuple(latest.values())


def kept_file(run: Path, task: Task) -> Path:
    """Return the file of measurements that survive the task's process while it runs."""
    return run / "artifacts" / task.key / "kept.jsonl"


def keep(run: Path, task: Task, measurements: Iterable[Measurement]) -> None:
    """Add measurements to those that survive the task's process."""
    path = kept_file(run, task)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(f"{measurement.model_dump_json()}\n" for measurement in measurements)


def kept(run: Path, task: Task) -> tuple[Measurement, ...]:
    """Return what a task kept."""
    path = kept_file(run, task)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else ()
    return tuple(Measurement.model_validate_json(line) for line in lines)


def _repair(path: Path, length: int, lost: int, locked: AbstractContextManager[object]) -> None:
    try:
        with locked:
            os.truncate(path, length)
    except Timeout:
        return  # A run is writing that very line.
    except OSError:
        pass  # A folder that may only be read: the line is passed over each time.
    warnings.warn(f"{path}: the last line was torn by a crash ({lost} bytes); dropped", CnnperfWarning, stacklevel=4)


def _end_of_last_line(file: FileIO) -> int:
    """Return where the last whole line ends: at the end of the file, unless a crash left a torn line there."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _parse(line: bytes, where: str) -> Record:
    """Read a record. Raises StoreError for a line that is none, is damaged, or is of a newer cnnperf."""
    content, recorded = _unsealed(line)
    try:
        document: Any = json.loads(content)
    except ValueError as error:
        raise StoreError(f"{where}: not a record ({error}); {_CURE}") from error
    found = f"{zlib.crc32(content):08x}"
    if recorded not in (None, found):
        raise StoreError(f"{where}: damaged: its content has the checksum {found}, recorded is {recorded}; {_CURE}")
    version = document.get("schema") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA:
        raise StoreError(
            f"{where}: schema {version} is newer than {SCHEMA}, the newest that can be read; update cnnperf"
        )
    if version != 1 and recorded is None:
        raise StoreError(f"{where}: not a record: it has no checksum; {_CURE}")
    try:
        return Record.model_validate(_upgraded(document) if version == 1 else document)
    except ValidationError as error:
        raise StoreError(f"{where}: not a record: {first_error(error)}") from error


def _unsealed(line: bytes) -> tuple[bytes, str | None]:
    """Return the content of a line, and the checksum that it was recorded with, if any."""
    seal = _CHECKSUM.search(line)
    return (line[: seal.start()] + b"}", seal[1].decode()) if seal else (line, None)


class _Record1(Frozen):
    """As much of a record of schema 1 as differs from today's; the rest is passed on as it is."""

    model_config = ConfigDict(extra="allow")

    task: Mapping[str, Any]
    error: str | None = None
    measurements: tuple[Measurement, ...] = ()
    artifacts: Mapping[str, str] = {}


def _upgraded(document: Any) -> dict[str, Any]:
    """Turn a document of schema 1 into one of today's. Raises ValidationError for one that is no record."""
    old = _Record1.model_validate(document)
    measurements = [_upgraded_measurement(m) for m in old.measurements]
    return {
        **old.model_dump(by_alias=True, exclude={"measurements", "artifacts"}),
        "schema": SCHEMA,
        "measurements": (*measurements, *_upgraded_parity(old)),
        "artifacts": {kind: Artifact(path=path) for kind, path in old.artifacts.items()},
    }


def _upgraded_measurement(old: Measurement) -> Measurement:
    names = _REMARKS_1 | _PLACE_1 if "step" in old.tags else _REMARKS_1
    remarks = {name: value for name, value in old.tags.items() if name in names}
    tags = {name: value for name, value in old.tags.items() if name not in remarks}
    metric = _RENAMED_1.get(old.metric, old.metric)
    return old.model_copy(update={"metric": metric, "tags": tags, "remarks": remarks})


def _upgraded_parity(old: _Record1) -> Iterator[Measurement]:
    """Yield the verdict on parity, for which schema 1 has only the words of the error."""
    if old.task.get("stage") != "infer":
        return
    error = old.error or ""
    has_failed = "parity failed" in error
    if has_failed or {"infer.error_to_float64", "infer.test_accuracy"} <= {m.metric for m in old.measurements}:
        tags = {key: value for m in old.measurements for key, value in m.tags.items() if key == "engine"}
        yield single(PARITY, "1", 0 if has_failed else 1, None, {"fault": error} if has_failed else {}, **tags)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def read_runs(runs: str | Path | Iterable[str | Path]) -> dict[str, tuple[Record, ...]]:
    """Read the records of run folders, by the names that these have. Raises StoreError for one without records."""
    runs = [runs] if isinstance(runs, str | Path) else runs
    return {name: read(folder) for name, folder in run_folders(runs).items()}


def run_folders(runs: Iterable[str | Path]) -> dict[str, Path]:
    """Name run folders `<suite>/<utc>-<host>`, or by the whole path where two share that."""
    named: dict[str, Path] = {}
    for folder in dict.fromkeys(Path(run).resolve() for run in runs):
        name = "/".join(folder.parts[-2:])
        named[str(folder) if name in named else name] = folder
    return named
