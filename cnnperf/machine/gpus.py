"""The machine's GPUs as the driver lists them, and the GPU that a process computes on.

This module does not import torch: the parent uses the driver's list and CUDA's environment variables; only a process
that has already loaded torch with CUDA asks torch.
"""

from __future__ import annotations

import csv
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from cnnperf.errors import CnnperfWarning
from cnnperf.machine import nvml
from cnnperf.machine.program import NoAnswer, answer
from cnnperf.record import Gpu

FIELDS = ("index", "uuid", "name", "driver_version", "memory.total", "compute_cap", "mig.mode.current", "pci.bus_id")
"""Fields queried from nvidia-smi, which lists GPUs in PCI bus order and ignores CUDA's environment variables."""
LONGEST_ROW = 4096
"""Characters of a line that may describe a GPU, which has some hundred."""
COUNT = re.compile(r"[0-9]{1,9}")
BOARD = re.compile(r"GPU \d+: .*\(UUID: (GPU-[^)]+)\)")
INSTANCE = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)")
"""The lines of `nvidia-smi -L`: a GPU, and below it its instances."""
MIG_NAME = re.compile(r"(.*?) MIG (\S+)")
"""CUDA's name of a MIG instance."""


@cache
def installed() -> tuple[tuple[Gpu, ...], str | None]:
    """Return the GPUs and MIG instances usable by CUDA, and the driver's version; without GPUs that have instances.

    Power limit and clocks are known with nvidia-ml-py only; those of an instance are of its GPU.
    """
    query = _smi(f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits")
    facts = list(_facts(query))
    divided = any(row["mig.mode.current"] == "Enabled" for row in facts)
    instances = list(_instances(_smi("-L"))) if divided else []
    found: list[Gpu] = []
    for row in facts:
        gpu = _gpu(row)
        gpu = gpu.model_copy(update=nvml.settings((gpu.uuid or "").removeprefix("GPU-")))
        if row["mig.mode.current"] != "Enabled":
            found.append(gpu)
            continue
        of_gpu = [(mig, uuid) for board, mig, uuid in instances if board == gpu.uuid]
        found += [gpu.model_copy(update={"mig": mig, "uuid": uuid, "board": gpu.uuid}) for mig, uuid in of_gpu]
    return tuple(found), next((row["driver_version"] for row in facts), None)


def chosen_gpu(gpus: Sequence[Gpu], environment: Mapping[str, str], index: int = 0) -> Gpu | None:
    """Return the GPU with this CUDA index in a process with this environment; None if it is unknown.

    Without CUDA_DEVICE_ORDER=PCI_BUS_ID the fastest GPU has index 0, and the driver's list does not show which that is.
    If all GPUs are alike, the result has no UUID and no index; if they differ, the result is None.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    names = {index: str(index)} if visible is None else dict(enumerate(map(str.strip, visible.split(","))))
    wanted = names.get(index, "")
    if wanted.startswith(("GPU-", "MIG-")):
        fitting = [gpu for gpu in gpus if any((uuid or "").startswith(wanted) for uuid in (gpu.uuid, gpu.board))]
    elif not wanted.isdecimal() or int(wanted) not in {gpu.index for gpu in gpus}:
        return None  # An empty list, or an index without a GPU, hides all GPUs.
    elif environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        fitting = [gpu for gpu in gpus if gpu.index == int(wanted)]
    else:
        fitting = list(gpus)
    return _alike(fitting)


def with_uuid(gpus: Sequence[Gpu], uuid: str) -> Gpu | None:
    """Return the GPU or MIG instance with this UUID, which has no prefix; None if it is in no list."""
    return next((gpu for gpu in gpus if gpu.uuid in (f"GPU-{uuid}", f"MIG-{uuid}")), None)


def used(gpus: Sequence[Gpu], properties: Any) -> Gpu:
    """Return the GPU that torch computes on, with the driver's description of it.

    properties: the result of `torch.cuda.get_device_properties`. The list is searched by UUID, because indices differ;
    for a MIG instance, CUDA may report the UUID of its GPU.
    """
    instance = MIG_NAME.fullmatch(properties.name)
    name, mig = instance.groups() if instance else (properties.name, None)
    uuid = str(properties.uuid)
    exact = with_uuid(gpus, uuid)
    of_board = [gpu for gpu in gpus if gpu.board == f"GPU-{uuid}" and gpu.mig == mig]
    unlisted = Gpu(name=name, mig=mig, uuid=None if mig else f"GPU-{uuid}")
    of_torch = {
        "capability": f"{properties.major}.{properties.minor}",
        "usable_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
    }
    return (exact or _alike(of_board) or unlisted).model_copy(update=of_torch)


def _alike(gpus: Sequence[Gpu]) -> Gpu | None:
    """Return the only GPU; for several alike, one without UUID and index; None if they differ."""
    if len(gpus) == 1:
        return gpus[0]
    apart = dict.fromkeys(("uuid", "board", "index", "pci_bus_id"))
    kinds = {gpu.model_copy(update=apart) for gpu in gpus}
    return kinds.pop() if len(kinds) == 1 else None


def _facts(lines: Sequence[str]) -> Iterator[dict[str, str | None]]:
    """Yield the fields of each GPU; a figure that the driver lacks is None."""
    for row in csv.reader((line for line in lines if len(line) <= LONGEST_ROW), skipinitialspace=True):
        # A line of another form is a message, for example that there is no GPU.
        if len(row) == len(FIELDS) and COUNT.fullmatch(row[FIELDS.index("index")]):
            yield {name: None if value.startswith("[") else value for name, value in zip(FIELDS, row, strict=True)}


def _gpu(row: Mapping[str, Any]) -> Gpu:
    memory = row["memory.total"]
    return Gpu(
        name=row["name"],
        uuid=row["uuid"],
        index=int(row["index"]),
        pci_bus_id=row["pci.bus_id"],
        capability=row["compute_cap"],
        memory_bytes=int(memory) * 2**20 if memory and COUNT.fullmatch(memory) else None,
    )


def _instances(listing: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield GPU, profile and UUID of each instance."""
    board = ""
    for line in listing:
        if found := BOARD.match(line):
            board = found[1]
        elif found := INSTANCE.match(line):
            yield board, found[1], found[2]


def _smi(*arguments: str) -> list[str]:
    """Return the output lines of nvidia-smi; none if it is missing or fails."""
    if not shutil.which("nvidia-smi"):
        return []
    try:
        done = answer("nvidia-smi", *arguments)
    except NoAnswer as error:
        warnings.warn(f"{error}, so GPUs are not described", CnnperfWarning, stacklevel=2)
        return []
    return [] if done.returncode else done.stdout.splitlines()
