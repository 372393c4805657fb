"""The fingerprint of the machine and its software."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from processes import completed

from cnnperf.machine import fingerprint
from cnnperf.record import Gpu, Machine

Tree = Callable[[dict[str, str]], Path]


def test_the_fingerprint_describes_this_machine() -> None:
    """The fingerprint has cores, memory, packages, processor and platform, and survives a round trip through JSON."""
    found = fingerprint.fingerprint()
    assert found.cores == fingerprint.usable_cores() >= 1
    assert found.memory_bytes > 2**28
    assert {"cnnperf", "torch", "numpy"} <= found.packages.keys()
    assert found.processor
    assert found.platform
    assert found.platform.kernel in found.os
    assert Machine.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1)])
def test_cores_are_those_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, tree: Callable[[dict[str, str]], Path], quota: str, cores: int
) -> None:
    """The quota of a control group limits the usable cores, like the affinity."""
    root = tree(
        {
            "proc/self/cgroup": "0::/job\n",
            "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
            "sys/fs/cgroup/job/cpu.max": f"{quota}\n",
        }
    )
    monkeypatch.setattr(fingerprint, "PROC", root / "proc")
    monkeypatch.setattr(fingerprint, "SYS", root / "sys")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert fingerprint.usable_cores() == cores


def test_a_process_tells_of_the_variables_that_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of allocator, threads, kernels and GPU are recorded, and no others of the environment."""
    for name in list(os.environ):
        monkeypatch.delenv(name)
    wanted = {
        "ATEN_CPU_CAPABILITY": "avx2",
        "CUDA_VISIBLE_DEVICES": "1",
        "GOMP_SPINCOUNT": "3000",
        "LD_PRELOAD": "libtcmalloc.so.4",
        "MALLOC_TRIM_THRESHOLD_": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    }
    for name, value in {**wanted, "HOME": "/root", "SECRET_MKL_TOKEN": "x"}.items():
        monkeypatch.setenv(name, value)
    assert fingerprint.environment() == wanted
    assert fingerprint.seen_here(fingerprint.fingerprint()).environment == wanted


def test_a_process_without_torch_tells_of_its_libraries_and_imports_no_torch() -> None:
    """A process without torch records its allocators, and does not import torch."""
    code = (
        "import sys; from cnnperf.machine.fingerprint import fingerprint, seen_here;"
        "found = seen_here(fingerprint(), 'cuda').libraries;"
        "print(found.allocators is not None or sys.platform != 'linux', found.parallel_info, 'torch' in sys.modules)"
    )
    answer = completed(sys.executable, "-c", code, check=True)
    assert answer.stdout.split() == ["True", "None", "False"]


def test_torch_tells_of_the_libraries_that_it_computes_with() -> None:
    """The recorded versions of libraries are those in torch's description of its build."""
    import torch

    found = fingerprint.seen_here(fingerprint.fingerprint()).libraries
    assert found
    built = torch.__config__.show()
    if torch.backends.mkldnn.is_available():
        assert found.onednn
        assert f"MKL-DNN v{found.onednn} " in built
    if torch.backends.mkl.is_available():
        assert found.mkl
        assert f"Version {found.mkl}-" in built
    assert f"OpenMP {found.openmp_version} " in built
    assert found.cpu_capability == torch.backends.cpu.get_cpu_capability()
    assert (found.parallel_info or "").startswith("ATen/Parallel")


