"""The recorded settings of a profile, as tables read them."""

from __future__ import annotations

from typing import Any

import pytest

from cnnperf.profiling.settings import Profile, compiles, flattened


def test_the_settings_of_the_training_stand_beside_those_of_the_profile() -> None:
    """Each setting of the profiled training has a name of its own; settings without a training are kept."""
    recorded = Profile.resolve({"lr": 0.5, "epochs": 2}, {"samples": 4}, {}).model_dump(mode="json")
    found = flattened(recorded)
    assert (found["samples"], found["train.lr"]) == (4, 0.5)
    assert "train" not in found
    assert flattened({"samples": 4}) == {"samples": 4}


@pytest.mark.parametrize(
    ("training", "expected"), [({"compile": True}, True), ({"compile": False}, False), ({}, False)]
)
def test_a_training_that_compiles_is_known(training: dict[str, Any], expected: bool) -> None:
    """The recorded settings of a profile tell whether the training compiles."""
    assert compiles(Profile.resolve(training, {}, {}).model_dump(mode="json")) is expected


@pytest.mark.parametrize("training", [3, None, "fast", ["lr"]])
def test_recorded_settings_of_a_stranger_are_no_training(training: Any) -> None:
    """Settings whose `train` is no table are read as if they had none."""
    assert flattened({"samples": 4, "train": training}) == {"samples": 4}
