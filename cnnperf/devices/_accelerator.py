"""The accelerator that torch is built for, where that is not NVIDIA's."""

from __future__ import annotations

from typing import Any

from cnnperf.errors import DeviceError


def torch_for(kind: str) -> Any:
    """Return torch, whose accelerator is of this kind. Raises DeviceError if this machine or this build has none."""
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None or found.type != kind:
        other = "no accelerator" if found is None else f"the accelerator {found.type}"
        raise DeviceError(f"there is no {kind} device here (torch {torch.__version__} finds {other})")
    return torch
