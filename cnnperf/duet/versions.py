"""A pair whose sides are two versions of the code: checks of comparability, and requests to prepare a contest."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cnnperf.duet.contest import Contest, Version
from cnnperf.duet.pair import Fault, NotReady, Pair, Patience, Player, core_for_both
from cnnperf.errors import UsageError
from cnnperf.ipc.messages import PROTOCOL, Hello, Opened, Opening
from cnnperf.record import Machine
from cnnperf.sides import SIDES, Both, Side
from cnnperf.task import Task
from cnnperf.training.recipe import with_images_per_step

UNSLOWED = sys.float_info.min
"""Slowdown of the side that is compared with a slowed one: the shortest wait, because 0 leaves the call as it is.

A slowed call waits for the device, which takes time itself, so the calls of both sides must.
"""
TASK_FIELDS = {"cell", "stage", "repeat", "seed", "threads", "timeout_s", "settings", "variant", "needs", "data"}
"""Fields of a task known to every version of this protocol. The parent sets the task's environment itself."""


class RunningVersions:
    """Two versions of the code, each in a process that is ready for requests; created by `started`."""

    def __init__(self, versions: Both[Version], pair: Pair[Hello]) -> None:
        self.pair = pair
        self._versions = versions

    @property
    def machines(self) -> Both[Machine]:
        """Machine and software as reported by each side."""
        return Both.each(self._machine)

    def open(
        self, contest: Contest, store: Path, sides: Sequence[Side] = SIDES, *, images: int | None = None
    ) -> dict[Side, Opened]:
        """Prepare a contest on both sides, or on the baseline alone, which then writes weights and outputs for both.

        images: per call, instead of those of the suite or of the recipe. Raises Fault.
        """
        leads = "candidate" not in sides
        requests = {side: self._opening(side, contest, store, leads, images) for side in sides}
        opened = self.pair.ask(requests, Opened, self.pair.patience.open_s)
        for side, each in opened.items():
            self._refuse_foreign(side, contest, each)
        return opened

    def _opening(self, side: Side, contest: Contest, store: Path, leads: bool, images: int | None) -> Opening:
        version, task = self._versions.of(side), contest.tasks.of(side)
        document = task.model_dump(mode="json", include=TASK_FIELDS)
        if images is not None:
            # The model's own section has precedence over all others, in every version.
            model = document["cell"]["model"]
            model[task.stage] = with_images_per_step(model.get(task.stage, {}), images)
        return Opening(
            task=document | {"settings": contest.chosen.of(side)},
            metric=contest.metric,
            folder=contest.folder.resolve(),
            store=store,
            leads=leads,
            tree=version.tree,
            repository=version.repository,
            slowdown=version.slowdown or (UNSLOWED if any(each.slowdown for each in self._versions) else 0.0),
            slowdown_by=version.slowdown_by,
        )

    def _machine(self, side: Side) -> Machine:
        machine = self.pair.greetings.of(side).machine
        assert machine is not None, "every version of this protocol tells it"
        return machine

    def _refuse_foreign(self, side: Side, contest: Contest, opened: Opened) -> None:
        """Raise Fault if other code than that of the revision or this tree would be measured."""
        version, name = self._versions.of(side), contest.tasks.of(side).cell.model.name
        called = self.pair.called(side)
        if opened.strays:
            raise Fault(
                f"{called}: the process imported {opened.strays[0]} of this tree instead of the revision's copy; "
                "run cnnperf in the folder that contains the module, or move the module to src"
            )
        # Another interpreter may have other versions of installed packages, which are then the compared difference.
        if any(each.python != sys.executable for each in self._versions) or not version.path or opened.source is None:
            return
        if any(opened.source.resolve().is_relative_to(place.resolve()) for place in version.path):
            return
        why = "is not part of the compared tree" if ":" in name else "belongs to cnnperf and is the same on both sides"
        raise Fault(
            f"{called}: the model {name} comes from {opened.source}, which {why}; name a model of the repository "
            "as pkg.module:callable, importable from its root, its src or the current folder"
        )


@contextmanager
def started(
    versions: Both[Version],
    scratch: Path,
    task: Task,
    *,
    order: Sequence[Side] = SIDES,
    patience: Patience | None = None,
) -> Iterator[RunningVersions]:
    """Start both versions for the block, and check that they are comparable. Raises UsageError or Fault.

    task: sets the threads, the waiting policy and the allocator. order, patience: of the pair.
    """
    players = Both.each(lambda side: _player(versions.of(side), task))
    pair = Pair(players, Hello, scratch, order=order, patience=patience, core=core_for_both(task))
    with ExitStack() as stack:
        try:
            stack.enter_context(pair)
        except NotReady as fault:
            raise _usage(versions.of(fault.side), fault) from fault
        for side, hello in zip(SIDES, pair.greetings, strict=True):
            refuse_protocol(f"`{side}`", versions.of(side).name, hello.protocol)
        _refuse_unlike(pair.greetings)
        yield RunningVersions(versions, pair)


def refuse_protocol(option: str, name: str, protocol: int) -> None:
    """Raise UsageError for a version that speaks another protocol than this cnnperf."""
    if protocol != PROTOCOL:
        raise UsageError(
            f"{option}: {name} has version {protocol} of the protocol of comparisons, this cnnperf has version "
            f"{PROTOCOL}; compare versions that have the same protocol"
        )


def _player(version: Version, task: Task) -> Player:
    return Player(version.name, lambda baton: version.launch(task, baton))


def _usage(version: Version, fault: NotReady) -> UsageError:
    """Return the error for a version that did not become ready."""
    last = fault.last_line
    if isinstance(fault.__cause__, OSError):
        return UsageError(f"`{fault.side}`: {version.python} {fault.ending}; give a Python interpreter")
    if "No module named" in last and "cnnperf" in last:
        lacks = (
            "has no cnnperf" if "No module named 'cnnperf'" in last else "has a cnnperf that cannot compare versions"
        )
        return UsageError(f"`{fault.side}`: {version.name} {lacks} ({last}); install this version there")
    words = f"`{fault.side}`: {version.name}: its worker {fault.ending} before it was ready"
    return UsageError(words + (f": {last}" if last else ""))


def _refuse_unlike(hellos: Both[Hello]) -> None:
    one, other = hellos.baseline.facts, hellos.candidate.facts
    differences = [f"{key} ({one[key]} against {other.get(key)})" for key in one if one[key] != other.get(key)]
    if differences:
        raise UsageError(f"the sides differ in {', '.join(differences)}; run both under the same conditions")
