"""What runs a trained network. One file an engine; `load(source, *, …) -> Engine` raises EngineError where it cannot.

A file declares what else its engine can, a constant for each of `Abilities`, which is read without importing it. Those
that are not torch's own never import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cnnperf import registry
from cnnperf.devices import Device
from cnnperf.onnx_file import require as require
from cnnperf.task import Choice, Scalar, Waiting

NormalisedImages = NDArray[np.float32]
"""N×C×H×W, normalised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSource:
    """What an engine may load, and on how many threads of which device it is to run."""

    model: Choice
    shape: tuple[int, int, int]
    """C×H×W of an image."""
    num_classes: int
    seed: int
    """Draws the weights where none were trained."""
    weights: Path | None
    onnx: Path | None
    calibration: Callable[[int], NormalisedImages]
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


NETWORKS, FILES = "networks", "files"
"""What a baseline is of: networks that torch builds and trains, or files that are not torch's."""


class Abilities(NamedTuple):
    """What an engine's file declares: a constant of the same name in capitals, or what stands here."""

    loads: str = ""
    """The artifact without which there is nothing to load; empty where the engine builds the network itself."""
    packages: tuple[str, ...] = ()
    """What `load` imports, so that it can be imported before loading is timed, and its version be recorded."""
    baseline_of: str = ""
    """NETWORKS or FILES: other engines are compared with this one."""
    compile_s: float = 0.0
    """Roughly what it takes for a batch size that it has compiled before, if it compiles; three times that at first."""


def abilities(name: str) -> Abilities:
    """Return what an engine's file declares. Raises UsageError for an engine that is not there."""
    declared = registry.declared("engines", name)
    return Abilities(**{field: declared[field.upper()] for field in Abilities._fields if field.upper() in declared})


def baseline_of(kind: str) -> str:
    """Name the engine that others are compared with, for networks or for files."""
    return next(name for name in registry.names("engines") if abilities(name).baseline_of == kind)


def baseline(model: Choice) -> str:
    """Name the engine that a model's others are compared with."""
    return baseline_of(FILES if model.is_onnx else NETWORKS)


def usual(model: Choice) -> tuple[str, ...]:
    """Name the engines that are compared unless a user chooses, the baseline first: all that can, and need not compile.

    To compile takes longer than all that is measured.
    """
    able = {name: abilities(name) for name in registry.names("engines")}
    chosen = [name for name, can in able.items() if not can.compile_s and (can.loads or not model.is_onnx)]
    return tuple(sorted(chosen, key=lambda name: (name != baseline(model), name)))


class Engine(Protocol):
    """A network, loaded."""

    facts: Mapping[str, Scalar]
    """What it runs on, as read back from it: threads, provider, level of optimisation."""
    file: Path | None
    """What it loaded."""
    model: Any
    """The torch module that it keeps, with the network's weights; None where it keeps none."""
    runs_modules: bool
    """Whether it calls that module's own modules one by one, so that each layer can be timed by itself."""
    is_exact: bool
    """Whether it is to compute what torch does; an engine of another precision answers for its accuracy instead."""

    def bind(self, images: NormalisedImages) -> Callable[[], object]:
        """Return what computes the logits of these images; this is what is timed."""

    def run(self, images: NormalisedImages) -> NDArray[np.float32]:
        """Return the logits, N×classes."""

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""

    def values(self, images: NormalisedImages) -> Any:
        """Return what is computed before the logits, by the exported graph's names; None where it cannot be told."""

    def node_times(self, images: NormalisedImages, runs: int) -> Any:
        """Return the kernel times of each node by the layers it came from; None where the engine has no profiler."""
