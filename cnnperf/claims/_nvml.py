"""NVML's readings of the GPU that torch computes on, by UUID through nvidia-smi."""

from __future__ import annotations

import shutil
import subprocess

from cnnperf.claims import NotApplicable


def used_bytes() -> int:
    """Return the memory in use on torch's current CUDA device, by all processes.

    Raises NotApplicable if NVML does not report it, for example for a MIG instance.
    """
    import torch

    uuid = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    return asked(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")


def asked(uuid: str) -> int:
    """Return the memory in use on one GPU, which nvidia-smi prints in MiB."""
    if not shutil.which("nvidia-smi"):
        raise NotApplicable("nvidia-smi is not installed, so NVML cannot be asked")
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", f"--id={uuid}"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    text = answer.stdout.strip()
    if answer.returncode or not text.isdigit():
        raise NotApplicable(f"NVML does not tell the memory of {uuid} ({(text or answer.stderr.strip())[:200]})")
    return int(text) * 2**20
