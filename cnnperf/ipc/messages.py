"""The messages between processes: frozen models of one union, each of them a line of JSON.

A side of a comparison receives its requests one by one; any other worker receives a single request at its start.
The two sides of a comparison may be different versions of cnnperf. Their messages form a protocol: a change of these
messages or of their encoding increments `PROTOCOL`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, PlainSerializer, TypeAdapter, ValidationError, model_validator

from cnnperf.errors import first_error, shorten
from cnnperf.ipc.checked_figure import CheckedFigure
from cnnperf.record import Machine, Record
from cnnperf.sides import Side
from cnnperf.suite import Suite
from cnnperf.task import Cell, Choice, Frozen, Task
from cnnperf.timing.sampling import Sample

PROTOCOL = 3
"""Version of the messages between the sides of a comparison."""

LETTERS: Mapping[Side, str] = {"baseline": "A", "candidate": "B"}
"""Letters of the sides in an order of turns, in messages and stored samples: `ABBABAAB…`."""


def letters(order: Iterable[Side]) -> str:
    """Write an order of turns, one letter per sample."""
    return "".join(LETTERS[side] for side in order)


def _side(value: str) -> str:
    """Read a side from its letter or its name."""
    return next((side for side, letter in LETTERS.items() if letter == value), value)


def _sides(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(_side, value))


class Opening(Frozen):
    """A request to prepare one metric of one cell."""

    kind: Literal["open"] = "open"
    task: dict[str, Any]
    """A task of the stage `train` as a plain document, because the fields of Task differ between versions. The
    document contains the suite's settings; each side adds those of its own recipe."""
    metric: str
    folder: Path
    """Folder of the images as arrays."""
    store: Path
    """Folder of the weights and reference outputs, the same for both sides."""
    leads: bool = False
    """Whether this side writes the weights and reference outputs; otherwise it reads them."""
    tree: Path | None = None
    """The worktree of the measured revision."""
    repository: Path | None = None
    """The main worktree, from which no code may be imported instead; None if no revision is measured."""
    slowdown: float = 0.0
    """Artificial slowdown for tests of the gate: after each call, wait for this fraction of its duration."""
    slowdown_by: Literal["spin", "sleep"] = "spin"


class Load(Frozen):
    """A request to load an engine's network, with the paths of the task's artifacts."""

    kind: Literal["load"] = "load"
    task: Task
    run: Path
    folder: Path
    """Folder of the images as arrays."""
    needs: tuple[Record, ...]
    engine: Choice


class Bind(Frozen):
    """A request to set the batch size of the engine's next calls."""

    kind: Literal["bind"] = "bind"
    batch_size: int


class Settle(Frozen):
    """A request to warm up the prepared work alone and to choose the number of calls per sample."""

    kind: Literal["settle"] = "settle"


class Turns(Frozen):
    """A request to take samples in turns, in the given order."""

    kind: Literal["play"] = "play"
    me: Annotated[Side, BeforeValidator(_side), PlainSerializer(LETTERS.__getitem__)]
    order: Annotated[tuple[Side, ...], BeforeValidator(_sides), PlainSerializer(letters)]
    """The side of each sample."""
    calls: int
    warmup: int
    """Minimum number of pairs before samples count."""
    warmup_s: float


class TaskRequest(Frozen):
    """A request to run one task, with the information that its process needs."""

    kind: Literal["task"] = "task"
    task: Task
    machine: Machine
    run: Path
    folder: Path
    """Folder of the images as arrays."""
    answer: Path
    """The file that takes the record."""
    nonce: str
    """Unique identifier of this attempt, repeated in the answer."""
    needs: tuple[Record, ...] = ()
    """Records of the needed tasks, without measurements."""


class RankRequest(Frozen):
    """A request to train as one of several processes, from rank 0 of them."""

    kind: Literal["rank"] = "rank"
    task: Task
    device: Choice
    """The device of this process."""
    folder: Path
    """Folder of the images as arrays."""
    rank: int
    port: int
    """Port of the store, on this machine, by which the processes find each other."""


