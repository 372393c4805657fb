"""Two engines in turns: each fresh pair of processes gives one ratio."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from cnnperf.bench import Bench
from cnnperf.duet.pair import Fault, Pair, Patience, Player, core_for_both
from cnnperf.duet.schedule import Conditions, order_of
from cnnperf.errors import StageError
from cnnperf.inference.metrics import SPEEDUP
from cnnperf.ipc.messages import Bind, Bound, Load, Loaded, Taken
from cnnperf.ipc.process import Launch
from cnnperf.record import Measurement
from cnnperf.sides import SIDES, Both
from cnnperf.task import Choice, Scalar

ENGINE_TURN_S = 3.0
"""Time limit for the samples of one batch size in a pair of processes."""
FEWEST, MOST = 12, 30
"""Minimum and maximum pairs of samples in a pair of processes; more samples add little compared with more processes."""
ENGINE_WARMUP_S = 5.0
"""Maximum warm-up; after it, a side is timed even if it is not steady."""
PATIENCE = Patience(start_s=300.0, open_s=300.0, warmup_s=ENGINE_WARMUP_S, play_s=300.0)


def speedups(
    bench: Bench, baseline: Choice, candidate: Choice, batch_sizes: Sequence[int], pairs: int
) -> Iterator[Measurement]:
    """Yield the seconds per call of both sides of each pair, then the candidate's speed-ups, one value per pair.

    Repeated for each batch size; batch sizes with calls too long for turns are omitted. Raises StageError if a side
    ends or hangs.
    """
    dice = random.Random(bench.task.key)
    players = Both(*(_player(bench, engine) for engine in (baseline, candidate)))
    conditions: dict[int, Conditions] = {}
    taken: dict[int, list[Both[Taken]]] = {size: [] for size in batch_sizes}
    with tempfile.TemporaryDirectory(prefix="cnnperf-pairs-") as folder:
        for number in range(pairs):
            order, core = dice.sample(SIDES, 2), core_for_both(bench.task)
            try:
                with Pair(players, Loaded, Path(folder), order=order, patience=PATIENCE, core=core) as pair:
                    for size in dice.sample(list(taken), len(taken)):
                        pair.ask(dict.fromkeys(SIDES, Bind(batch_size=size)), Bound, PATIENCE.open_s)
                        if size not in conditions:
                            settled = pair.settle()
                            conditions[size] = _conditions(settled.calls, settled.call_s)
                        if conditions[size].pairs:
                            taken[size].append(_play(pair, conditions[size], dice))
            except Fault as fault:
                raise StageError(f"in turns: {fault}") from fault
            bench.progress(pair=number + 1, of=pairs)
    for size, of_size in taken.items():
        if of_size:
            tags: dict[str, Scalar] = {"engine": str(candidate), "batch_size": size, "baseline": str(baseline)}
            yield from measured(of_size, conditions[size], tags)


def measured(of_pairs: Sequence[Both[Taken]], on: Conditions, tags: Mapping[str, Scalar]) -> Iterator[Measurement]:
    """Yield the results of the pairs of processes at one batch size: their samples, and the speed-up."""
    for number, both in enumerate(of_pairs):
        for side, taken in zip(SIDES, both, strict=True):
            yield Measurement(
                metric="infer.pair_seconds",
                unit="s",
                better=None,
                values=tuple(sample.wall_s / on.calls for sample in taken.samples),
                tags={**tags, "pair": number, "side": side},
                remarks={"calls": on.calls},
            )
    unsteady = sum(not all(taken.steady for taken in both) for both in of_pairs)
    yield Measurement(
        metric=SPEEDUP,
        unit="1",
        better="higher",
        values=tuple(map(ratio, of_pairs)),
        tags=tags,
        remarks={"calls": on.calls, "pairs": on.pairs, **({"unsteady_pairs": unsteady} if unsteady else {})},
    )


def _conditions(calls: int, call_s: float) -> Conditions:
    fit = 2 * int(ENGINE_TURN_S / (4 * calls * call_s))
    pairs = min(MOST, fit) if fit >= FEWEST else FEWEST if FEWEST * 2 * call_s <= 2 * ENGINE_TURN_S else 0
    return Conditions(calls, call_s, pairs, min(10, pairs // 4))


def ratio(taken: Both[Taken]) -> float:
    """Return the baseline's time divided by the candidate's: the median over neighbouring samples."""
    one, other = (each.samples for each in taken)
    return math.exp(median(math.log(a.wall_s / b.wall_s) for a, b in zip(one, other, strict=True)))


def _play(pair: Pair[Loaded], on: Conditions, dice: random.Random) -> Both[Taken]:
    return pair.play(order_of(on.pairs, dice), calls=on.calls, warmup=on.warmup, turn_s=on.turn_s)


def _player(bench: Bench, engine: Choice) -> Player:
    """Return the side that runs an engine on the device of the bench's task."""
    command = (*Launch().command[:-1], "cnnperf.workers.paired_engine")
    load = Load(
        task=bench.task,
        run=bench.run,
        folder=bench.dataset.folder,
        needs=tuple(bench.needs.values()),
        engine=engine,
    )
    return Player(str(engine), lambda baton: Launch.of(bench.task, command=command, pass_fds=(baton,)), load)
