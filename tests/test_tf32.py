"""Torch's TF32 switches."""

from __future__ import annotations

import warnings

import pytest
import torch
from fake_cuda import numerics_kept

from cnnperf.tf32 import allow_tf32, tf32_allowed


@pytest.mark.parametrize("allowed", [False, True])
def test_tf32_is_set_in_torch_s_older_switches_and_in_its_newer(allowed: bool) -> None:
    """Torch's older and newer switches of TF32 agree, whatever was set before, and no warning is raised."""
    backends = torch.backends
    with numerics_kept(), warnings.catch_warnings():
        warnings.simplefilter("error")
        backends.cuda.matmul.fp32_precision = "ieee" if allowed else "tf32"
        backends.cudnn.conv.fp32_precision = "ieee" if allowed else "tf32"
        allow_tf32(products=allowed, convolutions=allowed)
        assert tf32_allowed() == (allowed, allowed)
        assert torch._C._get_cublas_allow_tf32() == torch._C._get_cudnn_allow_tf32() == allowed
        assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")