class SuiteRequest(Frozen):
    """A request to check a suite and to prepare its data."""

    kind: Literal["prepare"] = "prepare"
    suite: Suite
    where: str
    """Name of the suite in errors: its path."""
    only: str | None = None
    """A glob over the cells; other cells are ignored."""
    data: Path | None = None
    """The folder given as --data."""
    quick: bool = False
    """Cut every stage's budget to a few seconds."""
    download: bool = True
    """Download missing data; otherwise the answer only states the size of the download."""
    probes: bool = False
    """Measure the pace of networks that is unknown, for the estimates."""
    given_up: dict[str, str] = Field(default={})
    """Datasets that must not be tried again, with the reason."""
    allow_busy: bool = False
    """Measure on devices although other processes compute there."""
    is_elsewhere: bool = False
    """Whether other machines run the tasks, so that nobody minds other processes on this one's devices."""


class CellRequest(Frozen):
    """A request to a node: run the pending tasks of one cell of a suite."""

    kind: Literal["cell"] = "cell"
    asked: SuiteRequest
    """The suite with this cell alone."""
    cell: Cell
    keys: tuple[str, ...]
    """Keys of all tasks of the cell, as the head planned them."""
    version: str
    """Version of the head's cnnperf."""
    records: tuple[Record, ...] = ()
    """Records, without measurements, of the cell's tasks that ended well before; their artifacts are sent too."""
    strict: int | None = None
    """How often a disturbed task is tried again; None: it ends like others."""


class DataRequest(Frozen):
    """A request of `cnnperf data` for one dataset."""

    kind: Literal["data"] = "data"
    verb: Literal["fetch", "verify"]
    dataset: str
    data: Path | None = None
    """The folder given as --data."""


class SchemaRequest(Frozen):
    """A request for the JSON schema of suite files."""

    kind: Literal["schema"] = "schema"


class ChoiceRequest(Frozen):
    """A request to describe a choice of a room that has options."""

    kind: Literal["choice"] = "choice"
    room: str
    name: str


class DeviceRequest(Frozen):
    """A request to describe a device."""

    kind: Literal["describe"] = "describe"
    device: str


class ClaimRequest(Frozen):
    """A request to test one claim on a device."""

    kind: Literal["claim"] = "claim"
    device: str
    claim: str
    scratch: Path
    """Folder shared by all claims of a session."""
    seconds: float
    """Time limit of the claim in seconds."""
    threads: int


class Hello(Frozen):
    """A version's description of itself, sent when its process is ready for requests."""

    kind: Literal["hello"] = "hello"
    protocol: int
    facts: dict[str, Any] = Field(default={})
    """Facts that must be equal on both sides for comparable times, by name; the names depend on the version."""
    machine: Machine | None = None
    """Machine and software as this side reports them; None from a version of another protocol."""

    @model_validator(mode="before")
    @classmethod
    def _of_other_protocol(cls, value: Any) -> Any:
        """Read only the number if the protocol differs: the other fields may have another form."""
        is_other = isinstance(value, dict) and value.get("protocol") != PROTOCOL
        return {name: value[name] for name in ("kind", "protocol") if name in value} if is_other else value


class Opened(Frozen):
    """The answer of a side that has prepared a metric."""

    kind: Literal["opened"] = "opened"
    outputs: dict[str, float]
    """Computed outputs, compared between the sides."""
    settings: dict[str, Any]
    """All settings of the training, including those of this side's model recipe."""
    source: Path | None
    """The file that the model was imported from; None if there is none."""
    strays: tuple[Path, ...] = ()
    """Imported files of the repository's current tree, although a revision is measured."""


class Absent(Frozen):
    """The answer of a side that does not have the requested metric."""

    kind: Literal["absent"] = "absent"
    reason: str


