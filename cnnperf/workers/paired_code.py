"""One version of a duet, the child's side: it takes requests on stdin, line by line, and answers on a pipe.

The module is started as `cnnperf.duet_worker`, the name that each version uses to start any other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnnperf import registry
from cnnperf.duet.turns import Baton, play, settled, turn_facts
from cnnperf.ipc.channel import Line
from cnnperf.ipc.messages import PROTOCOL, Absent, Hello, Opened, Opening, Settle, Settled, Taken, Turns
from cnnperf.machine.fingerprint import fingerprint, seen_here
from cnnperf.timing.sampling import Plan
from cnnperf.workers.verbs import Verbs, serve


class PreparedMetric:
    """The metric that was prepared last and will be measured."""

    def __init__(self, baton: Baton) -> None:
        self._baton = baton
        self._subject: Any = None
        self.verbs: Verbs = {Opening: self._open, Settle: self._settle, Turns: self._play}

    def _open(self, opening: Opening) -> Opened | Absent:
        from cnnperf.workers import subjects

        self._subject = None  # Free the memory of the last before the next is prepared.
        name = opening.task["cell"]["model"]["name"]
        if lack := lacking(name) or lacking_in_revision(name, opening):
            return Absent(reason=lack)
        if opening.metric not in subjects.SUBJECTS:
            return Absent(reason=registry.unknown("metric", opening.metric, subjects.SUBJECTS))
        subject = self._subject = subjects.open_subject(opening)
        return Opened(
            outputs=subject.outputs,
            settings=subject.recipe.of_call(),
            source=registry.source_file("models", name),
            strays=tuple(strays(opening.repository)) if opening.repository else (),
        )

    def _settle(self, _: Settle) -> Settled:
        return settled(self._subject.call, self._subject.synchronize, Plan())

    def _play(self, turns: Turns) -> Taken:
        taken = play(self._subject.call, self._subject.synchronize, turns, self._baton)
        self._subject.check()
        return taken


def lacking(name: str) -> str | None:
    """Return the reason if this version does not have a model; else None."""
    if absent := registry.unknown_in("models", name):
        return absent
    place = registry.place_of("models", name)
    if place is None:
        return None
    path, _, attribute = place.partition(":")
    try:
        module = registry.foreign_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise  # The module exists, but one of its imports does not.
        return f"there is no module {error.name!r}"
    first = attribute.partition(".")[0]
    return None if hasattr(module, first) else f"the module {path!r} has no {first!r}"


def lacking_in_revision(name: str, opening: Opening) -> str | None:
    """Return the reason if only the current tree, not the measured revision, has a model's file; else None."""
    source, tree, repository = registry.source_file("models", name), opening.tree, opening.repository
    if source is None or tree is None or repository is None or not source.is_relative_to(repository):
        return None
    place = source.relative_to(repository)
    return None if is_installed(source) or (tree / place).exists() else f"that revision has no {place}"


def strays(repository: Path) -> Iterator[Path]:
    """Yield the imported files of a tree, without packages installed in it."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(repository) and not is_installed(Path(file)):
            yield Path(file)


def is_installed(file: Path) -> bool:
    """Return whether a file is in a site-packages folder, also of an environment inside the tree."""
    return not {"site-packages", "dist-packages"}.isdisjoint(file.parts)


def hello() -> Hello:
    """Return the facts that must be known first; imports the slow modules."""
    import torch

    threads = {"threads": torch.get_num_threads(), "interop_threads": torch.get_num_interop_threads()}
    return Hello(protocol=PROTOCOL, facts=dict(turn_facts()) | threads, machine=seen_here(fingerprint()))


def main(line: Line, baton: Baton) -> None:
    """Send the greeting, then answer requests until they end."""
    line.say(hello())
    serve(line, PreparedMetric(baton).verbs)


if __name__ == "__main__":
    main(Line(int(sys.argv[2])), Baton(int(sys.argv[1])))
