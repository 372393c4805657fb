"""The child's side of a duet, called directly."""

from __future__ import annotations

import io
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from in_process import workers_here

from cnnperf.duet.contest import Contest, contests
from cnnperf.duet.schedule import unequal
from cnnperf.duet.turns import Baton, PartnerGoneError
from cnnperf.ipc.messages import Absent, Failed, Hello, Message, Opened, Opening, SuiteRequest, encode
from cnnperf.record import Record
from cnnperf.running.preflight import prepare
from cnnperf.suite import parse
from cnnperf.workers.paired_code import PreparedMetric, lacking, main


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
    """An unknown model or metric is answered as absent with the nearest name, not as an error."""
    task = trained(model).task.model_dump(mode="json")
    answer = PreparedMetric(ends[0]).verbs[Opening](Opening(task=task, metric=metric, folder=tmp_path, store=tmp_path))
    assert isinstance(answer, Absent)
    assert words in answer.reason


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
    """`lacking` names the unknown model, the missing module or the missing function, or returns None."""
    found = lacking(name)
    assert (words in found) if words and found else found is words


def test_a_model_whose_imports_fail_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose own imports fail raises the error, and is not reported as absent."""
    (tmp_path / "lacks_a_module.py").write_text("import nowhere_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        lacking("lacks_a_module:build")


def test_the_baton_is_handed_over_and_its_loss_is_seen(ends: tuple[Baton, Baton]) -> None:
    """A byte handed over arrives; a closed partner raises PartnerGoneError."""
    one, other = ends
    one.hand_over(b"s")
    assert other.wait() == b"s"
    one.close()
    with pytest.raises(PartnerGoneError):
        other.wait()


def contest(model: object) -> Contest:
    """Return the forward pass of a network on a few small images."""
    document = {
        "datasets": [{"name": "synthetic", "train": 256, "test": 64}],
        "models": [model],
        "threads": 1,
        "train": {"validation_images": 0, "batch_size": 32},
    }
    with workers_here():
        tasks = prepare(SuiteRequest(suite=parse(document, where="x", name="x"), where="x")).tasks
    [found] = contests(tasks, metrics=["infer.forward"])
    return found


def opening(of: Contest, store: Path, **more: Any) -> Opening:
    """Return the parent's request to prepare a contest."""
    task = of.tasks.baseline.model_dump(mode="json") | {"settings": dict(of.chosen.baseline)}
    return Opening(task=task, metric=of.metric, folder=of.folder, store=store, **more)


def answer(baton: Baton, request: Opening) -> Message:
    """Send a request to one side, check its Hello, and return its answer."""
    said: list[Message] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO(encode(request).decode()))
        main(SimpleNamespace(say=said.append), baton)  # type: ignore[arg-type]
    hello, found = said
    assert isinstance(hello, Hello)
    assert hello.facts["threads"] == torch.get_num_threads()
    return found


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"name": "unruly:build", "kind": "starves"}, "out of memory: "),
        (
            {"name": "unruly:build", "kind": "is_infinite"},
            "the logits are not finite (NaN or infinite); check the network",
        ),
        ("unruly:otherwise", "the baseline's weights do not fit this network"),
    ],
)
def test_what_cannot_be_made_ready_is_said_in_words(
    ends: tuple[Baton, Baton], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: object, words: str
) -> None:
    """The candidate whose network fails answers with the reason in words."""
    of = contest(model)
    assert isinstance(answer(ends[0], opening(of, tmp_path, leads=True)), Opened)
    monkeypatch.setenv("PLANTED", "1")
    failed = answer(ends[1], opening(of, tmp_path))
    assert isinstance(failed, Failed)
    assert words in failed.reason


def test_outputs_of_another_network_are_told_apart(
    ends: tuple[Baton, Baton], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sides with equal weights and unlike networks are found to compute different outputs."""
    of = contest({"name": "unruly:build", "kind": "is_other"})
    answer(ends[0], opening(of, tmp_path, leads=True))

    def outputs() -> dict[str, float]:
        opened = answer(ends[0], opening(of, tmp_path))
        assert isinstance(opened, Opened)
        return opened.outputs

    baseline = outputs()
    assert unequal(baseline, outputs()) is None
    monkeypatch.setenv("PLANTED", "1")
    assert "the sides' outputs differ" in str(unequal(baseline, outputs()))


def test_a_model_that_only_the_present_tree_has_is_absent(
    ends: tuple[Baton, Baton], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose file the revision lacks is absent, though the present tree has it."""
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "lib").mkdir(parents=True)
    there.mkdir()
    (here / "lib/of_this_tree.py").write_text("from unruly import build\n")
    monkeypatch.syspath_prepend(here / "lib")
    request = opening(contest("of_this_tree:build"), tmp_path, tree=there, repository=here)
    assert answer(ends[0], request) == Absent(reason="that revision has no lib/of_this_tree.py")
