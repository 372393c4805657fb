"""A run in TensorBoard's format: curves as scalars, grids of test images, and traces for the profiler plugin."""

from __future__ import annotations

import io
import shutil
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnperf import record
from cnnperf.bench import trains
from cnnperf.errors import CnnperfWarning, StageError, StoreError, UsageError
from cnnperf.record import Artifact, Record
from cnnperf.tables.curves import training_curves
from cnnperf.tables.predictions import read_examples
from cnnperf.units import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

SCALARS = ("train_loss", "train_accuracy", "validation_accuracy")
COLUMNS = 5
"""Columns of a grid."""
SCALE, BORDER, CAPTION = 3, 2, 12
"""Magnification of an image, width of its coloured frame, and height of the caption; in pixels."""
RIGHT, WRONG = "green", "red"


def write(run: Path, out: Path) -> None:
    """Write TensorBoard's files, one folder per task. Raises StoreError, or UsageError if no task left anything.

    Of several tasks of one repeat, whose settings differ, the first has the folder that it would have alone; those of
    the others end in the task's key.
    """
    tasks = [r for r in record.read(run) if r.status == "ok" and (trains(r.task.stage) or _traces(r))]
    if not tasks:
        raise UsageError(f"{run}: contains no successful training or profile to show; give another run folder")
    taken: set[Path] = set()
    own = out.parent.resolve() / out.name if out.parent.resolve() == run.resolve() else out.resolve()
    for each in tasks:
        cell = each.task.cell
        places = (str(cell.dataset), str(cell.model), str(cell.device), f"{each.task.stage}-{each.task.repeat}")
        folder = out.joinpath(*map(_as_one_folder, places))
        folder = folder if folder not in taken else folder.with_name(f"{folder.name}-{each.key}")
        taken.add(folder)
        if not folder.resolve().is_relative_to(own):
            raise StoreError(f"{folder}: leads out of the folder {own} through a link; give another folder with `out`")
        folder.mkdir(parents=True, exist_ok=True)
        if trains(each.task.stage):
            _write_events(each, run, folder)
        for artifact in _traces(each):
            _copy_trace(artifact, run, folder)


def _as_one_folder(name: str) -> str:
    """Return a name from a record as the name of one folder, of which no path is made."""
    plain = printable(name).replace("/", "-")[:200]
    return "-" if plain.strip(".") == "" else plain


def _copy_trace(artifact: Artifact, run: Path, folder: Path) -> None:
    try:
        path = artifact.verified(run)
    except StageError as error:
        warnings.warn(f"a trace is left out: {error}", CnnperfWarning, stacklevel=2)
        return
    copy = folder / path.name
    copy.unlink(missing_ok=True)  # A link would be written through.
    shutil.copyfile(path, copy)


def _traces(measured: Record) -> tuple[Artifact, ...]:
    """Return the traces that a task wrote."""
    return tuple(artifact for kind, artifact in measured.artifacts.items() if kind.startswith("trace_"))


def grid(images: NDArray[Any], labels: Sequence[int], predictions: Sequence[int]) -> Image:
    """Draw images, uint8 N×C×H×W with 1 or 3 channels, framed as correct or incorrect, with label and class below."""
    import numpy as np
    from PIL import Image, ImageDraw

    _, _, height, width = images.shape
    cell_height, cell_width = SCALE * height + 2 * BORDER + CAPTION, SCALE * width + 2 * BORDER
    pixels = np.broadcast_to(images.transpose(0, 2, 3, 1), (len(images), height, width, 3))
    sheet = Image.new("RGB", (COLUMNS * cell_width, -(-len(images) // COLUMNS) * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (image, label, prediction) in enumerate(zip(pixels, labels, predictions, strict=True)):
        x, y = place % COLUMNS * cell_width, place // COLUMNS * cell_height
        is_right = label == prediction
        corner = x + cell_width - 1, y + cell_height - CAPTION - 1
        draw.rectangle((x, y, *corner), fill=RIGHT if is_right else WRONG)
        drawn = Image.fromarray(np.ascontiguousarray(image)).resize(
            (SCALE * width, SCALE * height), Image.Resampling.NEAREST
        )
        sheet.paste(drawn, (x + BORDER, y + BORDER))
        caption = str(label) if is_right else f"{label} taken for {prediction}"
        draw.text((x + BORDER, y + cell_height - CAPTION), caption, fill="black")
    return sheet


def _write_events(trained: Record, run: Path, folder: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    begun = datetime.fromisoformat(trained.started).timestamp()
    for earlier in folder.glob("events.*"):
        earlier.unlink()  # TensorBoard would show what they hold twice.
    writer = EventFileWriter(str(folder))
    try:
        for row in training_curves({run.name: (trained,)}).rows:
            values = [Summary.Value(tag=name, simple_value=row[name]) for name in SCALARS if row[name] is not None]
            summary = Summary(value=values)
            writer.add_event(Event(wall_time=begun + row.seconds, step=row.step, summary=summary))
        steps = int(next((m.values[0] for m in trained.find("train.steps")), 0))
        for name, image in _examples(trained, run):
            png = io.BytesIO()
            image.save(png, "PNG")
            drawn = Summary.Image(
                height=image.height, width=image.width, colorspace=3, encoded_image_string=png.getvalue()
            )
            summary = Summary(value=[Summary.Value(tag=f"test images/{name}", image=drawn)])
            writer.add_event(Event(wall_time=begun + trained.duration_s, step=steps, summary=summary))
    finally:
        writer.close()


def _examples(trained: Record, run: Path) -> Iterator[tuple[str, Image]]:
    """Yield the grids of correctly and incorrectly classified test images, if there are any."""
    kept = read_examples(trained, run)
    if not kept:
        return
    images, labels, predictions = kept["image"], kept["label"], kept["prediction"]
    for name, chosen in (("right", labels == predictions), ("wrong", labels != predictions)):
        if chosen.any():
            yield name, grid(images[chosen], labels[chosen].tolist(), predictions[chosen].tolist())