def test_runtimes_and_allocators_are_those_in_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each library is listed once, without the folder of packages; if the system refuses the list, there is none."""
    files = (
        *(
            "/v/lib/python3.11/site-packages/torch/lib/libgomp.so.1",
            "/v/lib/python3.11/site-packages/torch/lib/libgomp.so.1",
        ),
        *("/v/lib/python3.11/site-packages/scikit_learn.libs/libgomp-a34b3233.so.1.0.0", "/usr/lib/libiomp5.so"),
        *(
            "/usr/lib/libtcmalloc_minimal.so.4",
            "/usr/lib/libjemalloc.so.2",
            "/usr/lib/libcompile.so",
            "/usr/lib/libomptarget.so",
        ),
    )
    maps = [SimpleNamespace(path=path) for path in (*files, "[anon]", "[heap]")]
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_maps=lambda: maps))
    found = fingerprint.seen_here(fingerprint.fingerprint()).libraries
    assert found
    assert found.openmp == (
        "/usr/lib/libiomp5.so",
        "scikit_learn.libs/libgomp-a34b3233.so.1.0.0",
        "torch/lib/libgomp.so.1",
    )
    assert found.allocators == ("/usr/lib/libjemalloc.so.2", "/usr/lib/libtcmalloc_minimal.so.4")

    def refused() -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_maps=refused))
    found = fingerprint.seen_here(fingerprint.fingerprint()).libraries
    assert found
    assert found.openmp is found.allocators is None


H100 = Gpu(name="NVIDIA H100", uuid="GPU-1", index=1, capability="9.0", memory_bytes=80 * 2**30)
A100 = Gpu(name="NVIDIA A100", uuid="GPU-0", index=0, capability="8.0", memory_bytes=40 * 2**30)


@pytest.mark.parametrize(
    ("device", "visible", "started", "uuid"),
    [
        ("cuda", None, True, "GPU-1"),
        ("cuda:1", None, True, "GPU-0"),
        ("cuda", "GPU-0,GPU-1", False, "GPU-0"),
        ("cuda:1", "GPU-0,GPU-1", False, "GPU-1"),
        ("cuda", None, False, None),
        ("cpu", None, True, "GPU-7"),
    ],
)
def test_the_gpu_is_the_one_that_was_computed_on(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str | None, started: bool, uuid: str | None
) -> None:
    """The GPU is the one that torch used, or else the one that CUDA's variables choose; on the CPU it is unchanged."""
    facts = {"total_memory": 79 * 2**30, "multi_processor_count": 132}
    offered = (
        SimpleNamespace(name=H100.name, uuid="1", major=9, minor=0, **facts),
        SimpleNamespace(name=A100.name, uuid="0", major=8, minor=0, **facts),
    )
    cuda = SimpleNamespace(
        is_initialized=lambda: started, current_device=lambda: 0, get_device_properties=lambda index: offered[index]
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(fingerprint, "_told_by", lambda torch: {})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    other = Gpu(name="NVIDIA L4", uuid="GPU-7")
    described = fingerprint.fingerprint().model_copy(
        update={"gpus": (A100, H100), "accelerator": other, "gpu": other.name}
    )
    found = fingerprint.seen_here(described, device)
    assert (found.accelerator and found.accelerator.uuid) == uuid
    assert found.gpu == (found.accelerator and found.accelerator.name)
    if started and device != "cpu":
        assert found.accelerator
        assert (found.accelerator.usable_bytes, found.accelerator.multiprocessors) == (79 * 2**30, 132)


def test_without_torch_the_gpu_is_found_by_the_driver_s_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two GPUs that are alike is named by its UUID, if another engine computed on it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    twins = tuple(A100.model_copy(update={"uuid": f"GPU-{name}", "index": index}) for index, name in enumerate("ab"))
    described = fingerprint.fingerprint().model_copy(update={"gpus": twins})
    for uuid, expected in (("b", "GPU-b"), ("a", "GPU-a"), ("c", None), (None, None)):
        found = fingerprint.seen_here(described, "cuda:1", uuid)
        assert found.accelerator
        assert found.accelerator.uuid == expected


def test_a_gpu_of_another_maker_is_named_by_its_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of another kind has the label that its file gives, and none of NVIDIA's GPUs."""
    described = fingerprint.fingerprint().model_copy(update={"gpus": (A100,), "accelerator": A100})
    found = fingerprint.seen_here(described, "xpu:0", None, "Imaginary")
    assert found.accelerator == Gpu(name="Imaginary")
    assert fingerprint.seen_here(described, "mps").accelerator is None
