"""One arm of a duet, the child's side: told what to do on stdin, line by line, it answers on a pipe.

A module of its own and no mode of `cnnperf.worker`, so that a cnnperf that has no duet says so at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from cnnperf import registry
from cnnperf.baton import PROTOCOL, Baton, Opening, PartnerGoneError, Turns, facts, play
from cnnperf.errors import UsageError
from cnnperf.machine import fingerprint
from cnnperf.sampling import Plan, collector_off, settle
from cnnperf.stages import Settings
from cnnperf.worker import Line, in_words


class Arm:
    """Answers what it is told; what it opened last is what it measures."""

    def __init__(self, baton: Baton) -> None:
        self._baton = baton
        self._subject: Any = None
        self.verbs: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "open": self._open,
            "settle": self._settle,
            "play": self._play,
        }

    def _open(self, request: dict[str, Any]) -> dict[str, Any]:
        from cnnperf.stages import _subjects

        self._subject = None  # Before the next is there, the memory of the last is free again.
        opening = Opening.model_validate(request)
        name = opening.task["cell"]["model"]["name"]
        if ":" not in name and name not in registry.names("models"):
            return {"absent": registry.unknown("model", name, registry.names("models"))}
        if opening.metric not in _subjects.SUBJECTS:
            return {"absent": registry.unknown("metric", opening.metric, _subjects.SUBJECTS)}
        self._subject = _subjects.prepare(opening)
        return dict(self._subject.outputs)

    def _settle(self, _: dict[str, Any]) -> dict[str, Any]:
        subject = self._subject
        with collector_off():
            calls, warmup = settle(subject.call, subject.synchronize, Plan())
        last = sorted(each.wall_s for each in warmup.samples[-5:])[2]
        return {"calls": calls, "call_s": last / calls, "steady": warmup.steady}

    def _play(self, request: dict[str, Any]) -> dict[str, Any]:
        taken = play(
            self._subject.call, self._subject.synchronize, Turns.model_validate(request), self._baton
        ).model_dump(mode="json")
        self._subject.check()
        return taken


def hello() -> dict[str, Any]:
    """Return what the other side must know before it asks for anything; imports what is slow to import."""
    import torch

    from cnnperf.stages._recipe import Recipe

    threads = {"threads": torch.get_num_threads(), "interop_threads": torch.get_num_interop_threads()}
    return {
        "protocol": PROTOCOL,
        "facts": dict(facts()) | threads,
        "machine": fingerprint().model_dump(mode="json"),
        "settings": defaults(Recipe),
    }


def defaults(kind: type[Settings]) -> dict[str, Any]:
    """Return the settings that are known here and what they are by default; None where that depends on others."""
    return {name: None if field.default_factory else field.default for name, field in kind.model_fields.items()}


def main(line: Line, baton: Baton) -> None:
    """Say hello and answer until there is nothing more to answer."""
    arm = Arm(baton)
    line.say(hello=hello())
    for text in sys.stdin:
        request = json.loads(text)
        try:
            line.say(**{request["do"]: arm.verbs[request["do"]](request["with"])})
        except PartnerGoneError:
            return  # Why it is gone is the parent's to find out.
        except UsageError as fault:
            line.say(error=str(fault))
        except Exception as fault:
            line.say(error=in_words(fault))


if __name__ == "__main__":
    main(Line(int(sys.argv[2])), Baton(int(sys.argv[1])))
