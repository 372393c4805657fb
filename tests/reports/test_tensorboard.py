"""The data written for TensorBoard, read back from a real TensorBoard over HTTP."""

from __future__ import annotations

import gzip
import io
import json
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from passes import structure_of
from PIL import Image
from processes import started, until
from torch import nn

from cnnperf import record
from cnnperf.errors import UsageError
from cnnperf.profiling.hooks import Hooks
from cnnperf.profiling.trace import write_trace
from cnnperf.record import Artifact, Measurement, Record, single
from cnnperf.reports._tensorboard import BORDER, CAPTION, SCALE, grid, write

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PROFILER = "pytorch_profiler"
LABELS = np.array([1, 2, 3, 4])
PREDICTIONS = np.array([1, 2, 3, 5])


@pytest.fixture(scope="session")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trace two steps of a small network."""
    model, images = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten()), torch.randn(2, 1, 8, 8)

    def step(hooks: Hooks) -> None:
        loss = hooks.call("(loss)", torch.sum, model(images))
        hooks.watch_rest(loss)
        loss.backward()

    path = tmp_path_factory.mktemp("trace") / "batch-2.pt.trace.json.gz"
    write_trace(path, step, structure_of(model, images), steps=2, cuda=False)
    return path


@pytest.fixture
def run(tmp_path: Path, trained: Callable[..., Record], profiled: Record, trace: Path) -> Path:
    """Return a run folder with a training and a profile."""

    def point(step: int, value: float) -> Measurement:
        place = {"step": step, "samples": step, "seconds": step / 4, "epoch": 0.1, "n": 2000}
        return single("train.validation_accuracy", "fraction", value, "higher", place)

    folder = tmp_path / "suite" / "run"
    folder.mkdir(parents=True)
    examples = folder / "examples.npz"
    images = np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 1, 28, 28)
    np.savez(examples, image=images, label=LABELS, prediction=PREDICTIONS, probability=np.zeros(4))
    loss = Measurement(metric="train.loss", unit="1", better="lower", values=(2.5, 2.0, 1.75, 1.5))
    training = trained(measured=[loss, point(2, 0.25), point(4, 0.5)])
    record.append(folder, training.model_copy(update={"artifacts": {"examples": Artifact(path=examples.name)}}))
    (folder / trace.name).write_bytes(trace.read_bytes())
    record.append(folder, profiled.model_copy(update={"artifacts": {"trace_2": Artifact(path=trace.name)}}))
    return folder


class Board:
    """A running TensorBoard."""

    def __init__(self, address: str) -> None:
        self._address = address

    def bytes(self, path: str, **query: str) -> bytes:
        """Return the answer to a request."""
        with OPENER.open(f"{self._address}/data/plugin/{path}?{urllib.parse.urlencode(query)}", timeout=60) as answer:
            found = answer.read()
            return gzip.decompress(found) if answer.headers.get("Content-Encoding") == "gzip" else found

    def json(self, path: str, **query: str) -> Any:
        """Return the decoded answer to a request."""
        return json.loads(self.bytes(path, **query))

    def until(self, path: str, ready: Callable[[Any], Any]) -> Any:
        """Repeat the request until its answer is ready, and return it."""
        return until(lambda: answer if ready(answer := self.json(path)) else None, poll_s=0.2)


@pytest.fixture
def board(run: Path, tmp_path: Path) -> Iterator[Board]:
    """Start TensorBoard on the loopback interface on what `write` made of the run."""
    write(run, tmp_path / "log")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", tmp_path / "log"]
    options = ["--host", "127.0.0.1", "--port", "0", "--load_fast", "false"]
    with started([*command, *options], stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        assert found, "".join(lines)
        yield Board(found[0])


def test_tensorboard_shows_curves_images_and_every_view_of_the_profile(board: Board) -> None:
    """TensorBoard shows scalars with their steps, both image grids, and four views of the traced steps."""
    trained, profile = "cifar10/lenet/cpu/train-0", "cifar10/lenet/cpu/profile-0"
    board.until("scalars/tags", lambda tags: "validation_accuracy" in tags.get(trained, {}))
    for tag, values in (("validation_accuracy", [0.25, 0.5]), ("train_loss", [2.25, 1.625])):
        points = board.json("scalars/scalars", run=trained, tag=tag)
        assert [(step, value) for _, step, value in points] == list(zip((2, 4), values, strict=True))
        assert points[1][0] - points[0][0] == pytest.approx(0.5, abs=1e-3)

    tags = board.until("images/tags", lambda tags: len(tags.get(trained, {})) == 2)
    for tag in tags[trained]:
        [sample] = board.json("images/images", run=trained, tag=tag, sample="0")
        shown = Image.open(
            io.BytesIO(board.bytes("images/individualImage", **dict(urllib.parse.parse_qsl(sample["query"]))))
        )
        assert shown.size == (5 * (28 * SCALE + 2 * BORDER), 28 * SCALE + 2 * BORDER + CAPTION)

    board.until(f"{PROFILER}/runs", lambda found: found["runs"] == [profile] and not found["loading"])
    assert {"Overview", "Operator", "Trace", "Memory"} <= set(board.json(f"{PROFILER}/views", run=profile))
    [worker] = board.json(f"{PROFILER}/workers", run=profile, view="Overview")
    of = {"run": profile, "worker": worker, "span": "default"}
    assert worker == "batch-2"
    assert board.json(f"{PROFILER}/overview", **of)["steps"]["rows"]
    table = board.json(f"{PROFILER}/operation/table", **of, group_by="Operation")
    assert any("convolution" in row["name"] for row in table["data"])
    events = board.json(f"{PROFILER}/trace", **of)["traceEvents"]
    assert {"0", "0 backward"} <= {event.get("name") for event in events}
    memory = board.json(f"{PROFILER}/memory", **of)
    assert any("convolution" in row[0] for row in memory["rows"]["CPU"])


def test_a_run_that_is_written_again_is_shown_once(run: Path, tmp_path: Path) -> None:
    """A second `write` of a run leaves one file of events."""
    for _ in range(2):
        write(run, tmp_path / "log")
    assert len(list((tmp_path / "log").rglob("events.*"))) == 1


def test_trainings_of_changed_settings_have_a_folder_each(tmp_path: Path, trained: Callable[..., Record]) -> None:
    """Trainings under changed settings have folders of their own, and neither deletes the other's events."""
    records = [trained(lr=lr, measured=[single("train.loss", "1", lr)]) for lr in (0.1, 0.5)]
    for each in records:
        record.append(tmp_path, each)
    for _ in range(2):
        write(tmp_path, tmp_path / "log")
    folders = sorted(path.parent.name for path in (tmp_path / "log").rglob("events.*"))
    assert folders == ["train-0", f"train-0-{records[1].key}"]


def test_images_are_framed_as_right_or_wrong() -> None:
    """Right images are framed in green, wrong ones in red, in rows of five; grey images stay grey."""
    images = np.full((6, 1, 4, 4), 128, dtype=np.uint8)
    sheet = np.asarray(grid(images, [0] * 6, [0, 1, 0, 0, 0, 0]))
    width, height = 4 * SCALE + 2 * BORDER, 4 * SCALE + 2 * BORDER + CAPTION
    assert sheet.shape == (2 * height, 5 * width, 3)
    assert sheet[0, 0].tolist() == [0, 128, 0]
    assert sheet[0, width].tolist() == [255, 0, 0]
    assert sheet[BORDER, BORDER].tolist() == [128, 128, 128]
    assert sheet[height, width].tolist() == [255, 255, 255]


def test_a_run_with_nothing_to_show_is_refused(tmp_path: Path, trained: Callable[..., Record]) -> None:
    """A run without a successful training or profile is refused."""
    record.append(tmp_path, trained(status="failed", error="no"))
    with pytest.raises(UsageError, match="contains no successful training or profile"):
        write(tmp_path, tmp_path / "log")
    assert not (tmp_path / "log").exists()
