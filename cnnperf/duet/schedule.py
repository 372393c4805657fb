"""The duet: two workers are alive at once and take turns sample by sample, in a fresh pair of processes per replicate.

`calibrate` measures the baseline's times once; `replicate` measures every contest once. Verdicts and the number of
replicates are decided by `gate`.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cnnperf.duet.contest import Contest, Version
from cnnperf.duet.pair import Fault, Patience
from cnnperf.duet.versions import RunningVersions, started
from cnnperf.ipc.messages import Opened, Taken
from cnnperf.machine.disturbance import Disturbance, read_counters
from cnnperf.record import Machine
from cnnperf.sides import PAIRS, SIDES, Both, Side
from cnnperf.task import Task
from cnnperf.training.recipe import images_per_step, unequal_images

TURN_S = 6.0
"""Time limit for the samples of one metric of one cell in a replicate."""
LONGEST_CALL_S = TURN_S / (2 * PAIRS[0])
"""Longest call that permits the minimum number of pairs."""
SPARE = 0.8
"""Share of LONGEST_CALL_S for which images are chosen where those of the suite take longer: calls vary."""
FEWEST_IMAGES = 2
"""Fewest images to which a call is cut: batch normalisation cannot train on one."""
WARMUP_PAIRS = 10
FLOAT32_ERROR = 1e-6
"""Relative error of float32 itself; smaller errors are ignored."""
ERROR_RATIO = 10.0
"""Maximum ratio of the sides' distances from the float64 run."""
LOSS_TOLERANCE = 1e-3
"""Maximum relative difference of the sides' losses after a few steps. A setting with a smaller effect passes, such as a
learning rate 1 % higher: its effect on the time is measured, and `differing` names it."""

QUADS: tuple[tuple[Side, ...], ...] = (
    ("baseline", "candidate", "candidate", "baseline"),
    ("candidate", "baseline", "baseline", "candidate"),
)
"""Orders of two pairs in which both sides have the same mean position."""

T = TypeVar("T")


