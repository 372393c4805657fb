"""The child's side of a duet, asked directly."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cnnperf.baton import Baton, PartnerGoneError
from cnnperf.duet_worker import Arm, lacking
from cnnperf.record import Record


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


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lenet", None),
        ("lennet", "did you mean 'lenet'?"),
        ("json:loads", None),
        ("nowhere.at.all:build", "there is no module 'nowhere'"),
        ("json.nowhere:build", "there is no module 'json.nowhere'"),
        ("json:build", "the module 'json' has no 'build'"),
    ],
)
def test_a_model_that_is_not_there(name: str, words: str | None) -> None:
    """Of this cnnperf or of the user's: the module, or what it is to hold."""
    found = lacking(name)
    assert (words in found) if words and found else found is words


def test_a_model_whose_imports_fail_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is broken and not absent."""
    (tmp_path / "broken.py").write_text("import nowhere_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        lacking("broken:build")


def test_the_baton_is_handed_over_and_its_loss_is_seen(ends: tuple[Baton, Baton]) -> None:
    """A word arrives; from one who is gone none does."""
    one, other = ends
    one.hand_over(b"s")
    assert other.wait() == b"s"
    one.close()
    with pytest.raises(PartnerGoneError):
        other.wait()