class Loaded(Frozen):
    """The answer of a side whose engine has loaded its network, or of a rank that is about to join the others."""

    kind: Literal["loaded"] = "loaded"


class Bound(Frozen):
    """The answer of a side whose engine has a batch."""

    kind: Literal["bound"] = "bound"


class Settled(Frozen):
    """The answer of a side that has warmed up alone."""

    kind: Literal["settled"] = "settled"
    calls: int
    """Number of calls per sample."""
    call_s: float
    steady: bool


class Taken(Frozen):
    """The samples of one side."""

    kind: Literal["taken"] = "taken"
    samples: tuple[Sample, ...]
    warmup: tuple[Sample, ...]
    steady: bool
    """Whether both sides were steady when counting began."""
    blocked_s: float
    """Time that this side waited for the other, from the first turn to the last."""
    blocked_cpu_s: float
    """CPU time that this side used while waiting, all threads."""


class Failed(Frozen):
    """The reason why a process could not fulfil a request."""

    kind: Literal["error"] = "error"
    reason: str


class Refused(Frozen):
    """The reason why a request cannot be carried out, raised as an error by the parent."""

    kind: Literal["refused"] = "refused"
    error: str
    """Name of a class in `cnnperf.errors`."""
    reason: str


class Progressed(Frozen):
    """Numbers of a task for the screen, by name."""

    kind: Literal["progress"] = "progress"
    numbers: dict[str, int | float]


class Noted(Frozen):
    """A description of the work that begins: of the check for the screen, or the phase of a task."""

    kind: Literal["note"] = "note"
    text: str


class Answered(Frozen):
    """A task's process has written its record and has nothing more to do."""

    kind: Literal["answered"] = "answered"


class Arrived(Frozen):
    """A cell has begun on a node."""

    kind: Literal["arrived"] = "arrived"
    machine: Machine
    niceness: int
    """Scheduling priority of the processes of the node; above 0: behind those of others."""


class Begun(Frozen):
    """A task has begun on a node."""

    kind: Literal["begun"] = "begun"
    label: str


class Recorded(Frozen):
    """A task has ended on a node, and its files are in the node's folder."""

    kind: Literal["recorded"] = "recorded"
    record: Record


class CellEnded(Frozen):
    """All tasks of a cell have ended on a node."""

    kind: Literal["cell_ended"] = "cell_ended"


class Received(Frozen):
    """Number of bytes of a dataset downloaded so far."""

    kind: Literal["received"] = "received"
    dataset: str
    done: int
    total: int


class GaveUp(Frozen):
    """A dataset's download has ended without the dataset."""

    kind: Literal["gave_up"] = "gave_up"
    dataset: str


class Ready(Frozen):
    """A task completed by preflight, with its estimates."""

    task: Task
    chosen: dict[str, Any] = Field(default={})
    """The suite's section of the stage, without defaults, recipe and the model's override."""
    folder: Path | None
    """Folder of the images as arrays; None if they are missing (without `download`)."""
    skip: str | None
    """Reason why the task cannot run on this machine; None if it can."""
    estimate_s: float
    nominal_s: float
    """Planned seconds on one core of a nominal machine, whatever this machine is and has."""
    weight_bytes: int
    """Size of the files with the network's weights that the task leaves in the run folder."""


class Prepared(Frozen):
    """The answer about a suite: the tasks in order, and warnings about the data."""

    kind: Literal["prepared"] = "prepared"
    tasks: tuple[Ready, ...]
    warnings: tuple[str, ...]
    downloads: dict[str, int]
    """Datasets still to be downloaded and their bytes, if `download` was off."""


class DataHandled(Frozen):
    """The answer about a dataset that was fetched or verified: a sentence."""

    kind: Literal["handled"] = "handled"
    sentence: str


class SchemaWritten(Frozen):
    """The answer with the JSON schema of suite files."""

    kind: Literal["written"] = "written"
    document: dict[str, Any]


