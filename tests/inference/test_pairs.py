"""Two engines in turns: the requests to a pair, and the ratios of its samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from cnnperf.bench import Bench
from cnnperf.duet.pair import Fault, Patience, Player
from cnnperf.errors import StageError
from cnnperf.inference import pairs
from cnnperf.inference.pairs import ratio, speedups
from cnnperf.ipc.messages import Bind, Bound, Load, Loaded, Settled, Taken
from cnnperf.sides import Both, Side
from cnnperf.task import Choice
from cnnperf.timing.sampling import Sample

ENGINES = Choice(name="torch"), Choice(name="onnxruntime")


def taken(*times: float) -> Taken:
    """Return samples with these times."""
    samples = tuple(Sample(wall_s=time, cpu_s=time, switches=0, waited_s=None) for time in times)
    return Taken(samples=samples, warmup=(), steady=True, blocked_s=0.0, blocked_cpu_s=0.0)


class Pretended:
    """A fake pair without processes: a call takes 1 ms per image on the baseline, and half of that on the candidate."""

    calls: list[tuple[str, Any]] = []  # noqa: RUF012 - shared by all pairs of a test
    fault: Fault | None = None

    def __init__(
        self,
        players: Both[Player],
        greeting: type,
        scratch: Path,
        *,
        order: list[Side],
        patience: Patience,
        core: int | None,
    ) -> None:
        self.calls.append(("start", players))
        self.calls.append(("core", core))
        assert greeting is Loaded
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.calls.append(("end", None))

    def ask(self, requests: Mapping[Side, Bind], answer: type, patience_s: float) -> None:
        """Keep the batch size."""
        assert answer is Bound
        assert set(requests) == {"baseline", "candidate"}
        [self._size] = {request.batch_size for request in requests.values()}
        self.calls.append(("bind", self._size))

    def settle(self) -> Settled:
        """Return that one call is enough."""
        self.calls.append(("settle", self._size))
        return Settled(calls=1, call_s=0.001 * self._size, steady=True)

    def play(self, order: tuple[Side, ...], *, calls: int, warmup: int, turn_s: float) -> Both[Taken]:
        """Return samples of such calls, or raise the fault."""
        if self.fault:
            raise self.fault
        self.calls.append(("play", self._size))
        time, count = 0.001 * self._size, order.count("candidate")
        return Both(taken(*[time] * count), taken(*[time / 2] * count))


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> type[Pretended]:
    """Replace real pairs by fake ones."""
    monkeypatch.setattr(Pretended, "calls", [])
    monkeypatch.setattr(pairs, "Pair", Pretended)
    return Pretended


def test_each_pair_of_processes_gives_one_ratio_a_batch_size(
    bench: Callable[..., Bench], pretended: type[Pretended]
) -> None:
    """Each of three pairs gives one speed-up for a batch size; a batch whose calls are too long is left out."""
    told: list[dict[str, int]] = []
    made = replace(bench(), progress=lambda **numbers: told.append(numbers))
    found = list(speedups(made, *ENGINES, [8, 250, 251], 3))
    assert told == [{"pair": number, "of": 3} for number in (1, 2, 3)]
    of_speed = [m for m in found if m.metric == "infer.speedup"]
    ratios = pytest.approx((2.0,) * 3)
    assert [(m.tags["batch_size"], m.values) for m in of_speed] == [(8, ratios), (250, ratios)]
    assert {m.tags["side"] for m in found if m.metric == "infer.pair_seconds"} == {"baseline", "candidate"}
    words = [(word, size) for word, size in pretended.calls if word in ("settle", "play")]
    assert sorted(words) == [("play", 8)] * 3 + [("play", 250)] * 3 + [("settle", 8), ("settle", 250), ("settle", 251)]
    assert sum(word == "start" for word, _ in pretended.calls) == 3


def test_a_side_is_told_which_engine_it_loads(bench: Callable[..., Bench], pretended: type[Pretended]) -> None:
    """Each side gets its engine and the task of the bench, and its process inherits the baton."""
    made = bench()
    list(speedups(made, *ENGINES, [8], 1))
    [(_, players)] = [call for call in pretended.calls if call[0] == "start"]
    for player, engine in zip(players, ENGINES, strict=True):
        assert player.name == str(engine)
        load = player.first
        assert load == Load(task=made.task, run=made.run, folder=made.dataset.folder, needs=(), engine=engine)
        assert player.launch(9).pass_fds == (9,)
        assert player.launch(9).command[-1] == "cnnperf.workers.paired_engine"


def test_sides_of_one_thread_share_the_core_that_was_drawn(
    bench: Callable[..., Bench], pretended: type[Pretended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A core is drawn from the task for each pair of processes."""
    made, drawn = bench(), iter((3, 5))
    monkeypatch.setattr(pairs, "core_for_both", lambda task: next(drawn) if task == made.task else None)
    list(speedups(made, *ENGINES, [8], 2))
    assert [core for word, core in pretended.calls if word == "core"] == [3, 5]


def test_a_fault_of_a_pair_is_one_of_the_stage(
    bench: Callable[..., Bench], pretended: type[Pretended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of a pair is raised as a StageError with the same words, and the pair is ended."""
    monkeypatch.setattr(pretended, "fault", Fault("candidate (onnxruntime): the process crashed (SIGSEGV)"))
    with pytest.raises(StageError, match=r"in turns: candidate \(onnxruntime\): the process crashed"):
        list(speedups(bench(), *ENGINES, [8], 3))
    assert [word for word, _ in pretended.calls if word in ("start", "end")] == ["start", "end"]


def test_the_ratio_is_that_of_neighbours() -> None:
    """The speed-up is the median ratio of neighbouring samples, since a slow machine slows both."""
    assert ratio(Both(taken(2.0, 4.0, 60.0), taken(1.0, 2.0, 10.0))) == pytest.approx(2.0)
    assert ratio(Both(taken(1.0), taken(4.0))) == pytest.approx(0.25)
