"""Torch's TF32 switches and their state."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from cnnperf.errors import DeviceError


def allow_tf32(*, products: bool, convolutions: bool) -> None:
    """Allow or forbid TF32 for float32 products and convolutions. Raises DeviceError if the setting has no effect.

    Uses torch's older switches, which also set the newer `fp32_precision`. If only the newer ones are set, code that
    reads the older ones, such as torch.compile, raises RuntimeError.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Torch 2.9 deprecates the older switches with a warning.
        torch.backends.cuda.matmul.allow_tf32 = products
        torch.backends.cudnn.allow_tf32 = convolutions
    if tf32_allowed() != (products, convolutions):
        raise DeviceError(f"torch {torch.__version__} cannot set TF32; install a release of torch")


def tf32_allowed() -> tuple[bool, bool]:
    """Return whether products, and whether convolutions, may use TF32, as torch itself reads it."""
    from torch import backends

    # Torch's annotations lack the newer switches.
    switches = (backends.cuda.matmul, backends.cudnn.conv)  # type: ignore[attr-defined]
    products, convolutions = (switch.fp32_precision == "tf32" for switch in switches)
    return products, convolutions


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 within the block, then restore the switches."""
    products, convolutions = tf32_allowed()
    allow_tf32(products=allowed, convolutions=allowed)
    try:
        yield
    finally:
        allow_tf32(products=products, convolutions=convolutions)
