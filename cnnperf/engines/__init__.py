"""Engines, which run a trained network. One file per engine; `load(source, *, …) -> Engine` may raise EngineError.

A file declares its engine's abilities by constants named as the fields of `Abilities`, which are read without importing
the file. Engines other than torch's never import torch.
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
"""N×C×H×W, normalised; for an engine that takes pixels, uint8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSource:
    """The network and artifacts that an engine loads, and the device and threads that it uses."""

    model: Choice
    shape: tuple[int, int, int]
    """C×H×W of an image."""
    num_classes: int
    seed: int
    """Seed of the weights if there are no trained ones."""
    weights: Path | None
    onnx: Path | None
    calibration: Callable[[int], NormalisedImages]
    """Returns the given number of training images."""
    folder: Path
    """Folder for files that an engine generates."""
    device: Device
    threads: int
    waiting: Waiting
    reuses: bool = False
    """Whether to reuse files that another process of the task generated; otherwise loading includes making them."""


INTEROP_THREADS = 1
"""Inter-op threads of every engine: no network here has branches that benefit from more."""
GIVEN = ("source",)
"""Parameters of `load` that the caller passes; all others are options."""


NETWORKS, FILES = "networks", "files"
"""The two kinds of model that have a baseline: networks built by torch, and ONNX files."""


WHOLE_NETWORK, UNMAPPED = "(network)", "(unmapped)"
"""Placeholders for a layer's name: the network's own forward (or a network that is one layer), and work of unknown
origin."""


def in_batches(run: Callable[[NDArray[Any]], NDArray[Any]], images: NDArray[Any], batch: int | None) -> NDArray[Any]:
    """Run images in batches of exactly one size, the last filled up with the first images; None: all at once."""
    if batch is None:
        return run(images)
    places = np.arange(-(-len(images) // batch) * batch) % len(images)
    return np.concatenate([run(images[each]) for each in places.reshape(-1, batch)])[: len(images)]


class Abilities(NamedTuple):
    """The abilities of an engine: constants of the same names in capitals in its file, with these defaults."""

    loads: str = ""
    """The artifact that the engine loads; empty if the engine builds the network itself."""
    packages: tuple[str, ...] = ()
    """Packages that `load` imports: they are imported before loading is timed, and their versions are recorded."""
    baseline_of: str = ""
    """Kind of model for which this engine is the baseline: NETWORKS or FILES."""
    compile_s: float = 0.0
    """Approximate seconds to recompile a known batch size, if the engine compiles; three times this at first."""


def abilities(name: str) -> Abilities:
    """Return the abilities declared in an engine's file. Raises UsageError for an unknown engine."""
    declared = registry.declared("engines", name)
    return Abilities(**{field: declared[field.upper()] for field in Abilities._fields if field.upper() in declared})


def baseline_of(kind: str) -> str:
    """Return the name of the baseline engine for networks or for files."""
    return next(name for name in registry.names("engines") if abilities(name).baseline_of == kind)


def baseline(model: Choice) -> str:
    """Return the name of a model's baseline engine."""
    return baseline_of(FILES if model.is_onnx else NETWORKS)


def usual(model: Choice) -> tuple[str, ...]:
    """Return the engines compared by default, the baseline first: all that can load the model without compiling.

    Compilation takes longer than all measurements together.
    """
    able = {name: abilities(name) for name in registry.names("engines")}
    chosen = [name for name, can in able.items() if not can.compile_s and (can.loads or not model.is_onnx)]
    return tuple(sorted(chosen, key=lambda name: (name != baseline(model), name)))


class Engine(Protocol):
    """A network, loaded."""

    facts: Mapping[str, Scalar]
    """Settings read back from the engine: threads, provider, level of optimisation."""
    file: Path | None
    """The loaded file."""
    model: Any
    """The torch module with the network's weights; None if the engine has none."""
    runs_modules: bool
    """Whether the engine calls the submodules one by one, so that each layer can be timed."""
    is_exact: bool
    """Whether its output must equal torch's; an engine of lower precision is judged by accuracy instead."""
    batch: int | None
    """The only batch size of a timed call; None if it takes any."""
    takes_pixels: bool
    """Whether its images are uint8 pixels instead of normalised ones."""
    unchecked: str | None
    """The reason why its output has no reference to be compared with; None if it returns logits."""

    def bind(self, images: NormalisedImages) -> Callable[[], object]:
        """Return the call that computes the logits of these images; this call is timed."""

    def run(self, images: NormalisedImages) -> NDArray[np.float32]:
        """Return the logits, N×classes."""

    def synchronize(self) -> None:
        """Wait until the device has completed all queued work."""

    def values(self, images: NormalisedImages) -> Any:
        """Return the intermediate values by their names in the exported graph; None if they are not available."""

    def node_times(self, images: NormalisedImages, runs: int) -> Any:
        """Return the kernel times of each node with its source layers; None if the engine has no profiler."""
