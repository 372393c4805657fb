"""One arm of a duet, the child's side: told what to do on stdin, line by line, it answers on a pipe.

It is started as `cnnperf.duet_worker`: each version starts any other by that name, and one without it says so at once.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cnnperf import registry
from cnnperf.duet.turns import PROTOCOL, Baton, Opened, Opening, PartnerGoneError, Turns, facts, play
from cnnperf.errors import UsageError, in_words
from cnnperf.ipc.channel import Line
from cnnperf.machine.fingerprint import fingerprint, seen_here
from cnnperf.timing.sampling import Plan, collector_off, settle


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
        from cnnperf.workers import subjects

        self._subject = None  # Before the next is there, the memory of the last is free again.
        opening = Opening.model_validate(request)
        name = opening.task["cell"]["model"]["name"]
        if lack := lacking(name) or lacking_in_revision(name, opening):
            return {"absent": lack}
        if opening.metric not in subjects.SUBJECTS:
            return {"absent": registry.unknown("metric", opening.metric, subjects.SUBJECTS)}
        subject = self._subject = subjects.prepare(opening)
        opened = Opened(
            outputs=subject.outputs,
            settings=subject.recipe.model_dump(mode="json", exclude={"validation_images"}),
            source=registry.source("models", name),
            strays=tuple(strays(opening.repository)) if opening.repository else (),
        )
        return opened.model_dump(mode="json")

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


def lacking(name: str) -> str | None:
    """Say that this version does not have a model; None if it does."""
    path, colon, attribute = name.partition(":")
    if not colon:
        known = registry.names("models")
        return None if name in known else registry.unknown("model", name, known)
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise  # The module is there, and something that it imports is not.
        return f"there is no module {error.name!r}"
    first = attribute.partition(".")[0]
    return None if hasattr(module, first) else f"the module {path!r} has no {first!r}"


def lacking_in_revision(name: str, opening: Opening) -> str | None:
    """Say that only the present tree has a model's file, and not the revision that is measured; None if it does."""
    source, tree, repository = registry.source("models", name), opening.tree, opening.repository
    if source is None or tree is None or repository is None or not source.is_relative_to(repository):
        return None
    place = source.relative_to(repository)
    return None if is_installed(source) or (tree / place).exists() else f"that revision has no {place}"


def strays(repository: Path) -> Iterator[Path]:
    """Yield the files of a tree that are imported here, less what is installed in it."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(repository) and not is_installed(Path(file)):
            yield Path(file)


def is_installed(file: Path) -> bool:
    """Tell whether a file lies where pip puts packages, be it in an environment within the tree."""
    return not {"site-packages", "dist-packages"}.isdisjoint(file.parts)


def hello() -> dict[str, Any]:
    """Return the facts that the other side needs first; imports the slow modules."""
    import torch

    threads = {"threads": torch.get_num_threads(), "interop_threads": torch.get_num_interop_threads()}
    return {
        "protocol": PROTOCOL,
        "facts": dict(facts()) | threads,
        "machine": seen_here(fingerprint()).model_dump(mode="json"),
    }


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
