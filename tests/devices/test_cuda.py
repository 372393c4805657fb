"""CUDA devices: refused with a reason, set to numerical options, timed by events, chosen by index."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from fake_cuda import GPUS, INDEX, FakeCuda, installed, numerics_kept

from cnnperf.devices import Numerics, cuda
from cnnperf.devices.cuda import set_numerics
from cnnperf.errors import DeviceError, UsageError

MIB = 2**20


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_the_reason_is_given() -> None:
    """The error says in parentheses what is missing."""
    with pytest.raises(DeviceError, match=r"^this machine has no CUDA device \(.+\)$"):
        cuda.acquire()


@pytest.fixture
def _two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "gpus", lambda: GPUS)


@pytest.mark.usefixtures("_two")
def test_a_torch_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says that torch is built without CUDA, and asks for a build with CUDA."""
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(
        DeviceError, match=r"torch cannot use Imaginary 100 \(torch .* is built without CUDA\); install torch with CUDA"
    ):
        cuda.acquire().ready_torch()


@pytest.mark.usefixtures("_two")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_torch_that_cannot_start_gives_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has torch's own reason and the CUDA version that torch is built for."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(DeviceError, match=r"torch cannot use Imaginary 200 \(torch .* is built for CUDA 13.0: .+\)$"):
        cuda.acquire(index=1).ready_torch()


@pytest.mark.usefixtures("_two")
@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        (
            {"index": 2},
            DeviceError,
            r"no CUDA device 2; give the index of one of these: 0: Imaginary 100, 1: Imaginary 200$",
        ),
        ({"deterministic": True, "cudnn_benchmark": True}, UsageError, "deterministic excludes cudnn_benchmark"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], kind: type[Exception], words: str) -> None:
    """An index without a device and contradictory options are refused with a message."""
    with pytest.raises(kind, match=words):
        cuda.acquire(**options)


def test_tf32_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 is refused on a GPU older than Ampere, which would ignore the option."""
    monkeypatch.setattr(cuda, "gpus", lambda: (GPUS[0]._replace(capability=(7, 5)),))
    with pytest.raises(UsageError, match=r"Imaginary 100 \(compute capability 7.5\) has no TF32; leave tf32 out"):
        cuda.acquire(tf32=True)
    assert not cuda.acquire().has_tf32


@pytest.mark.usefixtures("_two")
def test_an_environment_that_decides_over_tf32_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set NVIDIA_TF32_OVERRIDE is refused, since it would overrule the recorded option."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(UsageError, match="NVIDIA_TF32_OVERRIDE is set"):
        cuda.acquire()


@pytest.mark.usefixtures("_two")
def test_what_is_not_asked_for_is_chosen() -> None:
    """By default TF32 is off and cuDNN searches for the fastest convolutions, except in deterministic mode."""
    assert cuda.acquire().numerics == Numerics(tf32=False, cudnn_benchmark=True, deterministic=False)
    assert cuda.acquire(deterministic=True).numerics == Numerics(False, False, True)
    device = cuda.acquire(index=1)
    assert (device.index, device.label, device.torch_name) == (1, "Imaginary 200", "cuda:1")


@pytest.mark.parametrize("deterministic", [False, True])
def test_every_switch_is_set(deterministic: bool) -> None:
    """Every numerical switch of torch gets the requested value, and the search of convolutions has no limit."""
    with numerics_kept():
        set_numerics(Numerics(True, not deterministic, deterministic))
        cudnn = torch.backends.cudnn
        assert (cudnn.benchmark, cudnn.deterministic) == (not deterministic, deterministic)
        assert cudnn.benchmark_limit in (0, None)
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert not torch.utils.deterministic.fill_uninitialized_memory


def test_deterministic_asks_cublas_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deterministic mode sets the workspace of cuBLAS in the environment."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with installed(deterministic=True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_marks_are_of_the_device_that_was_asked_for() -> None:
    """Marks measure seconds on the acquired device, and cannot be compared before the device has reached them."""
    with installed() as gpu, gpu.running():
        start = gpu.device.mark()
        for _ in range(3):
            torch.zeros(1)
        end = gpu.device.mark()
        with pytest.raises(RuntimeError, match="not ready"):
            gpu.device.elapsed_s(start, end)
        gpu.device.synchronize()
        assert gpu.device.elapsed_s(start, end) == pytest.approx(gpu.timeline.launch_s + 3 * gpu.timeline.kernel_s)


def test_memory_is_that_of_tensors_on_the_device_that_was_asked_for() -> None:
    """Memory in use is that of tensors on the acquired device; reserved memory is reported separately."""
    with installed() as gpu, gpu.running():
        start = gpu.device.used_bytes()
        kept = torch.zeros(MIB, dtype=torch.uint8)
        torch.zeros(3 * MIB, dtype=torch.uint8)
        assert gpu.device.used_bytes() - start == kept.nbytes
        assert gpu.device.peak_bytes() == {"peak_bytes": start + 4 * MIB, "peak_reserved_bytes": gpu.timeline.reserved}
        assert gpu.timeline.reserved > 4 * MIB
        assert gpu.device.reset_peak()
        assert gpu.device.peak_bytes()["peak_bytes"] == start + MIB


def test_the_stand_in_refuses_another_device() -> None:
    """The fake GPU refuses each call that does not name the device in use."""
    with installed() as gpu:
        for call in (torch.cuda.synchronize, torch.cuda.memory_allocated, torch.cuda.max_memory_allocated):
            with pytest.raises(AssertionError, match=f"and {INDEX} is at work"):
                call()
        assert isinstance(gpu, FakeCuda)


@pytest.mark.cuda
def test_the_driver_and_torch_name_the_same_devices() -> None:
    """The driver and torch list the same devices in the same order, with equal capabilities and UUIDs."""
    from cnnperf.devices._driver import gpus

    assert len(gpus()) == torch.cuda.device_count()
    for index, gpu in enumerate(gpus()):
        properties = torch.cuda.get_device_properties(index)
        assert (gpu.name, gpu.capability) == (properties.name, (properties.major, properties.minor))
        assert gpu.uuid == str(properties.uuid)


@pytest.mark.cuda
def test_what_a_process_holds_is_more_than_its_tensors() -> None:
    """NVML's figure for a process, if available, exceeds the memory of its tensors."""
    device = ready()
    kept = torch.ones(64 * MIB, dtype=torch.uint8, device=device.torch_name)
    device.synchronize()
    held = device.held_bytes()
    if held is None:
        pytest.skip("no nvidia-ml-py, or a container")
    assert held > kept.nbytes


