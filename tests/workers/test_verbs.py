"""The loop of a worker that serves requests."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from cnnperf.duet.turns import PartnerGoneError
from cnnperf.errors import UsageError
from cnnperf.ipc.messages import Bind, Bound, Failed, Loaded, Message, Settle, encode
from cnnperf.workers.verbs import Verbs, serve


def answers(monkeypatch: pytest.MonkeyPatch, verbs: Verbs, *lines: bytes) -> list[Message]:
    """Serve these lines and return the answers."""
    said: list[Message] = []
    monkeypatch.setattr(sys, "stdin", io.StringIO(b"".join(lines).decode()))
    serve(SimpleNamespace(say=said.append), verbs)  # type: ignore[arg-type]
    return said


def test_each_request_is_answered_by_the_verb_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request is passed to the verb of its type and answered in order."""
    seen: list[int] = []

    def bind(request: Bind) -> Bound:
        seen.append(request.batch_size)
        return Bound()

    lines = [encode(Bind(batch_size=8)), encode(Settle()), encode(Bind(batch_size=9))]
    said = answers(monkeypatch, {Bind: bind, Settle: lambda _: Loaded()}, *lines)
    assert said == [Bound(), Loaded(), Bound()]
    assert seen == [8, 9]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UsageError("give another"), "give another"),
        (ValueError("7"), "ValueError: 7"),
        (MemoryError(), "out of memory"),
    ],
)
def test_an_error_is_an_answer_in_words_and_the_next_request_is_served(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    """The answer to a failed request has a user's error unchanged, any other with its type; the next one is served."""

    def fail(_: Bind) -> Bound:
        raise error

    failed, settled = answers(
        monkeypatch, {Bind: fail, Settle: lambda _: Loaded()}, encode(Bind(batch_size=1)), encode(Settle())
    )
    assert isinstance(failed, Failed)
    assert failed.reason.startswith(words)
    assert settled == Loaded()


@pytest.mark.parametrize("line", [b"no JSON\n", encode(Settle())])
def test_a_request_that_is_not_known_is_answered_by_an_error(monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    """An unreadable line or a request without a verb is answered by an error."""
    [failed] = answers(monkeypatch, {}, line)
    assert isinstance(failed, Failed)


def test_it_ends_in_silence_when_its_partner_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop ends without an answer when the partner is gone."""

    def fail(_: Settle) -> Loaded:
        raise PartnerGoneError

    assert answers(monkeypatch, {Settle: fail}, encode(Settle()), encode(Settle())) == []
