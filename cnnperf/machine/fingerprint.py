"""Description of the machine and its software, which must be equal for two results to be comparable."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import warnings
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from cnnperf import registry
from cnnperf.errors import CnnperfWarning, UsageError
from cnnperf.machine import processor
from cnnperf.machine.cgroup import Groups
from cnnperf.machine.git import git
from cnnperf.machine.gpus import chosen_gpu, installed, used, with_uuid
from cnnperf.machine.processor import read_text
from cnnperf.machine.program import NoAnswer
from cnnperf.record import Gpu, Libraries, Machine, Platform

PACKAGES = ("cnnperf", "torch", "torchvision", "numpy", "onnx", "onnxscript")
"""Packages whose versions are recorded, in addition to those that engines import."""
PROC, SYS = Path("/proc"), Path("/sys")

COMMIT = re.compile(r"[0-9a-f]{12,64}\+?")
"""A commit, with `+` behind it if files were changed."""

ALLOCATOR_VARIABLES = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "PYTHONMALLOC")
MACHINE_VARIABLES = (
    *ALLOCATOR_VARIABLES,
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "ONEDNN_", "DNNL_", "TORCH_", "PYTORCH_"),
    *("ATEN_CPU_CAPABILITY", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING"),
    *("CUBLAS_", "CUDNN_", "NVIDIA_TF32_OVERRIDE"),
)
"""Prefixes of environment variables that affect the speed or memory of a process."""

OPENMP_LIBRARIES = re.compile(r"lib(gomp|omp|iomp5)[-.].*")
ALLOCATOR_LIBRARIES = re.compile(r"lib(tcmalloc|jemalloc|mimalloc|hoard)[-_.].*")


@cache
def fingerprint() -> Machine:
    """Describe this machine without importing the described packages."""
    gpus, driver = installed()
    gpu = chosen_gpu(gpus, os.environ)
    return Machine(
        host=platform.node(),
        os=platform.platform(),
        cpu=cpu_name(),
        cores=usable_cores(),
        memory_bytes=_memory_bytes(),
        governor=read_text(SYS / "devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        gpu=gpu.name if gpu else None,
        driver=driver,
        python=platform.python_version(),
        packages={name: version for name in _packages() if (version := _version(name))},
        commit=_commit(Path(__file__).parents[2]),
        processor=processor.describe_processor(PROC, SYS),
        platform=_platform(),
        gpus=gpus,
        accelerator=gpu,
    )


def seen_here(machine: Machine, device: str = "cpu", uuid: str | None = None, label: str | None = None) -> Machine:
    """Add this process's own facts to a description of the machine: its environment, libraries and GPU.

    device: the device that this process computed on: `cpu`, `cuda` or `cuda:1`. uuid, label: of that device, the UUID
    without prefix, if they are known. Torch and its GPU are described only if torch is already imported.
    """
    told = {"environment": environment(), "libraries": _libraries()}
    if device == "cpu":
        return machine.model_copy(update=told)
    labelled = Gpu(name=label) if label else None  # The drivers of other makers are not asked.
    gpu = _gpu(machine, device, uuid) if device.partition(":")[0] == "cuda" else labelled
    return machine.model_copy(update=told | {"gpu": gpu.name if gpu else None, "accelerator": gpu})


def environment() -> dict[str, str]:
    """Return the environment variables of this process that affect its speed or memory."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(MACHINE_VARIABLES)}


def usable_cores() -> int:
    """Count the cores that this process may use: its affinity, limited by the cgroup quota rounded up."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        return Groups(PROC, SYS, "cpu").usable_of(affinity)
    except (OSError, ValueError):
        return affinity


def cpu_name() -> str:
    """Return the processor's name as given by the vendor, or the architecture if the system does not report it."""
    return processor.name(PROC) or platform.processor() or platform.machine()


