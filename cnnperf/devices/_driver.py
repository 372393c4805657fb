"""Queries of NVIDIA's driver without torch: the GPUs visible to this process, the memory that it holds, and others."""

from __future__ import annotations

import ctypes
import os
import uuid
from ctypes import byref, c_char, c_int
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cnnperf.errors import DeviceError
from cnnperf.machine import nvml

LIBRARY = "libcuda.so.1"
SUCCESS = 0
CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""
PID_NAMESPACE = Path("/proc/self/ns/pid")
FIRST_NAMESPACE = "pid:[4026531836]"
"""Inode of Linux's initial PID namespace (PROC_PID_INIT_INO), whose process numbers NVML uses."""


class VisibleGpu(NamedTuple):
    """A GPU or MIG instance, numbered as in CUDA, subject to CUDA_VISIBLE_DEVICES."""

    name: str
    uuid: str
    """UUID without the prefix `GPU-` or `MIG-`."""
    capability: tuple[int, int]


@cache
def gpus() -> tuple[VisibleGpu, ...]:
    """Return the GPUs visible to this process. Raises DeviceError with the reason if there are none."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise DeviceError(f"this machine has no CUDA device (NVIDIA's driver is not installed: {error})") from error
    count = c_int()
    _check(library, library.cuInit(0))
    _check(library, library.cuDeviceGetCount(byref(count)))
    if not count.value:
        raise DeviceError("this machine has no CUDA device (the driver sees none)")
    return tuple(_gpu(library, index) for index in range(count.value))


def _gpu(library: Any, index: int) -> VisibleGpu:
    device, name, identity = c_int(), ctypes.create_string_buffer(256), (c_char * 16)()
    _check(library, library.cuDeviceGet(byref(device), index))
    _check(library, library.cuDeviceGetName(name, len(name), device))
    _check(library, library.cuDeviceGetUuid_v2(byref(identity), device))
    numbers = []
    for attribute in CAPABILITY:
        value = c_int()
        _check(library, library.cuDeviceGetAttribute(byref(value), attribute, device))
        numbers.append(value.value)
    major, minor = numbers
    return VisibleGpu(name.value.decode(), str(uuid.UUID(bytes=bytes(identity))), (major, minor))


def _check(library: Any, result: int) -> None:
    if result == SUCCESS:
        return
    name = ctypes.c_char_p()
    library.cuGetErrorName(result, byref(name))
    reason = name.value.decode() if name.value else f"error {result}"
    raise DeviceError(f"this machine has no CUDA device (the driver says {reason})")


def held_bytes(identity: str) -> int | None:
    """Return the bytes that this process holds on the GPU of this UUID: tensors, arenas, CUDA's context and libraries.

    Source: NVML, which identifies processes by their numbers outside containers. None inside a container, without
    nvidia-ml-py, or if the driver does not report it (WSL).
    """
    if not _knows_own_number():
        return None
    found = nvml.compute_processes(identity) or ()
    return next((each.used_bytes for each in found if each.pid == os.getpid() and each.used_bytes), None)


def processes_beside(identity: str) -> tuple[str, ...] | None:
    """Name the processes other than this one that compute on the GPU of this UUID.

    In a container this process is one of them as soon as it computes there. None without nvidia-ml-py, or if the driver
    does not answer.
    """
    found = nvml.compute_processes(identity)
    own = os.getpid() if _knows_own_number() else None
    return None if found is None else tuple(str(each) for each in found if each.pid != own)


def _knows_own_number() -> bool:
    """Return whether this process has the same number outside containers."""
    return PID_NAMESPACE.exists() and str(PID_NAMESPACE.readlink()) == FIRST_NAMESPACE
