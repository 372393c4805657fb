"""What runs a trained network. One file an engine; `load(source, *, …) -> Engine` raises EngineError where it cannot.

A file's `NEEDS` names the stages without which its engine has nothing to load, its `PACKAGES` what `load` imports, so
that it can be imported before loading is timed. Those that are not torch's own never import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cnnperf.devices import Device
from cnnperf.onnx_file import require as require
from cnnperf.task import Choice, Scalar, Waiting

Images = NDArray[np.float32]
"""N×C×H×W, normalised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What an engine may load, and on how many threads of which device it is to run."""

    model: Choice
    shape: tuple[int, int, int]
    """C×H×W of an image."""
    num_classes: int
    seed: int
    """Draws the weights where none were trained."""
    weights: Path | None
    onnx: Path | None
    calibration: Callable[[int], Images]
    """Returns so many training images."""
    folder: Path
    """Takes the files that an engine makes for itself, and keeps them for its other processes."""
    device: Device
    threads: int
    waiting: Waiting


INTEROP_THREADS = 1
"""Of every engine: none of these networks has branches that would be worth another thread."""
GIVEN = ("source",)
"""What the caller passes to `load`; everything else is an option."""


def baseline(model: Choice) -> str:
    """Name the engine that a network's others are compared with: torch; of a file that is not torch's, the plainest."""
    return "onnxruntime" if model.is_onnx else "torch"


class Engine(Protocol):
    """A network, loaded."""

    facts: Mapping[str, Scalar]
    """What it runs on, as read back from it: threads, provider, level of optimisation."""
    file: Path | None
    """What it loaded."""
    is_exact: bool
    """Whether it is to compute what torch does; an engine of another precision answers for its accuracy instead."""

    def bind(self, images: Images) -> Callable[[], object]:
        """Return what computes the logits of these images; this is what is timed."""

    def run(self, images: Images) -> NDArray[np.float32]:
        """Return the logits, N×classes."""

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""

    def values(self, images: Images) -> Any:
        """Return what is computed before the logits, by the exported graph's names; None where it cannot be told."""

    def node_times(self, images: Images, runs: int) -> Any:
        """Return the kernel times of each node by the layers it came from; None where the engine has no profiler."""
