"""The messages between processes: frozen models of one union, each of them a line of JSON on a pipe.

The two sides of a comparison may be two versions of cnnperf, so what these say to each other is a protocol: a change of
their messages, or of how they are written, counts `PROTOCOL` up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, PlainSerializer, TypeAdapter, model_validator

from cnnperf.record import Machine, Record
from cnnperf.sides import Side
from cnnperf.task import Choice, Frozen, Task
from cnnperf.timing.sampling import Sample

PROTOCOL = 3
"""Version of what the sides of a comparison say to each other."""

LETTERS: Mapping[Side, str] = {"baseline": "A", "candidate": "B"}
"""How the protocol, and stored samples, write the sides in an order of turns: `ABBABAAB…`."""


def letters(order: Iterable[Side]) -> str:
    """Write an order of turns, a letter a sample."""
    return "".join(LETTERS[side] for side in order)


def _side(value: str) -> str:
    """Read a side from its letter, or as it is."""
    return next((side for side, letter in LETTERS.items() if letter == value), value)


def _sides(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(_side, value))


class Opening(Frozen):
    """A request to prepare one metric of one cell."""

    kind: Literal["open"] = "open"
    task: dict[str, Any]
    """A document and no Task, whose fields differ between versions. Of the stage `train`; its settings are those that
    the suite chooses, and the side adds its own recipe's."""
    metric: str
    folder: Path
    """Where the images lie as arrays."""
    store: Path
    """Where weights and reference outputs lie, the same for both sides."""
    leads: bool = False
    """Whether to leave them there rather than to find them."""
    tree: Path | None = None
    """The worktree of the revision that is measured …"""
    repository: Path | None = None
    """… and the tree that it is of, none of whose code may be measured in its place; None where it is no revision."""
    slowdown: float = 0.0
    """After each call wait for so much of the time it took: what the gate is tested with."""
    slowdown_by: Literal["spin", "sleep"] = "spin"


class Load(Frozen):
    """A request to load an engine's network, and where its task finds its artifacts."""

    kind: Literal["load"] = "load"
    task: Task
    run: Path
    folder: Path
    """Where the images lie as arrays."""
    needs: tuple[Record, ...]
    engine: Choice


class Bind(Frozen):
    """A request to have the engine's next calls take a batch of this size."""

    kind: Literal["bind"] = "bind"
    batch_size: int


class Settle(Frozen):
    """A request to warm up what was prepared, alone, and to find how many calls make a sample."""

    kind: Literal["settle"] = "settle"


class Turns(Frozen):
    """A request to take samples in turns: who works when."""

    kind: Literal["play"] = "play"
    me: Annotated[Side, BeforeValidator(_side), PlainSerializer(LETTERS.__getitem__)]
    order: Annotated[tuple[Side, ...], BeforeValidator(_sides), PlainSerializer(letters)]
    """A side a sample."""
    calls: int
    warmup: int
    """Pairs at least, before anything counts."""
    warmup_s: float


class Hello(Frozen):
    """What a version says of itself as soon as its process is ready to be asked."""

    kind: Literal["hello"] = "hello"
    protocol: int
    facts: dict[str, Any] = Field(default={})
    """What must be equal on both sides for their times to be comparable, by name; what it is depends on the version."""
    machine: Machine | None = None
    """Machine and software as this side sees them; None from a version of another protocol."""

    @model_validator(mode="before")
    @classmethod
    def _of_other_protocol(cls, value: Any) -> Any:
        """Read nothing but the number where it is another: all else may have another form."""
        is_other = isinstance(value, dict) and value.get("protocol") != PROTOCOL
        return {name: value[name] for name in ("kind", "protocol") if name in value} if is_other else value


class Opened(Frozen):
    """The answer of a side that has prepared a metric."""

    kind: Literal["opened"] = "opened"
    outputs: dict[str, float]
    """What it computed, for the sides to be compared by."""
    settings: dict[str, Any]
    """All that the training stands on, the recipe that this side's model recommends filled in."""
    source: Path | None
    """The file that the model was imported from; None where it has none."""
    strays: tuple[Path, ...] = ()
    """Files of the repository's present tree that were imported although a revision of it is measured."""


class Absent(Frozen):
    """The answer of a side that does not have what it was asked to prepare."""

    kind: Literal["absent"] = "absent"
    reason: str


