"""The nodes of the optimised graph: the names that the runtime changes, and the provider that ran them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnperf.engines._nodes import _check_provider, on_gpu, on_host, plain
from cnnperf.errors import StageError


def event(name: str, provider: str | None, cat: str = "Node") -> dict[str, Any]:
    """Return an event in the format of the runtime's profiler."""
    return {"cat": cat, "name": f"{name}_kernel_time", "dur": 5, "args": {"provider": provider} if provider else {}}


def test_a_node_that_another_provider_ran_is_a_fault() -> None:
    """A node on another provider is an error that names node and providers; events without a provider are ignored."""
    _check_provider([event("conv", "CUDAExecutionProvider"), event("run", None, "Session")], "CUDAExecutionProvider")
    events = [event("conv", "CUDAExecutionProvider"), event("pool", "CPUExecutionProvider")]
    with pytest.raises(StageError, match="requested CUDAExecutionProvider, but CPUExecutionProvider ran the node pool"):
        _check_provider(events, "CUDAExecutionProvider")


SUFFIXES = st.lists(st.sampled_from(["_nchwc", "_bn", "_quantized", "_QuantizeLinear_Output", "_token_12"]), max_size=3)


@given(st.from_regex(r"(relu|conv2d|val)_[0-9]{1,3}", fullmatch=True), SUFFIXES)
def test_what_the_runtime_adds_to_a_name_is_taken_off(name: str, suffixes: list[str]) -> None:
    """All suffixes that the runtime adds to a name are removed, and nothing else."""
    assert plain(name + "".join(suffixes)) == name


def node(name: str, micros: int) -> dict[str, Any]:
    """Return a node's event; on a GPU, its time is the host's for queueing the kernels."""
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": micros, "args": {"op_name": name.title()}}


def kernel(parent: str, micros: int) -> dict[str, Any]:
    """Return a kernel's event, as a build with CUPTI writes it after the node that queued it."""
    return {"cat": "Kernel", "name": "gemm", "dur": micros, "args": {"parent_name": f"{parent}_kernel_time"}}


def test_on_the_host_a_node_s_time_is_its_own() -> None:
    """Each run gives one time per node, and a profile without nodes is an error."""
    found = on_host([node("conv", 5), node("relu", 2), node("conv", 6), node("relu", 2)])
    assert {name: each.times for name, each in found.items()} == {"conv": [5e-6, 6e-6], "relu": [2e-6, 2e-6]}
    with pytest.raises(StageError, match="reported no kernel"):
        on_host([])


def test_on_a_gpu_a_node_s_time_is_that_of_its_kernels() -> None:
    """The times of a node's kernels are added in each run; nodes without kernels and stray kernels are ignored."""
    once = [node("conv", 50), kernel("conv", 3), kernel("conv", 4), node("reshape", 9), node("relu", 8)]
    found = on_gpu([*once, kernel("relu", 1), *once, kernel("relu", 2), kernel("copy", 99)])
    assert {name: each.times for name, each in found.items()} == {
        "conv": pytest.approx([7e-6, 7e-6]),
        "relu": pytest.approx([1e-6, 2e-6]),
    }
    assert found["conv"].operator == "Conv"


def test_on_a_gpu_without_cupti_no_kernel_has_a_time() -> None:
    """Without CUPTI no node has a time, since the host's time only covers the queueing."""
    assert on_gpu([node("conv", 50), node("relu", 8)]) == {}
