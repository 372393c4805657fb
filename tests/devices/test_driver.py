"""NVIDIA's driver, with fakes of its libraries."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_nvml import UUID, Nvml
from processes import completed

from cnnperf.devices import _driver
from cnnperf.errors import DeviceError

OWN = os.getpid()
NAMED = f"{'python3' if OWN % 2 else 'trainer'} (process {OWN})"
"""Name that the fake driver gives to the process of the tests."""


class Library:
    """A fake libcuda, by default with two GPUs that the process may see."""

    def __init__(self, result: int = 0, count: int = 2) -> None:
        self._result = result
        self._count = count

    def cuInit(self, flags: int) -> int:  # noqa: N802 - the library's name
        """Return the result that was given to the fake."""
        return self._result

    def cuGetErrorName(self, result: int, name: Any) -> int:  # noqa: N802
        """Write the name of an error."""
        name._obj.value = b"CUDA_ERROR_NO_DEVICE"
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        """Write the number of GPUs."""
        count._obj.value = self._count
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        """Write a GPU's handle."""
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:  # noqa: N802
        """Write a GPU's name."""
        name.value = f"Imaginary {device.value}".encode()
        return 0

    def cuDeviceGetUuid_v2(self, identity: Any, device: Any) -> int:  # noqa: N802
        """Write a GPU's UUID."""
        ctypes.memmove(identity, bytes.fromhex(UUID.replace("-", "")), 16)
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        """Write 8 for the attribute of the compute capability's major number, and 6 for that of its minor number."""
        value._obj.value = {75: 8, 76: 6}[attribute]
        return 0


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    _driver.gpus.cache_clear()
    yield
    _driver.gpus.cache_clear()


def test_gpus_are_those_that_the_process_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPUs are listed in CUDA's order, each with its name, UUID and compute capability."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    assert _driver.gpus() == (
        _driver.VisibleGpu("Imaginary 0", UUID, (8, 6)),
        _driver.VisibleGpu("Imaginary 1", UUID, (8, 6)),
    )


@pytest.mark.parametrize(
    ("library", "reason"),
    [(Library(result=100), "the driver says CUDA_ERROR_NO_DEVICE"), (Library(count=0), "the driver sees none")],
)
def test_without_a_gpu_the_driver_s_reason_is_given(
    library: Library, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the driver's reason in parentheses."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    with pytest.raises(DeviceError, match=rf"this machine has no CUDA device \({reason}\)$"):
        _driver.gpus()


def test_without_a_driver_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says that NVIDIA's driver is not installed."""
    monkeypatch.setattr(_driver, "LIBRARY", "libnowhere.so.1")
    with pytest.raises(DeviceError, match="NVIDIA's driver is not installed"):
        _driver.gpus()


@pytest.fixture
def _outside_containers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    namespace = tmp_path / "pid"
    namespace.symlink_to(_driver.FIRST_NAMESPACE)
    monkeypatch.setattr(_driver, "PID_NAMESPACE", Namespace(namespace))


class Namespace:
    """A link like those in /proc, which exists although its target does not."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def exists(self) -> bool:
        """Return that the link exists."""
        return True

    def readlink(self) -> Path:
        """Return the link's target."""
        return self._path.readlink()


@pytest.mark.usefixtures("_outside_containers")
@pytest.mark.parametrize(
    ("nvml", "held"),
    [
        (Nvml((1, 5), (OWN, 2**20)), 2**20),
        (Nvml((1, 5), (OWN, 2**20), kind="MIG"), 2**20),
        (Nvml((1, 5)), None),
        (Nvml((OWN, None)), None),
        (Nvml((OWN, 2**20), kind="other"), None),
    ],
)
def test_what_a_process_holds_is_nvml_s_figure_or_absent(
    nvml: Nvml, held: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory of this process on its GPU or MIG instance is NVML's figure, or None if there is no figure."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert _driver.held_bytes(UUID) == held
    assert nvml.open == 0


def test_in_a_container_nobody_knows_which_process_this_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a container the memory is None, since NVML lists process ids of the host."""
    (tmp_path / "pid").symlink_to("pid:[4026532222]")
    monkeypatch.setattr(_driver, "PID_NAMESPACE", Namespace(tmp_path / "pid"))
    monkeypatch.setitem(sys.modules, "pynvml", Nvml((OWN, 2**20), (7, 1)))
    assert _driver.held_bytes(UUID) is None
    assert _driver.processes_beside(UUID) == (NAMED, "process 7")


def test_without_nvidia_ml_py_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the optional nvidia-ml-py, the memory that a process holds is None."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert _driver.held_bytes(UUID) is None
    assert _driver.processes_beside(UUID) is None


@pytest.mark.usefixtures("_outside_containers")
def test_other_processes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """All processes on the GPU but this one are named, with their programs where the driver knows them."""
    monkeypatch.setitem(sys.modules, "pynvml", Nvml((OWN, 1), (7, 1), (8, None), (9, 1)))
    assert _driver.processes_beside(UUID) == ("process 7", "trainer (process 8)", "python3 (process 9)")
    monkeypatch.setitem(sys.modules, "pynvml", Nvml((OWN, 1)))
    assert _driver.processes_beside(UUID) == ()
    monkeypatch.setitem(sys.modules, "pynvml", Nvml((7, 1), kind="other"))
    assert _driver.processes_beside(UUID) is None


def test_a_cuda_device_is_found_without_torch() -> None:
    """A CUDA device is acquired without importing torch."""
    script = (
        "import sys\n"
        "from cnnperf.devices import cuda, _driver\n"
        "cuda.gpus = lambda: (_driver.VisibleGpu('Imaginary', '0', (8, 0)),)\n"
        "device = cuda.acquire()\n"
        "assert device.peak_bytes() == {} and device.held_bytes() is None\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert completed(sys.executable, "-c", script).returncode == 0
