"""Random input to all that is read: suites, records, ONNX files, and what processes say to each other."""

from __future__ import annotations

import io
import json
import random
import signal
import socket
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE
from types import FrameType
from typing import Any

from faulty import LONGEST, SUITE
from matrix import Trials
from processes import started

from cnnperf import CnnperfError, CnnperfWarning, Record, load_suite, plan, read
from cnnperf.duet.turns import Baton, PartnerGoneError, play
from cnnperf.ipc import messages
from cnnperf.record import line_of, sealed
from cnnperf.reports import formats, writer
from cnnperf.tables.report import report_of_run

STORED = Path(__file__).parents[1] / "golden" / "smoke" / "20250102T030405Z-box"
"""A small run with records of all stages."""
CHEAP, SLOW = 100, 10
"""Trials for each one asked for: of what takes some milliseconds, or some tens of them."""
LIMIT_S = 60
"""Seconds after which one input counts as hung."""
WHOLE_S = 86_400.0
"""Seconds for all ONNX files."""
ODD = (
    *(0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0.0, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan")),
    *(True, False, None, "", " ", "\x00", "\x1b[2J", "\udcff", "ÿ" * 1000, "../../x", "/", "__import__:os"),
    *([], {}, [[]], {"": {}}, [None] * 1000, "a:b", "1", "nan"),
)
"""Values that readers tend to get wrong."""
TOML = """
name = "small"
datasets = [{ name = "synthetic", shape = [1, 28, 28], train = 200, test = 100 }, "mnist"]
models = ["mlp", { name = "resnet", depth = 18, train = { lr = 0.1 } }]
devices = ["cpu"]
stages = ["train", "export", "infer"]
threads = 1
seed = 3
repeats = 2
timeout_s = 60.0
train = { steps = 2, validation_images = 50, batch_size = 50 }
infer = { engines = ["torch", { name = "onnxruntime", optimization = "all" }], batch_sizes = [1, 8] }
"""
TOKENS = (
    *(
        "[",
        "]",
        "{",
        "}",
        "=",
        ",",
        ".",
        '"',
        "'",
        '"""',
        "\n",
        "#",
        "\\u0000",
        "\\",
        "\r",
        "\x00",
        "\ufeff",
        "[[",
        "]]",
    ),
    *("inf", "nan", "-", "1e999", "1_0", "0x1", "1979-05-27T07:32:00Z", "true", "name", "models", "train", "*", "é"),
    *("9" * 5000, "[" * 2000, "a." * 500),
)


@contextmanager
def limit() -> Iterator[None]:
    """Raise TimeoutError in the block if it takes too long."""

    def hung(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"nothing within {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def assert_sentence(error: Exception) -> None:
    """Fail unless an error is one short sentence."""
    assert len(str(error)) <= LONGEST, f"{len(str(error))} characters: {error}"
    assert "\n" not in str(error), repr(str(error))


def damaged(content: bytes, numbers: random.Random, tokens: tuple[bytes, ...] = ()) -> bytes:
    """Flip, remove, repeat, move and insert some parts of a text."""
    content = bytearray(content)
    for _ in range(numbers.choice((1, 1, 1, 2, 3, 8))):
        place = numbers.randrange(len(content) + 1)
        other = min(len(content), place + numbers.choice((1, 2, 4, 16, 64, 1000)))
        match numbers.choice(("flip", "remove", "repeat", "move", "random", "token")):
            case "flip" if place < len(content):
                content[place] ^= 1 << numbers.randrange(8)
            case "remove":
                del content[place:other]
            case "repeat":
                content[place:place] = content[place:other]
            case "move":
                part = content[place:other]
                del content[place:other]
                place = numbers.randrange(len(content) + 1)
                content[place:place] = part
            case "random":
                content[place:other] = numbers.randbytes(other - place)
            case "token" if tokens:
                content[place:place] = numbers.choice(tokens)
    return bytes(content)


def changed(value: Any, numbers: random.Random) -> Any:
    """Return a document with one value, at any depth, replaced, removed or renamed."""
    if isinstance(value, dict) and value and numbers.random() < 0.9:
        key = numbers.choice(list(value))
        match numbers.choice(("inside", "inside", "inside", "inside", "remove", "rename", "add")):
            case "inside":
                return value | {key: changed(value[key], numbers)}
            case "remove":
                return {name: each for name, each in value.items() if name != key}
            case "rename":
                return {name + "_" * (name == key): each for name, each in value.items()}
            case "add":
                return value | {numbers.choice(("x", "name", "", key)): numbers.choice(ODD)}
    if isinstance(value, list) and value and numbers.random() < 0.8:
        index = numbers.randrange(len(value))
        return [*value[:index], changed(value[index], numbers), *value[index + 1 :]]
    return numbers.choice(ODD)


def test_suites(tmp_path: Path, trials: Trials) -> None:
    """A damaged suite is a suite, whose tasks can be planned, or one short sentence."""
    file = tmp_path / "small.toml"
    tokens = tuple(token.encode() for token in TOKENS)

    def one(numbers: random.Random) -> None:
        file.write_bytes(damaged(numbers.choice((SUITE, TOML)).encode(), numbers, tokens))
        with limit(), suppress_sentence():
            plan(load_suite(file))

    trials.run(one, scale=CHEAP)


@contextmanager
def suppress_sentence() -> Iterator[None]:
    """Go on after an error that is shown to users, if it is one short sentence."""
    try:
        yield
    except CnnperfError as error:
        said = error
    else:
        return
    assert_sentence(said)


def test_records(tmp_path: Path, trials: Trials, trained: Callable[..., Record]) -> None:
    """Damaged records, with and without a checksum that fits, are records or one short sentence."""
    lines = [line_of(trained(model)) for model in ("lenet", "mlp", "nin")]
    documents = [json.loads(line) for line in lines]
    for document in documents:
        del document["checksum"]
    file = tmp_path / "records.jsonl"

    def one(numbers: random.Random) -> None:
        written = list(lines)
        index = numbers.randrange(len(written))
        if numbers.random() < 0.5:
            written[index] = damaged(written[index], numbers)
        else:
            document = changed(documents[index], numbers)
            content = json.dumps(document, allow_nan=True).encode("utf-8", "surrogatepass")
            written[index] = sealed(content) if isinstance(document, dict) and document else content + b"\n"
        file.write_bytes(b"".join(written))
        with limit(), suppress_sentence(), warnings.catch_warnings():
            warnings.simplefilter("ignore", CnnperfWarning)
            read(tmp_path)

    trials.run(one, scale=CHEAP)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values in a document; of a list of plain values only those of the first three."""
    keys: Iterable[Any] = ()
    if isinstance(value, dict):
        keys = value
    elif isinstance(value, list):
        keys = range(len(value) if value and isinstance(value[0], dict) else min(3, len(value)))
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


def altered(content: bytes, numbers: random.Random) -> Any:
    """Return a document with some values, each at a place as likely as any other, replaced, removed or renamed."""
    document = json.loads(content)
    del document["checksum"]
    for _ in range(numbers.choice((1, 1, 1, 2, 3))):
        *path, key = numbers.choice(list(places(document)))
        inner = document
        for each in path:
            inner = inner[each]
        match numbers.choice(("odd", "odd", "odd", "remove", "rename", "other", "scale")):
            case "odd":
                inner[key] = numbers.choice(ODD)
            case "remove":
                del inner[key]
            case "rename" if isinstance(inner, dict):
                inner[f"{key}_"] = inner.pop(key)
            case "other":
                *path, other = numbers.choice(list(places(document)))
                inner[key] = json.loads(json.dumps(_at(document, path)[other]))
            case "scale" if isinstance(inner[key], int | float) and abs(inner[key]) < 1e15:
                inner[key] = inner[key] * numbers.choice((-1, 0, 0.5, 1e-30, 1e30, 10**9))
    return document


def _at(document: Any, path: Iterable[Any]) -> Any:
    for key in path:
        document = document[key]
    return document


def test_reports(tmp_path: Path, trials: Trials, profiled: Record) -> None:
    """Records of all stages with odd values and a checksum that fits are shown in all tables, or refused in a sentence.

    The tables are written in one of the formats.
    """
    lines = [line_of(each) for each in (*read(STORED), profiled)]
    forms = formats()
    file = tmp_path / "records.jsonl"

    def one(numbers: random.Random) -> None:
        line, *others = numbers.sample(lines, 4)
        content = json.dumps(altered(line, numbers), allow_nan=True).encode("utf-8", "surrogatepass")
        file.write_bytes(b"".join(others) + (sealed(content) if content.endswith(b"}") else content + b"\n"))
        with limit(), suppress_sentence(), warnings.catch_warnings():
            warnings.simplefilter("ignore", CnnperfWarning)
            writer(numbers.choice(forms))(report_of_run(tmp_path, read(tmp_path)), io.StringIO())

    trials.run(one, scale=SLOW)


def test_messages(trials: Trials) -> None:
    """A line from another process is a message or malformed, and nothing else."""
    said: list[messages.Message] = [
        messages.Hello(protocol=messages.PROTOCOL, facts={"cores": 2}),
        messages.Settled(calls=3, call_s=0.1, steady=True),
        messages.Taken(samples=(), warmup=(), steady=True, blocked_s=0.0, blocked_cpu_s=0.0),
        messages.Absent(reason="none"),
        messages.Failed(reason="none"),
        messages.Refused(error="UsageError", reason="none"),
        messages.Progressed(numbers={"step": 3, "loss": 0.5}),
        messages.Bind(batch_size=8),
        messages.Turns(me="baseline", order=("baseline", "candidate"), calls=1, warmup=1, warmup_s=0.1),
        messages.DataRequest(verb="fetch", dataset="mnist"),
    ]
    lines = [messages.encode(each) for each in said]

    def one(numbers: random.Random) -> None:
        line = numbers.choice(lines)
        if numbers.random() < 0.5:
            line = damaged(line, numbers, (b"[" * 3000, b"9" * 5000, b'{"a":' * 3000, b"NaN", b"1e999"))
        else:
            line = json.dumps(changed(json.loads(line), numbers)).encode()
        with limit(), suppress(messages.MalformedError):
            messages.decode(line)

    trials.run(one, scale=CHEAP)


def test_the_baton(trials: Trials) -> None:
    """A partner that says anything, and then ends, leaves the samples or the news that it is gone."""

    def one(numbers: random.Random) -> None:
        mine, other = socket.socketpair()
        baton = Baton(mine.detach())
        sides = ("baseline", "candidate")
        turns = messages.Turns(
            me="baseline",
            order=tuple(numbers.choice(sides) for _ in range(numbers.randrange(1, 8))),
            calls=1,
            warmup=numbers.randrange(3),
            warmup_s=0.001,
        )
        other.sendall(bytes(numbers.choice(b"sug.\x00\xff") for _ in range(numbers.randrange(12))))
        other.shutdown(socket.SHUT_WR)
        with limit(), suppress(PartnerGoneError):
            play(lambda: None, lambda: None, turns, baton)
        baton.close()
        other.close()

    trials.run(one, scale=SLOW)


def test_onnx_files(tmp_path: Path, trials: Trials) -> None:
    """A damaged ONNX file is refused in one short sentence, or runs; a crash of its process ends no other."""
    file = tmp_path / "small.onnx"
    whole = small_network()
    ends: Counter[str] = Counter()
    child = Path(__file__).with_name("onnx_child.py")
    with started((sys.executable, child), stdin=PIPE, stderr=DEVNULL, limit_s=WHOLE_S) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        questions, answers = process.stdin, process.stdout

        def one(numbers: random.Random) -> None:
            file.write_bytes(damaged(whole, numbers))
            questions.write(f"{file}\n")
            questions.flush()
            word = answers.readline().rstrip("\n")
            ends[word.partition(":")[0]] += 1
            assert word in ("ran", "refused") or word.startswith("crashed"), word

        trials.run(one, scale=SLOW)
    print(dict(ends))
    assert ends["ran"]


def small_network() -> bytes:
    """Return an ONNX file of a convolution and a dense layer, with a dynamic batch."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    dice = np.random.default_rng(0)
    kernel, dense = dice.standard_normal((2, 1, 3, 3)), dice.standard_normal((32, 3))
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("Flatten", ["positive"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense"], ["logits"]),
    ]
    weights = {"kernel": kernel, "dense": dense}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(each.astype(np.float32), name) for name, each in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content
