"""ONNX Runtime in float32: the exported network after its graph optimisations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from packaging.version import Version

from cnnperf.devices import Device
from cnnperf.engines import INTEROP_THREADS, EngineSource, NormalisedImages, in_batches
from cnnperf.engines._nodes import Times, node_times
from cnnperf.engines._values import Values, values
from cnnperf.errors import EngineError, StageError
from cnnperf.onnx_file import HOST_PROVIDER, Port, Signature, external, require
from cnnperf.task import Scalar, Waiting

LOADS = "onnx"
PACKAGES: tuple[str, ...] = ("onnxruntime",)
BASELINE_OF = "files"

Optimization = Literal["disabled", "basic", "extended", "all"]
PROVIDERS = {"cpu": HOST_PROVIDER, "cuda": "CUDAExecutionProvider"}
"""The execution provider of each device."""
WAITING: dict[Waiting, dict[str, str]] = {
    "spin": {"allow_spinning": "1"},
    "brief": {"allow_spinning": "1", "spin_duration_us": "50"},
    "passive": {"allow_spinning": "0"},
}
"""Settings of the thread pools that match torch's waiting policy (process.WAITING)."""
BRIEF_SINCE = Version("1.26")
"""The first version that accepts a spin duration."""


class Session:
    """A session of ONNX Runtime on one provider, verified to run on that provider."""

    model = None
    runs_modules = False

    def __init__(self, file: Path, source: EngineSource, optimization: Optimization, *, is_exact: bool) -> None:
        import onnxruntime

        device = source.device
        self._runtime = onnxruntime
        self._device = device
        self.file: Path | None = file
        self.is_exact = is_exact and (device.numerics is None or not device.numerics.tf32)
        self._exported = source.onnx
        self._provider = _provider_of(device)
        self._provider_options = provider_options(device)
        if self._provider not in onnxruntime.get_available_providers():
            version = onnxruntime.__version__
            raise EngineError(
                f"onnxruntime {version} has no {self._provider}; install the onnxruntime build for {device.name}"
            )
        if device.numerics is not None:
            onnxruntime.preload_dlls()  # Load CUDA's libraries from NVIDIA's packages, as torch would.
        waiting = _supported(source.waiting, onnxruntime.__version__)
        self._options = session_options(source, waiting, optimization)
        self._session = self._open(self._options)
        if (got := self._session.get_providers())[0] != self._provider:
            raise StageError(
                f"requested {self._provider}, but onnxruntime runs on {got[0]}; check the installation of the device"
            )
        self._check_options()
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._signature = Signature(tuple(map(_port, inputs)), tuple(map(_port, outputs)))
        self.batch, self.unchecked = self._signature.batch, self._signature.unchecked
        self.takes_pixels = self._signature.takes_pixels
        self.facts: Mapping[str, Scalar] = {
            "threads": self._options.intra_op_num_threads,
            "interop_threads": self._options.inter_op_num_threads,
            "waiting": waiting,
            "provider": got[0],
            "optimization": optimization,
            "input": "host" if device.numerics is None else "bound on the device",
            **({} if device.numerics is None else asdict(device.numerics)),
        }

    def bind(self, images: NormalisedImages) -> Callable[[], object]:
        """Return the call that computes the logits of these images."""
        self._check_batch(len(images))
        feed, names = self._feed(images), [port.name for port in self._signature.outputs]
        if self._provider == PROVIDERS["cpu"]:
            run = self._session.run
            return lambda: run(names, feed)
        binding, place = self._session.io_binding(), (self._device.name, self._device.index)
        for name, array in feed.items():
            binding.bind_ortvalue_input(name, self._runtime.OrtValue.ortvalue_from_numpy(array, *place))
        for name in names:
            binding.bind_output(name, *place)
        return lambda: self._session.run_with_iobinding(binding)

    def run(self, images: NormalisedImages) -> NDArray[np.float32]:
        """Return the logits, N×classes; a file of a fixed batch is run as often as the images need."""
        return in_batches(self._first_output, images, self.batch)

    def _first_output(self, images: NormalisedImages) -> NDArray[np.float32]:
        return np.asarray(self._session.run([self._signature.outputs[0].name], self._feed(images))[0])

    def _feed(self, images: NormalisedImages) -> dict[str, NDArray[Any]]:
        """Return the inputs of a call: the images, and generated numbers for each input that takes no images."""
        of_images = self._signature.images
        others = (port for port in self._signature.inputs if port is not of_images)
        found = {port.name: _filled(port, len(images)) for port in others}
        return found | ({of_images.name: images} if of_images else {})

    def synchronize(self) -> None:
        """Return at once: a run is complete when it returns."""

    def node_times(self, images: NormalisedImages, runs: int) -> Times | None:
        """Time each node in a separate session with the profiler on.

        None for a graph that was not exported by torch, and on a GPU if the runtime was built without CUPTI.
        """
        assert self._exported is not None, "load() requires an exported file"
        feed = self._feed(images)
        return node_times(self._open, self._options, self._exported, feed, runs, provider=self._provider)

    def values(self, images: NormalisedImages) -> Values | None:
        """Return the kernels' intermediate values; None on devices other than the CPU and for external weights."""
        assert self._exported is not None, "load() requires an exported file"
        if self._provider != PROVIDERS["cpu"] or external(self._exported).exists():
            return None
        as_it_is = self._runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return values(self._open, self._options, self._exported, self._feed(images), as_it_is)

    def _open(self, options: Any, file: str | None = None) -> Any:
        try:
            return self._runtime.InferenceSession(
                file or str(self.file), options, providers=[(self._provider, self._provider_options)]
            )
        except Exception as error:  # The runtime's exceptions have no common base class.
            first = str(error).partition("\n")[0]
            raise StageError(f"{self.file}: onnxruntime cannot load it ({first}); export it again") from error

    def _check_options(self) -> None:
        """Raise StageError if the provider did not adopt its options."""
        got = self._session.get_provider_options()[self._provider]
        for key, value in self._provider_options.items():
            if got.get(key) != value:
                raise StageError(
                    f"requested {key} {value} of {self._provider}, but onnxruntime has {got.get(key)}; update "
                    "onnxruntime"
                )

    def _check_batch(self, batch_size: int) -> None:
        if self.batch not in (None, batch_size):
            raise StageError(
                f"{self.file}: takes batches of {self.batch} only, got {batch_size}; export it with a dynamic batch"
            )