@pytest.mark.cuda
@pytest.mark.parametrize("allowed", [False, True])
def test_tf32_shows_in_a_product(allowed: bool) -> None:
    """The error of a float32 matrix product is above 1e-5 of its size with TF32, and below without."""
    if torch.cuda.get_device_capability() < cuda.FIRST_WITH_TF32:
        pytest.skip("this GPU has no TF32")
    with numerics_kept():
        device = ready(tf32=allowed)
        left, right = (torch.rand(512, 512, device=device.torch_name) - 0.5 for _ in range(2))
        exact = left.double() @ right.double()
        error = float(((left @ right).double() - exact).abs().max() / exact.abs().max())
    assert (error > 1e-5) == allowed


@pytest.mark.cuda
def test_time_between_marks_is_seconds() -> None:
    """Seconds between marks agree with the host's clock to 10 %."""
    from time import perf_counter

    device = ready()
    matrix = torch.rand(4096, 4096, device=device.torch_name)
    device.synchronize()
    began, start = perf_counter(), device.mark()
    for _ in range(50):
        matrix @ matrix
    end = device.mark()
    device.synchronize()
    assert device.elapsed_s(start, end) == pytest.approx(perf_counter() - began, rel=0.1)


@pytest.mark.cuda
def test_peak_counts_tensors() -> None:
    """A tensor of 64 MiB that was used and freed raises the peak by 64 MiB, until the peak is reset."""
    device = ready()
    device.reset_peak()
    start = device.used_bytes()
    torch.ones(64 * MIB, dtype=torch.uint8, device=device.torch_name)
    peaks = device.peak_bytes()
    assert peaks["peak_bytes"] - start == 64 * MIB
    assert peaks["peak_reserved_bytes"] >= peaks["peak_bytes"]
    device.reset_peak()
    assert device.peak_bytes()["peak_bytes"] == device.used_bytes() == start


def ready(**options: Any) -> cuda.Cuda:
    """Return the machine's last CUDA device, ready for torch; of several devices it is not torch's default."""
    device = cuda.acquire(index=torch.cuda.device_count() - 1, **options)
    device.ready_torch()
    return device
