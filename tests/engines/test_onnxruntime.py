"""ONNX Runtime on CUDA, with a fake runtime: the options that it gets, and the check that it applies them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cnnperf.devices import Device, Numerics
from cnnperf.devices._driver import VisibleGpu
from cnnperf.devices.cpu import acquire
from cnnperf.devices.cuda import Cuda
from cnnperf.engines import EngineSource
from cnnperf.engines import onnxruntime as engine
from cnnperf.errors import EngineError, StageError
from cnnperf.task import Choice

IMAGES = np.zeros((4, 1, 28, 28), np.float32)


class Options(SimpleNamespace):
    """The options of a session."""

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Keep the entry."""
        setattr(self, key, value)


class Runtime(SimpleNamespace):
    """A fake onnxruntime with CUDA, whose sessions keep their options."""

    def __init__(self, **changed: str) -> None:
        super().__init__(
            __version__="1.30.0",
            SessionOptions=Options,
            GraphOptimizationLevel=SimpleNamespace(ORT_ENABLE_ALL=99),
            OrtValue=SimpleNamespace(ortvalue_from_numpy=lambda images, *place: (images.shape, place)),
            preloaded=0,
            bound=[],
            changed=changed,
        )

    def get_available_providers(self) -> list[str]:
        """Return the providers of CUDA and of the CPU."""
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def preload_dlls(self) -> None:
        """Count the calls."""
        self.preloaded += 1

    def InferenceSession(self, file: str, options: Options, providers: Any) -> Any:  # noqa: N802 - the runtime's name
        """Open a session that reports the given options, except for those that are changed."""
        self.options = options
        [(name, self.told)] = providers
        return SimpleNamespace(
            get_providers=lambda: [name],
            get_provider_options=lambda: {name: {**self.told, **self.changed}},
            get_inputs=lambda: [SimpleNamespace(name="images", shape=["batch", 1, 28, 28], type="tensor(float)")],
            get_outputs=lambda: [SimpleNamespace(name="logits", shape=["batch", 10], type="tensor(float)")],
            io_binding=lambda: SimpleNamespace(
                bind_ortvalue_input=lambda *given: self.bound.append(given),
                bind_output=lambda *given: self.bound.append(given),
            ),
        )


def source(device: Device) -> EngineSource:
    """Return the source of an exported network for a device."""
    return EngineSource(
        model=Choice(name="lenet"),
        shape=(1, 28, 28),
        num_classes=10,
        seed=0,
        weights=None,
        onnx=Path("model.onnx"),
        calibration=lambda count: IMAGES,
        folder=Path(),
        device=device,
        threads=1,
        waiting="brief",
    )


def opened(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, numerics: Numerics, index: int = 1) -> engine.Session:
    """Load the network on a GPU with the fake runtime."""
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setattr(engine, "require", lambda *names: None)
    return engine.load(source(Cuda(VisibleGpu("Imaginary", "0", (8, 0)), index, numerics)))


@pytest.mark.parametrize(
    ("numerics", "told"),
    [
        (Numerics(), {"use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"}),
        (Numerics(tf32=True, cudnn_benchmark=False), {"use_tf32": "1", "cudnn_conv_algo_search": "HEURISTIC"}),
        (Numerics(cudnn_benchmark=False, deterministic=True), {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}),
    ],
)
def test_the_runtime_is_told_what_torch_is_told(
    numerics: Numerics, told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime gets the device, TF32, convolution search and deterministic mode; TF32 does not count as exact."""
    session = opened(runtime := Runtime(), monkeypatch, numerics)
    assert runtime.told == {"device_id": "1", **told}
    assert runtime.options.use_deterministic_compute is numerics.deterministic
    assert runtime.preloaded == 1
    facts = {name: session.facts[name] for name in ("tf32", "cudnn_benchmark", "deterministic")}
    assert Numerics(**facts) == numerics  # type: ignore[arg-type]
    assert session.is_exact is not numerics.tf32


@pytest.mark.parametrize(("key", "got"), [("device_id", "0"), ("use_tf32", "1"), ("cudnn_conv_algo_search", "DEFAULT")])
def test_a_runtime_that_does_otherwise_is_refused(key: str, got: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that reports another option than the requested one is refused."""
    with pytest.raises(StageError, match=f"requested {key} .* of CUDAExecutionProvider, but onnxruntime has {got}"):
        opened(Runtime(**{key: got}), monkeypatch, Numerics())


def test_images_and_logits_are_bound_on_the_device_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images and logits are bound on the device with the requested index."""
    opened(runtime := Runtime(), monkeypatch, Numerics()).bind(IMAGES)
    assert runtime.bound == [("images", (IMAGES.shape, ("cuda", 1))), ("logits", "cuda", 1)]


def test_the_cpu_s_provider_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's provider gets no options, has no TF32 in its facts and counts as exact."""
    runtime = Runtime()
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setattr(engine, "require", lambda *names: None)
    session = engine.load(source(acquire()))
    assert (runtime.told, runtime.preloaded) == ({}, 0)
    assert "tf32" not in session.facts
    assert session.is_exact


def test_a_device_without_a_provider_is_an_engine_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device added to the room, the engine is unavailable, which skips the task; the error names its devices."""
    monkeypatch.setitem(sys.modules, "onnxruntime", Runtime())
    monkeypatch.setattr(engine, "require", lambda *names: None)
    device = acquire()
    device.name = "imagined"
    with pytest.raises(EngineError, match=re.escape("device imagined (supported: cpu, cuda); use one of these")):
        engine.load(source(device))