class Loaded(Frozen):
    """The answer of a side whose engine has its network."""

    kind: Literal["loaded"] = "loaded"


class Bound(Frozen):
    """The answer of a side whose engine has a batch."""

    kind: Literal["bound"] = "bound"


class Settled(Frozen):
    """The answer of a side that has warmed up alone."""

    kind: Literal["settled"] = "settled"
    calls: int
    """In a sample."""
    call_s: float
    steady: bool


class Taken(Frozen):
    """The samples of one side."""

    kind: Literal["taken"] = "taken"
    samples: tuple[Sample, ...]
    warmup: tuple[Sample, ...]
    steady: bool
    """Whether both sides were when it began to count."""
    blocked_s: float
    """How long it waited for the other from the first turn to the last …"""
    blocked_cpu_s: float
    """… and the CPU time that it used meanwhile, all threads."""


class Failed(Frozen):
    """Why a process could not do what it was asked, in words."""

    kind: Literal["error"] = "error"
    reason: str


class Refused(Frozen):
    """Why a request cannot be carried out, to be raised by the parent."""

    kind: Literal["refused"] = "refused"
    error: str
    """The name of a class of `cnnperf.errors`."""
    reason: str


class Progressed(Frozen):
    """Numbers of a task for the screen, by name."""

    kind: Literal["progress"] = "progress"
    numbers: dict[str, int | float]


class Noted(Frozen):
    """What is under way, in words for the screen."""

    kind: Literal["note"] = "note"
    text: str


class Received(Frozen):
    """How many bytes of a dataset have arrived."""

    kind: Literal["received"] = "received"
    dataset: str
    done: int
    total: int


class GaveUp(Frozen):
    """A dataset's download has ended without the dataset."""

    kind: Literal["gave_up"] = "gave_up"
    dataset: str


class Answered(Frozen):
    """The answer to a process's one request."""

    kind: Literal["answer"] = "answer"
    document: str
    """A sentence, or the JSON of a model that the asker knows."""


class DeviceFound(Frozen):
    """A device is there; what torch says of its build."""

    kind: Literal["device"] = "device"
    label: str
    facts: dict[str, Any]


class ReadingTaken(Frozen):
    """A claim's process has one figure and what it is compared with."""

    kind: Literal["reading"] = "reading"
    document: str
    """The JSON of a Reading of `cnnperf.claims`."""


class ClaimSkipped(Frozen):
    """Why a claim, or a device, cannot be put to the test here."""

    kind: Literal["skip"] = "skip"
    reason: str


class ClaimEnded(Frozen):
    """A claim's process has come to the end of its claim, however that went."""

    kind: Literal["end"] = "end"


ToSide = Opening | Load | Bind | Settle | Turns
FromSide = Hello | Opened | Absent | Loaded | Bound | Settled | Taken | Failed
FromWorker = Refused | Progressed | Noted | Received | GaveUp | Answered
FromClaim = DeviceFound | ReadingTaken | ClaimSkipped | ClaimEnded
Message = ToSide | FromSide | FromWorker | FromClaim

_UNION: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])
_WRITTEN = {"opened": "open", "settled": "settle", "taken": "play"}
"""Answers that the protocol names by their request."""
_READ = {written: kind for kind, written in _WRITTEN.items()}


class MalformedError(Exception):
    """A line that is no message."""


def encode(message: Message) -> bytes:
    """Write a message: a request as `{"do": kind, "with": fields}`, all else as `{kind: fields}`."""
    document: dict[str, Any]
    fields = message.model_dump(mode="json", by_alias=True, exclude={"kind"})
    if isinstance(message, get_args(ToSide)):
        document = {"do": message.kind, "with": fields}
    elif isinstance(message, Failed):
        document = {"error": message.reason}
    elif isinstance(message, Absent):
        document = {"open": {"absent": message.reason}}
    else:
        document = {_WRITTEN.get(message.kind, message.kind): fields}
    return json.dumps(document).encode() + b"\n"


def decode(line: bytes | str) -> Message:
    """Read a message. Fields that another version adds to an answer are passed over. Raises MalformedError."""
    try:
        kind, fields, is_request = _parts(json.loads(line))
        return _UNION.validate_python({**fields, "kind": kind}, extra="forbid" if is_request else "ignore")
    except (ValueError, TypeError) as error:
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
