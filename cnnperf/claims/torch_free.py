"""The modules imported by the process of an ONNX Runtime task."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cnnperf.claims import Bar, CheckedFigure, Context
from cnnperf.claims._stages import ENGINES, ran
from cnnperf.errors import StageError

CLAIM = "The process of an ONNX Runtime task imports no torch."
LIMIT_S = 150.0

NONE = Bar.within(0, "one import is one too many")
SOME = Bar(low=0, high=None, reason="a log that shows no torch in torch's own task would show none anywhere")


def check(context: Context) -> Iterator[CheckedFigure]:
    """Let the interpreter of each task log its imports, and count the modules of torch."""
    made = ran(context, "engines", ENGINES)
    tasks = ("infer", "the ONNX Runtime task", 0, NONE), ("train", "the training (control)", 1, SOME)
    for stage, words, reading, bar in tasks:
        yield CheckedFigure(
            quantity=f"modules of torch in {words}",
            unit="count",
            figure=imported(made.log(stage)),
            reading=reading,
            source="the interpreter's own log (PYTHONPROFILEIMPORTTIME)",
            relative=False,
            bar=bar,
        )


def imported(log: Path) -> int:
    """Count the modules of torch in a log of imports. Raises StageError if the log names no module."""
    lines = re.findall(r"^import time:.*\|\s*(\S+)$", log.read_text(errors="replace"), re.MULTILINE)
    if "cnnperf.workers.task" not in lines and "cnnperf.registry" not in lines:
        raise StageError(f"{log.name}: the interpreter logged no imports")
    return sum(name.partition(".")[0] in ("torch", "_torch", "torchvision") for name in lines)
