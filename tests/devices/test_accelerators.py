"""Apple's and Intel's GPUs, with torch's functions replaced: nobody has run them yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_cuda import INDEX, Queue, Timeline, torch_cuda

from cnnperf import registry
from cnnperf.devices import Device, mps, xpu
from cnnperf.errors import DeviceError

MIB = 2**20
METHODS = [name for name, value in vars(Device).items() if callable(value) and not name.startswith("_")]
ATTRIBUTES = list(Device.__annotations__)


@contextmanager
def accelerator(kind: str, patch: pytest.MonkeyPatch) -> Iterator[Timeline]:
    """Make torch's functions of an accelerator act on a simulated one."""
    timeline = Timeline(1e-5, 1e-4)
    patch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device(kind))
    functions = torch_cuda(timeline)
    if kind == "xpu":
        functions |= {"device_count": lambda: 2, "get_device_name": lambda index: f"Imaginary {index}"}
    else:
        event = functions["Event"]

        class Event(event):  # type: ignore[misc, valid-type]
            def record(self) -> None:  # type: ignore[override]
                super().record(timeline)

        functions = {
            "synchronize": timeline.wait,
            "Event": Event,
            "current_allocated_memory": lambda: timeline.allocated,
            "driver_allocated_memory": lambda: timeline.reserved,
        }
        patch.setattr(torch.backends.mps, "get_name", lambda: "Imaginary M9")
    patch.setattr(torch, kind, SimpleNamespace(**functions))
    with Queue(timeline):
        yield timeline


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_where_torch_finds_another_accelerator_or_none_the_device_is_absent(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The error says what torch finds."""
    for found, words in ((None, "no accelerator"), (torch.device("cuda"), "the accelerator cuda")):
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available, found=found: found)
        with pytest.raises(DeviceError, match=rf"^there is no {kind} device here \(torch .* finds {words}\)$"):
            registry.make("devices", kind)


@pytest.mark.parametrize("name", registry.names("devices"))
def test_every_device_has_what_stages_use(name: str) -> None:
    """The class of each device of the room has all methods of the protocol, under its own name."""
    [kind] = [each for key, each in vars(registry.module("devices", name)).items() if key.lower() == name]
    assert kind.name == name
    assert [method for method in METHODS if not callable(getattr(kind, method, None))] == []


@pytest.mark.parametrize(("kind", "label"), [("mps", "Imaginary M9"), ("xpu", f"Imaginary {INDEX}")])
def test_time_and_memory_are_the_device_s(monkeypatch: pytest.MonkeyPatch, kind: str, label: str) -> None:
    """Marks measure the device's seconds, and memory in use is that of its tensors."""
    options: dict[str, Any] = {"index": INDEX} if kind == "xpu" else {}
    with accelerator(kind, monkeypatch) as timeline:
        device = registry.make("devices", kind, **options)
        assert [name for name in ATTRIBUTES if not hasattr(device, name)] == []
        assert (device.label, device.torch_name.partition(":")[0], device.is_asynchronous) == (label, kind, True)
        device.ready_torch()
        start, before = device.mark(), device.used_bytes()
        kept = torch.zeros(3 * MIB, dtype=torch.uint8)
        end = device.mark()
        device.synchronize()
        assert device.elapsed_s(start, end) == pytest.approx(timeline.launch_s + timeline.kernel_s)
        assert device.used_bytes() - before == kept.nbytes
        assert device.available_bytes() is None


def test_intel_s_gpus_have_peaks_and_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peaks are those of the chosen GPU, and an index beyond the last is refused."""
    with accelerator("xpu", monkeypatch):
        device = xpu.acquire(index=INDEX)
        assert xpu.count() == 2
        torch.zeros(3 * MIB, dtype=torch.uint8)
        assert device.peak_bytes()["peak_bytes"] == 3 * MIB
        assert device.reset_peak()
        assert device.peak_bytes()["peak_bytes"] == 0
        assert device.held_bytes() is None
        with device.returning_memory() as returns:
            assert returns
        with pytest.raises(DeviceError, match=r"^there is no xpu device 2; give an index below 2$"):
            xpu.acquire(index=2)


def test_of_apple_s_gpu_no_peak_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks are absent, and what the driver gave to the process is known."""
    with accelerator("mps", monkeypatch) as timeline:
        device = mps.acquire()
        kept = torch.zeros(3 * MIB, dtype=torch.uint8)
        assert (device.reset_peak(), device.peak_bytes()) == (False, {})
        assert device.held_bytes() == timeline.reserved > kept.nbytes
        with device.returning_memory() as returns:
            assert not returns
