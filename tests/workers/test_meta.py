"""A model is tried on the meta device, or for real, in evaluation and in training mode."""

from __future__ import annotations

import pytest
import torch

from cnnperf.errors import UsageError
from cnnperf.task import Choice
from cnnperf.workers.meta import Extras, TriedModel, try_model

DENSE_BYTES = 4 * (28 * 28 * 10 + 10)


def tried(name: str) -> TriedModel:
    """Try a network of tiny_networks.py on images of 1×28×28."""
    return try_model(Choice(name=f"tiny_networks:{name}"), (1, 28, 28), 10)


def test_nothing_is_computed_where_the_meta_device_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that runs on the meta device is not built for real."""
    monkeypatch.setattr("cnnperf.workers.meta.PLACES", ("meta",))
    assert tried("dense") == TriedModel(weight_bytes=DENSE_BYTES, flops=2 * 28 * 28 * 10)


def test_a_network_that_reads_values_is_built_for_real() -> None:
    """A network that fails on the meta device is built and run on the CPU."""
    assert tried("scheduled") == TriedModel(weight_bytes=DENSE_BYTES, flops=2 * 28 * 28 * 10)


def test_the_fault_is_that_of_the_real_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that fails on both devices is refused with its own fault, not with that of the meta device."""

    def build(num_classes: int) -> torch.nn.Module:
        torch.zeros(3).tolist()
        raise ValueError("needs images of 224×224")

    monkeypatch.setattr("cnnperf.registry.find", lambda *_: build)
    with pytest.raises(UsageError, match=r"on 1×28×28 images; give options that fit \(ValueError: needs images of 224"):
        tried("dense")


def test_a_network_may_fail_in_training_mode() -> None:
    """A network that fails in training mode alone has this fault, and can be run."""
    fault = tried("untrainable").training_fault
    assert fault is not None
    assert "not in training mode; give options or images that fit (ValueError: expected larger images)" in fault


def test_further_outputs_are_named() -> None:
    """The outputs of a named tuple besides the logits are named; those of a tuple are not."""
    named = Extras("Outputs", ("auxiliary",))
    assert (tried("with_auxiliary").extras, tried("with_auxiliary").training_extras) == (None, named)
    assert tried("paired").extras == tried("paired").training_extras == Extras("a tuple of 2", None)
