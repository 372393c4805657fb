"""The messages between processes: how they are encoded and decoded."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import get_args

import pytest

from cnnperf.ipc import messages
from cnnperf.ipc.checked_figure import Bar, CheckedFigure
from cnnperf.ipc.messages import (
    PROTOCOL,
    Absent,
    Answered,
    Arrived,
    Begun,
    Bind,
    Bound,
    CellEnded,
    CellRequest,
    ChoiceDescribed,
    ChoiceRequest,
    ClaimEnded,
    ClaimRequest,
    ClaimSkipped,
    DataHandled,
    DataRequest,
    DeviceFound,
    DeviceRequest,
    Failed,
    GaveUp,
    Hello,
    Load,
    Loaded,
    MalformedError,
    Message,
    Noted,
    Opened,
    Opening,
    Prepared,
    Progressed,
    RankRequest,
    ReadingTaken,
    Ready,
    Received,
    Recorded,
    Refused,
    SchemaRequest,
    SchemaWritten,
    Settle,
    Settled,
    SuiteRequest,
    Taken,
    TaskRequest,
    Turns,
    decode,
    encode,
    letters,
)
from cnnperf.machine.fingerprint import fingerprint
from cnnperf.record import Artifact, Record
from cnnperf.suite import parse
from cnnperf.task import Cell, Choice, Task
from cnnperf.timing.sampling import Sample

TASK = Task(
    cell=Cell(
        dataset=Choice(name="mnist"), model=Choice(name="resnet", options={"depth": 8}), device=Choice(name="cpu")
    ),
    stage="infer",
    seed=0,
    threads=1,
    timeout_s=60,
)
RECORD = Record(
    task=TASK,
    key=TASK.key,
    machine=fingerprint(),
    started="2026-01-01T00:00:00.000+00:00",
    duration_s=1.5,
    status="ok",
    artifacts={"weights": Artifact(path="artifacts/weights.pt", sha256="0" * 64)},
)
READING = CheckedFigure(
    quantity="resident",
    unit="B",
    figure=2.0,
    reading=2.5,
    source="the kernel's page tables",
    bar=Bar.within(0.25, "pages"),
    interval=(-0.25, -0.125),
    raw={"figure": (2.0,), "reading": (2.5,)},
)
SUITE = parse(
    {
        "datasets": ["mnist"],
        "models": [{"name": "lenet", "train": {"lr": 0.25}}],
        "train": {"seconds": 3},
        "timeout_s": 60,
        "preflight_timeout_s": 30,
    },
    where="x.toml",
    name="x",
)
SAMPLE = Sample(0.1, 0.2, 3, None, 4)

OF_PROTOCOL: dict[str, tuple[Message, str]] = {
    "open": (
        Opening(task={"stage": "train"}, metric="train.step", folder=Path("/arrays"), store=Path("/store"), leads=True),
        '{"do": "open", "with": {"task": {"stage": "train"}, "metric": "train.step", "folder": "/arrays", '
        '"store": "/store", "leads": true, "tree": null, "repository": null, "slowdown": 0.0, "slowdown_by": "spin"}}',
    ),
    "settle": (Settle(), '{"do": "settle", "with": {}}'),
    "play": (
        Turns(me="candidate", order=("baseline", "candidate", "candidate"), calls=2, warmup=3, warmup_s=4.0),
        '{"do": "play", "with": {"me": "B", "order": "ABB", "calls": 2, "warmup": 3, "warmup_s": 4.0}}',
    ),
    "opened": (
        Opened(outputs={"loss": 2.5}, settings={"lr": 0.1}, source=Path("/m.py"), strays=(Path("/s.py"),)),
        '{"open": {"outputs": {"loss": 2.5}, "settings": {"lr": 0.1}, "source": "/m.py", "strays": ["/s.py"]}}',
    ),
    "absent": (Absent(reason="there is none"), '{"open": {"absent": "there is none"}}'),
    "settled": (
        Settled(calls=2, call_s=0.01, steady=True),
        '{"settle": {"calls": 2, "call_s": 0.01, "steady": true}}',
    ),
    "taken": (
        Taken(samples=(SAMPLE,), warmup=(), steady=False, blocked_s=1.0, blocked_cpu_s=0.5),
        '{"play": {"samples": [[0.1, 0.2, 3, null, 4]], "warmup": [], "steady": false, "blocked_s": 1.0, '
        '"blocked_cpu_s": 0.5}}',
    ),
    "error": (Failed(reason="out of memory: no more"), '{"error": "out of memory: no more"}'),
}
OTHERS: list[Message] = [
    Hello(protocol=PROTOCOL, facts={"cores": 2, "affinity": [0, 1]}, machine=fingerprint()),
    Load(task=TASK, run=Path("/run"), folder=Path("/arrays"), needs=(), engine=Choice(name="torch")),
    Bind(batch_size=8),
    CellRequest(
        asked=SuiteRequest(suite=SUITE, where="x.toml"), cell=TASK.cell, keys=("a",), version="0.1.0", records=(RECORD,)
    ),
    TaskRequest(
        task=TASK,
        machine=fingerprint(),
        run=Path("/run"),
        folder=Path("/arrays"),
        answer=Path("/run/answer.json"),
        nonce="5",
        needs=(RECORD,),
    ),
    RankRequest(task=TASK, device=TASK.cell.device, folder=Path("/arrays"), rank=1, port=5),
    SuiteRequest(suite=SUITE, where="x.toml", only="mnist*", data=Path("/data"), given_up={"mnist": "no network"}),
    DataRequest(verb="verify", dataset="mnist"),
    SchemaRequest(),
    ChoiceRequest(room="models", name="lenet"),
    DeviceRequest(device="cpu"),
    ClaimRequest(device="cpu", claim="layers", scratch=Path("/scratch"), seconds=2.5, threads=2),
    Loaded(),
    Bound(),
    Refused(error="UsageError", reason="no such thing"),
    Answered(),
    Arrived(machine=fingerprint(), niceness=0),
    Begun(label="mnist/mlp/cpu train"),
    Recorded(record=RECORD),
    CellEnded(),
    Progressed(numbers={"step": 3, "loss": 0.5}),
    Noted(text="at work"),
    Received(dataset="mnist", done=1, total=2),
    GaveUp(dataset="mnist"),
    Prepared(
        tasks=(
            Ready(
                task=TASK, chosen={"lr": 0.25}, folder=None, skip=None, estimate_s=2.5, nominal_s=5.0, weight_bytes=4
            ),
        ),
        warnings=("SYNTHETIC",),
        downloads={"mnist": 5},
    ),
    DataHandled(sentence="mnist: 60,000 + 10,000 images"),
    SchemaWritten(document={"properties": {"models": {"minItems": 1}}}),
    ChoiceDescribed(options={"depth": {"type": "integer"}}, required=("depth",), recipes={"mnist": {"lr": 0.1}}),
    DeviceFound(label="a device", facts={"torch": "2"}),
    ReadingTaken(reading=READING),
    ClaimSkipped(reason="no such device"),
    ClaimEnded(),
]


@pytest.mark.parametrize("name", OF_PROTOCOL)
def test_the_lines_of_the_protocol_are_what_other_revisions_write(name: str) -> None:
    """Each message of the protocol, version 3, is encoded as the line given here and decoded from it."""
    message, line = OF_PROTOCOL[name]
    assert PROTOCOL == 3
    assert encode(message) == line.encode() + b"\n"
    assert decode(line) == message


def test_a_hello_is_what_other_revisions_write() -> None:
    """A hello is encoded as an object with the key `hello` and its fields below."""
    said = json.loads(encode(OTHERS[0]))
    assert said == {
        "hello": {
            "protocol": 3,
            "facts": {"cores": 2, "affinity": [0, 1]},
            "machine": fingerprint().model_dump(mode="json"),
        }
    }


@pytest.mark.parametrize("message", OTHERS, ids=lambda message: message.kind)
def test_a_message_is_read_as_it_was_said(message: Message) -> None:
    """A message is encoded as one line, and decoded equal, with integers as integers."""
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode(line) == message
    assert repr(decode(line)) == repr(message)


def test_every_message_is_tested_here() -> None:
    """Each kind of message is tested in this file, and no two kinds have the same name."""
    tested = {type(message) for message, _ in OF_PROTOCOL.values()} | {type(message) for message in OTHERS}
    assert tested == set(get_args(Message))
    assert len({kind.model_fields["kind"].default for kind in get_args(Message)}) == len(get_args(Message))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no JSON",
        "5",
        "{}",
        '{"a": 1, "b": 2}',
        '{"unheard-of": {}}',
        '{"settle": 5}',
        '{"play": {"samples": [[1]]}}',
        "[" * 100_000,
    ],
)
def test_a_line_that_is_no_message_is_refused(line: str) -> None:
    """A line that is no JSON, of an unknown kind or without its fields is refused."""
    with pytest.raises(MalformedError):
        decode(line)


def test_an_answer_may_have_fields_of_another_version_and_a_request_may_not() -> None:
    """An unknown field is ignored in an answer and refused in a request, which it might change."""
    settled = '{"settle": {"calls": 2, "call_s": 0.01, "steady": true, "later": 1}}'
    assert decode(settled) == OF_PROTOCOL["settled"][0]
    hello = {"protocol": PROTOCOL, "facts": {}, "machine": {**fingerprint().model_dump(mode="json"), "later": 1}}
    assert decode(json.dumps({"hello": hello})) == Hello(protocol=PROTOCOL, machine=fingerprint())
    with pytest.raises(MalformedError, match="later"):
        decode('{"do": "settle", "with": {"later": 1}}')


def test_of_another_protocol_nothing_is_read_but_its_number() -> None:
    """A hello of another protocol is decoded to its version only, whatever its other fields are."""
    hello = decode(json.dumps({"hello": {"protocol": 99, "facts": ["in", "another", "form"], "machine": "too"}}))
    assert hello == Hello(protocol=99)


def test_what_is_not_finite_arrives() -> None:
    """NaN is encoded and decoded as NaN."""
    opened = decode(encode(Opened(outputs={"error": math.nan}, settings={}, source=None)))
    assert isinstance(opened, Opened)
    assert math.isnan(opened.outputs["error"])


def test_an_order_is_written_in_letters() -> None:
    """An order is written in letters, with A for the baseline."""
    assert letters(("baseline", "candidate", "candidate", "baseline")) == "ABBA"
    assert list(messages.LETTERS) == ["baseline", "candidate"]
