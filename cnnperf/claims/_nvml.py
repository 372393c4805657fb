"""NVML's readings of the GPU that torch computes on, by UUID through nvidia-smi."""

from __future__ import annotations

import re

from cnnperf.claims import NotApplicable
from cnnperf.machine.program import NoAnswer, answer


def used_bytes() -> int:
    """Return the memory in use on torch's current CUDA device, by all processes.

    Raises NotApplicable if NVML does not report it, for example for a MIG instance.
    """
    import torch

    uuid = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    return asked(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")


def asked(uuid: str) -> int:
    """Return the memory in use on one GPU, which nvidia-smi prints in MiB."""
    try:
        done = answer("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", f"--id={uuid}")
    except NoAnswer as error:
        raise NotApplicable(f"{error}, so NVML cannot be asked") from error
    text = done.stdout.strip()
    if done.returncode or not re.fullmatch("[0-9]{1,9}", text):
        raise NotApplicable(f"NVML does not tell the memory of {uuid} ({(text or done.stderr.strip())[:200]})")
    return int(text) * 2**20