def cpu_flags(*wanted: str) -> tuple[str, ...]:
    """Return the processor's instruction sets out of the given ones, by their Linux names."""
    found = processor.flags(PROC)
    return tuple(flag for flag in wanted if flag in found)


def available_memory_bytes() -> int:
    """Return the bytes that a process may still use: the least remaining of the machine and of its control groups."""
    available = int(psutil.virtual_memory().available)
    try:
        return int(min(available, Groups(PROC, SYS, "memory").memory_left_bytes()))
    except (OSError, ValueError):
        return available


def _memory_bytes() -> int:
    try:
        total = int(psutil.virtual_memory().total)
    except OSError as error:
        raise UsageError(
            f"{error.filename}: cannot be read ({error.strerror}); cnnperf describes the machine by /proc: mount it"
        ) from error
    try:
        return int(min(total, Groups(PROC, SYS, "memory").memory_bytes()))
    except (OSError, ValueError):
        return total


def _platform() -> Platform:
    hugepages = re.search(r"\[(\w+)\]", read_text(SYS / "kernel/mm/transparent_hugepage/enabled") or "")
    return Platform(
        kernel=platform.release() or None,
        libc=_libc(),
        page_bytes=os.sysconf("SC_PAGE_SIZE"),
        transparent_hugepages=hugepages[1] if hugepages else None,
    )


def _libc() -> str | None:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):  # Only the GNU C library knows this name.
        return None


def _libraries() -> Libraries:
    torch = sys.modules.get("torch")
    return Libraries(
        openmp=_loaded(OPENMP_LIBRARIES), allocators=_loaded(ALLOCATOR_LIBRARIES), **(_told_by(torch) if torch else {})
    )


def _loaded(pattern: re.Pattern[str]) -> tuple[str, ...] | None:
    """Return the mapped files of this process whose names match; None if the system does not list them."""
    try:
        files = {each.path for each in psutil.Process().memory_maps()}
    except (OSError, psutil.Error):
        return None
    fitting = sorted(file for file in files if pattern.match(file.rpartition("/")[2]))
    return tuple(file.rpartition("/site-packages/")[2] for file in fitting)


def _told_by(torch: Any) -> dict[str, str | None]:
    """Return torch's description of the libraries that it was built with and runs with."""
    parallel_info = torch.__config__.parallel_info()
    patterns = {
        "onednn": r"MKL-DNN v([\d.]+)",
        "mkl": r"Math Kernel Library Version ([\d.]+)",
        "openmp_version": r"^OpenMP (\d+)",
    }
    found = {name: re.search(pattern, parallel_info, re.MULTILINE) for name, pattern in patterns.items()}
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_initialized() else None
    return {
        **{name: match[1] if match else None for name, match in found.items()},
        "parallel_info": parallel_info,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda,
        "cudnn": None if cudnn is None else str(cudnn),
    }


def _gpu(machine: Machine, device: str, uuid: str | None) -> Gpu | None:
    """Return the GPU of a CUDA device: from torch if it computed there, else by UUID, else by CUDA's variables."""
    _, _, index = device.partition(":")
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        listed = with_uuid(machine.gpus, uuid) if uuid else None
        return listed or chosen_gpu(machine.gpus, os.environ, int(index or 0))
    number = int(index) if index else torch.cuda.current_device()
    return used(machine.gpus, torch.cuda.get_device_properties(number))


def _packages() -> tuple[str, ...]:
    of_engines = (registry.declared("engines", name).get("PACKAGES", ()) for name in registry.names("engines"))
    return (*PACKAGES, *(package.partition(".")[0] for packages in of_engines for package in packages))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit(checkout: Path) -> str | None:
    if not (checkout / ".git").exists() or not shutil.which("git"):
        return None
    try:
        told = git(checkout, "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*").stdout.strip()
    except NoAnswer as error:
        warnings.warn(f"{error}, so the commit of cnnperf is unknown", CnnperfWarning, stacklevel=2)
        return None
    return told if COMMIT.fullmatch(told) else None
