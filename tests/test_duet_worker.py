"""The child's side of a duet, asked directly."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cnnperf.baton import Baton, PartnerGoneError
from cnnperf.duet_worker import Arm, defaults
from cnnperf.record import Record
from cnnperf.stages._recipe import Recipe


@pytest.fixture
def ends() -> Iterator[tuple[Baton, Baton]]:
    """Return the two ends of a baton."""
    pair = socket.socketpair()
    batons = Baton(pair[0].detach()), Baton(pair[1].detach())
    yield batons
    for baton in batons:
        baton.close()


@pytest.mark.parametrize(
    ("model", "metric", "words"),
    [("ressnet", "train.step", "did you mean 'resnet'?"), ("lenet", "train.stop", "did you mean 'train.step'?")],
)
def test_what_this_version_does_not_have(
    trained: Callable[..., Record], ends: tuple[Baton, Baton], tmp_path: Path, model: str, metric: str, words: str
) -> None:
    """It is absent, which is no fault: the other version may have it."""
    task = trained(model).task.model_dump(mode="json")
    request: dict[str, Any] = {"task": task, "metric": metric, "folder": tmp_path, "store": tmp_path}
    assert words in Arm(ends[0]).verbs["open"](request)["absent"]


def test_settings_are_told_with_their_defaults() -> None:
    """So that a version that lacks one can be asked without it."""
    known = defaults(Recipe)
    assert known["batch_size"] == 128
    assert known["lr"] is None
    assert known.keys() == Recipe.model_fields.keys()


def test_the_baton_is_handed_over_and_its_loss_is_seen(ends: tuple[Baton, Baton]) -> None:
    """A word arrives; from one who is gone none does."""
    one, other = ends
    one.hand_over(b"s")
    assert other.wait() == b"s"
    one.close()
    with pytest.raises(PartnerGoneError):
        other.wait()