class ChoiceDescribed(Frozen):
    """The answer about a choice."""

    kind: Literal["choice_described"] = "choice_described"
    options: dict[str, Any]
    """The JSON schema of each option, by name."""
    required: tuple[str, ...]
    """The options without a default."""
    recipes: dict[str, dict[str, Any]]
    """The training settings that a model recommends on the CPU, by dataset; empty for other choices."""


class DeviceFound(Frozen):
    """A device is available; torch's description of its build."""

    kind: Literal["device"] = "device"
    label: str
    facts: dict[str, Any]


class ReadingTaken(Frozen):
    """One figure of a claim and its reference value."""

    kind: Literal["reading"] = "reading"
    reading: CheckedFigure


class ClaimSkipped(Frozen):
    """The reason why a claim or a device cannot be tested here."""

    kind: Literal["skip"] = "skip"
    reason: str


class ClaimEnded(Frozen):
    """A claim's process has finished its claim, with any result."""

    kind: Literal["end"] = "end"


ToSide = Opening | Load | Bind | Settle | Turns
ToPreflight = SuiteRequest | DataRequest | SchemaRequest | ChoiceRequest
ToClaim = DeviceRequest | ClaimRequest
FromSide = Hello | Opened | Absent | Loaded | Bound | Settled | Taken | Failed
FromPreflight = Prepared | DataHandled | SchemaWritten | ChoiceDescribed
FromWorker = Refused | Progressed | Answered | Noted | Received | GaveUp | FromPreflight
FromNode = Arrived | Begun | Progressed | Recorded | CellEnded | Refused
FromClaim = DeviceFound | ReadingTaken | ClaimSkipped | ClaimEnded
ToTask = TaskRequest | RankRequest
Message = ToSide | ToPreflight | ToTask | CellRequest | ToClaim | FromSide | FromWorker | FromNode | FromClaim

_UNION: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])
_WRITTEN = {"opened": "open", "settled": "settle", "taken": "play"}
"""Answers that the protocol names after their request."""
_READ = {written: kind for kind, written in _WRITTEN.items()}
_REQUESTS = get_args(ToSide | ToPreflight | ToTask | CellRequest | ToClaim)


class MalformedError(Exception):
    """A line is not a message."""


def encode(message: Message) -> bytes:
    """Write a message: a request as `{"do": kind, "with": fields}`, all else as `{kind: fields}`."""
    document: dict[str, Any]
    fields = message.model_dump(mode="json", by_alias=True, exclude={"kind"}, exclude_computed_fields=True)
    if isinstance(message, _REQUESTS):
        document = {"do": message.kind, "with": fields}
    elif isinstance(message, Failed):
        document = {"error": message.reason}
    elif isinstance(message, Absent):
        document = {"open": {"absent": message.reason}}
    else:
        document = {_WRITTEN.get(message.kind, message.kind): fields}
    return json.dumps(document).encode() + b"\n"


def decode(line: bytes | str) -> Message:
    """Read a message. Unknown fields of an answer, from another version, are ignored. Raises MalformedError."""
    try:
        kind, fields, is_request = _parts(json.loads(line))
        return _UNION.validate_python({**fields, "kind": kind}, extra="forbid" if is_request else "ignore")
    except ValidationError as error:
        raise MalformedError(f"{type(error).__name__}: {shorten(first_error(error))}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise MalformedError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error


def _parts(document: Any) -> tuple[str, dict[str, Any], bool]:
    """Return the kind of a message, its fields, and whether it is a request."""
    match document:
        case {"do": str(kind), "with": dict(fields)}:
            return kind, fields, True
        case {"error": str(reason)}:
            return "error", {"reason": reason}, False
        case {"open": {"absent": reason}}:
            return "absent", {"reason": reason}, False
        case dict() if len(document) == 1:
            [written] = document
            return _READ.get(str(written), str(written)), document[written], False
    raise ValueError("not a message")
