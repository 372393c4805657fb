"""One version of a duet, the child's side: told what to do on stdin, line by line, it answers on a pipe.

It is started as `cnnperf.duet_worker`: each version starts any other by that name, and one without it says so at once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnnperf import registry
from cnnperf.duet.turns import Baton, facts, play, settled
from cnnperf.ipc.channel import Line
from cnnperf.ipc.messages import PROTOCOL, Absent, Hello, Opened, Opening, Settle, Settled, Taken, Turns
from cnnperf.machine.fingerprint import fingerprint, seen_here
from cnnperf.timing.sampling import Plan
from cnnperf.workers.verbs import Verbs, serve


class PreparedMetric:
    """The metric that was prepared last, which is the one that is measured."""

    def __init__(self, baton: Baton) -> None:
        self._baton = baton
        self._subject: Any = None
        self.verbs: Verbs = {Opening: self._open, Settle: self._settle, Turns: self._play}

    def _open(self, opening: Opening) -> Opened | Absent:
        from cnnperf.workers import subjects

        self._subject = None  # Before the next is there, the memory of the last is free again.
        name = opening.task["cell"]["model"]["name"]
        if lack := lacking(name) or lacking_in_revision(name, opening):
            return Absent(reason=lack)
        if opening.metric not in subjects.SUBJECTS:
            return Absent(reason=registry.unknown("metric", opening.metric, subjects.SUBJECTS))
        subject = self._subject = subjects.prepare(opening)
        return Opened(
            outputs=subject.outputs,
            settings=subject.recipe.model_dump(mode="json", exclude={"validation_images"}),
            source=registry.source("models", name),
            strays=tuple(strays(opening.repository)) if opening.repository else (),
        )

    def _settle(self, _: Settle) -> Settled:
        return settled(self._subject.call, self._subject.synchronize, Plan())

    def _play(self, turns: Turns) -> Taken:
        taken = play(self._subject.call, self._subject.synchronize, turns, self._baton)
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


def hello() -> Hello:
    """Return the facts that the other side needs first; imports the slow modules."""
    import torch

    threads = {"threads": torch.get_num_threads(), "interop_threads": torch.get_num_interop_threads()}
    return Hello(protocol=PROTOCOL, facts=dict(facts()) | threads, machine=seen_here(fingerprint()))


def main(line: Line, baton: Baton) -> None:
    """Say hello and answer until there is nothing more to answer."""
    line.say(hello())
    serve(line, PreparedMetric(baton).verbs)


if __name__ == "__main__":
    main(Line(int(sys.argv[2])), Baton(int(sys.argv[1])))
