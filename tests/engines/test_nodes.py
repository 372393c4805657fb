"""The optimised graph's nodes: the names that the runtime changes, and the provider that ran them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnperf.engines._nodes import _check_provider, plain
from cnnperf.errors import StageError


def event(name: str, provider: str | None, cat: str = "Node") -> dict[str, Any]:
    """Return an event as the runtime's profiler writes it."""
    return {"cat": cat, "name": f"{name}_kernel_time", "dur": 5, "args": {"provider": provider} if provider else {}}


def test_a_node_that_another_provider_ran_is_a_fault() -> None:
    """Named, with both providers; what tells of no provider, such as the session itself, is passed over."""
    _check_provider([event("conv", "CUDAExecutionProvider"), event("run", None, "Session")], "CUDAExecutionProvider")
    events = [event("conv", "CUDAExecutionProvider"), event("pool", "CPUExecutionProvider")]
    with pytest.raises(StageError, match="asked for CUDAExecutionProvider, and CPUExecutionProvider ran the node pool"):
        _check_provider(events, "CUDAExecutionProvider")


SUFFIXES = st.lists(st.sampled_from(["_nchwc", "_bn", "_quantized", "_QuantizeLinear_Output", "_token_12"]), max_size=3)


@given(st.from_regex(r"(relu|conv2d|val)_[0-9]{1,3}", fullmatch=True), SUFFIXES)
def test_what_the_runtime_adds_to_a_name_is_taken_off(name: str, suffixes: list[str]) -> None:
    """However much of it, and nothing else."""
    assert plain(name + "".join(suffixes)) == name