class Conditions(NamedTuple):
    """Conditions of a contest's measurement, the same in every replicate and on both sides."""

    calls: int
    """Calls per sample."""
    call_s: float
    """Seconds per call, measured once in the baseline."""
    pairs: int
    """Pairs per replicate."""
    warmup: int
    """Minimum number of pairs before samples count."""
    cut: tuple[int, int] | None = None
    """The images per call of the suite and those that are measured, if the suite's take longer than LONGEST_CALL_S."""

    @classmethod
    def of(cls, calls: int, call_s: float, most: int = PAIRS[1]) -> Conditions:
        """Choose the pairs, an even number up to `most`, so that a turn takes no longer than TURN_S."""
        fit = 2 * int(TURN_S / (4 * calls * call_s))
        pairs = max(PAIRS[0], min(most, fit))
        return cls(calls, call_s, pairs, min(WARMUP_PAIRS, pairs // 4))

    @property
    def turn_s(self) -> float:
        """Approximate seconds of a contest in a replicate, including warm-up."""
        return 2 * (self.pairs + max(self.warmup, 10)) * self.calls * self.call_s


class Played(NamedTuple):
    """One contest in one replicate."""

    order: tuple[Side, ...]
    """The side of each sample."""
    taken: Both[Taken]
    opened: Both[Opened]
    machines: Both[Machine]
    """Machine as reported by each side; the software may differ."""
    disturbance: Disturbance
    parent_cpu_s: float
    """CPU time that the parent process used during the measurement."""


def calibrate(
    versions: Both[Version],
    contests: Iterable[Contest],
    scratch: Path,
    patience: Patience | None = None,
    pairs: int = PAIRS[1],
) -> Generator[tuple[Contest, Conditions | Fault], None, None]:
    """Measure the duration of a call once in the baseline, and write weights and reference outputs for both sides.

    pairs: maximum pairs of samples in a replicate.

    Yields the conditions of each contest, or the fault that prevents its measurement. The candidate's worker is
    started too, so that a fault of either side is known before any measurement; such a fault raises UsageError.
    """
    return _each(
        contests,
        lambda task: started(versions, scratch, task, patience=patience),
        lambda running, contest: _calibrated(running, contest, shared_folder(scratch, contest), pairs),
    )


def replicate(
    versions: Both[Version],
    conditions: Mapping[Contest, Conditions],
    scratch: Path,
    dice: random.Random,
    patience: Patience | None = None,
) -> Generator[tuple[Contest, Played | Fault], None, None]:
    """Measure each contest once, in a fresh pair of processes a device; a fault loses only its contest and that pair.

    Both sides start in random order, and measure the contests of a device in the same random order.
    """
    return _each(
        dice.sample(list(conditions), len(conditions)),
        lambda task: started(versions, scratch, task, order=dice.sample(SIDES, 2), patience=patience),
        lambda running, contest: _play(running, contest, conditions[contest], shared_folder(scratch, contest), dice),
    )


def _each(
    contests: Iterable[Contest],
    start: Callable[[Task], AbstractContextManager[RunningVersions]],
    measure: Callable[[RunningVersions, Contest], T],
) -> Generator[tuple[Contest, T | Fault], None, None]:
    """Measure one contest after the other, those of a device with the same workers.

    Workers are bound to cores as their device requires, so no two devices share them.
    """
    by_device: dict[str, deque[Contest]] = {}
    for contest in contests:
        by_device.setdefault(str(contest.tasks.baseline.cell.device), deque()).append(contest)
    for queue in by_device.values():
        yield from _each_of(queue, start, measure)


def _each_of(
    queue: deque[Contest],
    start: Callable[[Task], AbstractContextManager[RunningVersions]],
    measure: Callable[[RunningVersions, Contest], T],
) -> Generator[tuple[Contest, T | Fault], None, None]:
    """Measure one contest after the other with the same workers, and with fresh ones after a fault.

    On a busy machine processes may not start in time; the start is then tried once more.
    """
    chances = 2
    while queue:
        try:
            with start(queue[0].tasks.baseline) as running:
                chances = 2
                while queue:
                    contest = queue.popleft()
                    try:
                        outcome = measure(running, contest)
                    except Fault as fault:
                        yield contest, fault
                        break
                    yield contest, outcome
        except Fault as fault:  # The processes did not start.
            chances -= 1
            if chances:
                continue
            yield from ((contest, fault) for contest in queue)
            return


def shared_folder(scratch: Path, contest: Contest) -> Path:
    """Return the folder of a contest's weights and reference outputs, the same for both sides."""
    folder = scratch / f"{contest.tasks.baseline.key}-{contest.metric}"
    folder.mkdir(exist_ok=True)
    return folder


def _calibrated(running: RunningVersions, contest: Contest, folder: Path, pairs: int) -> Conditions:
    """Time a call in the baseline, with fewer images than the suite has if they take too long.

    A slow machine thus measures smaller batches, the same on both sides.
    """
    cut: tuple[int, int] | None = None
    while True:
        opened = running.open(contest, folder, ["baseline"], images=cut and cut[1])["baseline"]
        settled = running.pair.settle()
        images = images_per_step(opened.settings)
        if settled.call_s <= LONGEST_CALL_S or images is None or images <= FEWEST_IMAGES:
            return Conditions.of(settled.calls, settled.call_s, pairs)._replace(cut=cut)
        fewer = max(FEWEST_IMAGES, int(images * SPARE * LONGEST_CALL_S / settled.call_s))
        cut = (cut[0] if cut else images, fewer)


def order_of(pairs: int, dice: random.Random) -> tuple[Side, ...]:
    """Draw the turns of an even number of pairs: every two pairs are ABBA or BAAB at random; A is the baseline."""
    return tuple(side for _ in range(pairs // 2) for side in dice.choice(QUADS))


def _play(running: RunningVersions, contest: Contest, on: Conditions, folder: Path, dice: random.Random) -> Played:
    by_side = running.open(contest, folder, images=on.cut and on.cut[1])
    opened = Both.each(lambda side: by_side[side])
    one, other = opened
    stage = contest.tasks.baseline.stage
    if reason := unequal_images(one.settings, other.settings, stage) or unequal(one.outputs, other.outputs):
        differences = ", ".join(differing(one.settings, other.settings))
        raise Fault(f"{reason}; their settings differ in {differences}" if differences else reason)
    order = order_of(on.pairs, dice)
    before, cpu = read_counters(), time.process_time()
    taken = running.pair.play(order, calls=on.calls, warmup=on.warmup, turn_s=on.turn_s)
    parent_cpu_s = time.process_time() - cpu
    # The waits are those of this process, which only listens.
    disturbance = replace(Disturbance.since(before), waited_s=None)
    return Played(order, taken, opened, running.machines, disturbance, parent_cpu_s)


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the settings that differ between the sides, with their values."""
    absent = "not known"
    return [
        f"{name} ({one.get(name, absent)} against {other.get(name, absent)})"
        for name in dict.fromkeys([*one, *other])
        if one.get(name, absent) != other.get(name, absent)
    ]


def unequal(one: Mapping[str, float], other: Mapping[str, float]) -> str | None:
    """Return the difference in the sides' outputs as a sentence; None if they agree."""
    if one.keys() != other.keys():
        return f"the sides compute different things ({', '.join(one)} and {', '.join(other)})"
    if not all(map(math.isfinite, (*one.values(), *other.values()))):
        return f"the outputs of the sides are not finite: {dict(one)} and {dict(other)}"
    if "loss" in one:
        difference = abs(one["loss"] - other["loss"]) / max(abs(one["loss"]), abs(other["loss"]), 1e-30)
        if not difference <= LOSS_TOLERANCE:
            return (
                f"the sides train differently: after the same steps the losses are {one['loss']:.6g} and "
                f"{other['loss']:.6g}; they must agree within {LOSS_TOLERANCE:g}"
            )
    elif "error" in one:
        errors = one["error"], other["error"]
        limit = ERROR_RATIO * max(min(errors), FLOAT32_ERROR)
        if not max(errors) <= limit:
            return (
                f"the sides' outputs differ: the relative distance from the baseline's float64 run is {errors[0]:.2g} "
                f"(baseline) and {errors[1]:.2g} (candidate); the larger may be at most {limit:.2g}, which is "
                f"{ERROR_RATIO:g} times the smaller, or times {FLOAT32_ERROR:g} if the smaller is below that"
            )
    return None
