"""Torch's switches for TF32, and their state."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from cnnperf.errors import DeviceError


def allow_tf32(*, products: bool, convolutions: bool) -> None:
    """Let float32 products and convolutions be computed in TF32, or not. Raises DeviceError if torch does not obey.

    By torch's older switches, which also set the newer `fp32_precision`. Where the newer alone are set, whatever reads
    the older ones, such as torch.compile, raises RuntimeError.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Torch 2.9 announces the end of the older switches.
        torch.backends.cuda.matmul.allow_tf32 = products
        torch.backends.cudnn.allow_tf32 = convolutions
    if tf32_allowed() != (products, convolutions):
        raise DeviceError(f"torch {torch.__version__} cannot set TF32; install a release of torch")


def tf32_allowed() -> tuple[bool, bool]:
    """Return whether products, and whether convolutions, may be computed in TF32; as torch itself asks."""
    from torch import backends

    # Torch's annotations lack the newer switches.
    switches = (backends.cuda.matmul, backends.cudnn.conv)  # type: ignore[attr-defined]
    products, convolutions = (switch.fp32_precision == "tf32" for switch in switches)
    return products, convolutions


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 within, and put the switches back as they were."""
    products, convolutions = tf32_allowed()
    allow_tf32(products=allowed, convolutions=allowed)
    try:
        yield
    finally:
        allow_tf32(products=products, convolutions=convolutions)