def _port(argument: Any) -> Port:
    """Return an input or output by the runtime's description."""
    sizes = tuple(size if isinstance(size, int) else None for size in argument.shape)
    return Port(argument.name, argument.type.removeprefix("tensor(").removesuffix(")"), sizes)


def _filled(port: Port, batch_size: int) -> NDArray[Any]:
    """Return numbers for an input that takes no images: between 0 and 1, or 0 if they are whole and may be places."""
    shape = tuple(batch_size if size is None else size for size in port.sizes)
    kind = np.dtype({"float": "float32", "double": "float64"}.get(port.kind, port.kind))
    if kind.kind != "f":
        return np.zeros(shape, kind)
    return np.random.default_rng(0).random(shape).astype(kind)


def _provider_of(device: Device) -> str:
    """Return the execution provider of a device. Raises EngineError if the runtime is not prepared for the device."""
    if device.name not in PROVIDERS:
        raise EngineError(
            f"onnxruntime is not set up for device {device.name} (supported: {', '.join(PROVIDERS)}); use one of these "
            "or leave the engine out"
        )
    return PROVIDERS[device.name]


def session_options(source: EngineSource, waiting: Waiting, optimization: Optimization) -> Any:
    """Return the options of a session: threads, their waiting policy, the level of optimization and determinism."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = source.threads
    options.inter_op_num_threads = INTEROP_THREADS
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, f"ORT_{'ENABLE_' * (optimization != 'disabled')}{_LEVELS[optimization]}"
    )
    for pool, (entry, value) in product(("intra", "inter"), WAITING[waiting].items()):
        options.add_session_config_entry(f"session.{pool}_op.{entry}", value)
    # Otherwise operators that the provider lacks would silently run on the CPU.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", str(int(source.device.name != "cpu")))
    if source.device.numerics is not None:
        options.use_deterministic_compute = source.device.numerics.deterministic
    return options


def _supported(waiting: Waiting, version: str) -> Waiting:
    """Return the waiting policy that this version supports: older versions silently ignore a duration."""
    return "passive" if waiting == "brief" and Version(version) < BRIEF_SINCE else waiting


def provider_options(device: Device) -> dict[str, str]:
    """Return the options of a GPU's provider that match torch's numerical settings; empty for the CPU's."""
    if device.numerics is None:
        return {}
    return {
        "device_id": str(device.index),
        "use_tf32": str(int(device.numerics.tf32)),
        "cudnn_conv_algo_search": "EXHAUSTIVE" if device.numerics.cudnn_benchmark else "HEURISTIC",
    }


_LEVELS = {"disabled": "DISABLE_ALL", "basic": "BASIC", "extended": "EXTENDED", "all": "ALL"}


def load(source: EngineSource, *, optimization: Optimization = "all") -> Session:
    """Load the exported network."""
    require("onnxruntime", "onnxruntime")
    assert source.onnx is not None, "the export left a file"
    return Session(source.onnx, source, optimization, is_exact=True)
