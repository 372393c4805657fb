"""A pair of processes from the parent's side, with fake workers that import nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnperf.duet.pair import Fault, NotReady, Pair, Patience, Player, core_for_both
from cnnperf.ipc.messages import Bind, Bound, Message, Settle, Settled, Turns, decode
from cnnperf.ipc.process import Launch
from cnnperf.sides import SIDES, Both
from cnnperf.task import Cell, Choice, Task

WORKER = """
import json, os, sys, time

def say(**message): os.write(int(sys.argv[2]), json.dumps(message).encode() + b"\\n")

for line in sys.stdin:
    request = json.loads(line)
    {0}
"""
ANSWERS = {
    "bind": {"bound": {}},
    "settle": {"settle": {"calls": 2, "call_s": 0.5, "steady": True}},
    "play": {"play": {"samples": [[1.0] * 4], "warmup": [], "steady": True, "blocked_s": 1.0, "blocked_cpu_s": 0.0}},
}
GOOD = f"print(line.strip(), flush=True); say(**{ANSWERS!r}[request['do']])"
PATIENCE = Patience(start_s=60.0, open_s=60.0)

Start = Callable[..., "Pair[Bound]"]


@pytest.fixture
def pair(tmp_path: Path) -> Start:
    """Return a function that makes a pair whose candidate runs the given code."""

    def make(
        candidate: str = GOOD, patience: Patience = PATIENCE, python: str = sys.executable, core: int | None = None
    ) -> Pair[Bound]:
        def player(name: str, command: tuple[str, ...]) -> Player:
            return Player(name, lambda baton: Launch(command, pass_fds=(baton,)), Bind(batch_size=1))

        codes = Both(GOOD, candidate)
        commands = Both(sys.executable, python)
        players = Both.each(lambda side: player(side[0], (commands.of(side), "-c", WORKER.format(codes.of(side)))))
        return Pair(players, Bound, tmp_path, patience=patience, core=core)

    return make


def seen(folder: Path, side: str) -> list[Message]:
    """Return the requests that a side received."""
    return [decode(line) for line in (folder / f"{side}.log").read_text().splitlines()]


def test_both_are_told_their_first_message_and_then_what_they_are_asked(pair: Start, tmp_path: Path) -> None:
    """Each side gets its first message and its own requests, only the baseline settles, and answers come by side."""
    order = ("baseline", "candidate")
    with pair() as both:
        assert both.greetings == Both(Bound(), Bound())
        assert both.settle() == Settled(calls=2, call_s=0.5, steady=True)
        taken = both.play(order, calls=2, warmup=3, turn_s=1.0)
        assert [len(each.samples) for each in taken] == [1, 1]
        assert both.ask({"candidate": Bind(batch_size=2)}, Bound, 60.0) == {"candidate": Bound()}
    turns = Both.each(lambda side: Turns(me=side, order=order, calls=2, warmup=3, warmup_s=PATIENCE.warmup_s))
    assert seen(tmp_path, "baseline") == [Bind(batch_size=1), Settle(), turns.baseline]
    assert seen(tmp_path, "candidate") == [Bind(batch_size=1), turns.candidate, Bind(batch_size=2)]


FAULTS = [
    ("os.write(int(sys.argv[2]), b'Aborted\\n')", "a side sent a line that is no message"),
    (
        "say(settle={'calls': 1, 'call_s': 1.0, 'steady': True})",
        "candidate (c) sent 'settled' instead of",
    ),
    ("say(error='out of memory')", "candidate (c): out of memory"),
    ("print('the end', flush=True); sys.exit(7)", "candidate (c): the process ended with exit status 7: the end"),
    ("time.sleep(600)", "candidate (c) said nothing for 1 s and was stopped; lower the batch size"),
]


@pytest.mark.parametrize(("does", "words"), FAULTS, ids=("nonsense", "another answer", "error", "exit", "silence"))
def test_what_goes_wrong_is_a_fault_of_a_side(pair: Start, does: str, words: str) -> None:
    """A fault of one side is one sentence that names it, although the other side has answered."""
    later = f"""if request["with"]["batch_size"] == 1: say(bound={{}})
    else: {does}"""
    patience_s = 1.0 if "sleep" in does else 60.0
    with pair(later) as both, pytest.raises(Fault) as caught:
        both.ask(dict.fromkeys(SIDES, Bind(batch_size=2)), Bound, patience_s)
    assert words in str(caught.value)
    assert not isinstance(caught.value, NotReady)


@pytest.mark.parametrize(("does", "words"), FAULTS[2:4], ids=("error", "exit"))
def test_a_side_that_ends_at_the_start_was_not_ready(pair: Start, does: str, words: str) -> None:
    """A side that exits at the start raises NotReady with its last line; an error that it sends raises a Fault."""
    with pytest.raises(Fault) as caught:
        pair(does).__enter__()
    assert words in str(caught.value)
    assert isinstance(caught.value, NotReady) == ("exit" in does)
    if isinstance(caught.value, NotReady):
        assert (caught.value.side, caught.value.last_line) == ("candidate", "the end")


def test_a_side_that_cannot_be_started_was_not_ready(pair: Start) -> None:
    """A side whose interpreter does not exist raises NotReady with the system's reason."""
    with pytest.raises(NotReady, match=r"candidate \(c\) cannot be run \(No such file or directory\)") as caught:
        pair(python="/nonexistent/python").__enter__()
    assert caught.value.side == "candidate"


def test_a_side_is_called_by_its_name_unless_that_says_nothing_more(pair: Start) -> None:
    """A side is called by its role and name, or by its role alone if the name is the role."""
    both = pair()
    assert both.called("baseline") == "baseline (b)"
    plain = Pair(Both.each(lambda side: Player(side, lambda _: Launch())), Bound, Path())
    assert plain.called("candidate") == "candidate"


def task(device: str, threads: int | None) -> Task:
    """Return a task of the given device and number of threads."""
    cell = Cell(dataset=Choice(name="mnist"), model=Choice(name="lenet"), device=Choice(name=device))
    return Task(cell=cell, stage="infer", seed=0, threads=threads, timeout_s=60.0, settings={}, suite="x")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs affinity")
def test_two_sides_of_one_thread_share_a_core(pair: Start, tmp_path: Path) -> None:
    """Two sides of one thread share a core, drawn from all allowed ones; more threads or a GPU use all cores."""
    allowed = os.sched_getaffinity(0)
    assert {core_for_both(task("cpu", 1)) for _ in range(40 * len(allowed))} == allowed
    assert [core_for_both(task(*each)) for each in (("cpu", 2), ("cpu", None), ("cuda", 1))] == [None] * 3
    core = max(allowed)
    tell = "print(json.dumps([*os.sched_getaffinity(0)]), flush=True); say(bound={})"
    with pair(tell, core=core):
        assert (tmp_path / "candidate.log").read_text() == f"[{core}]\n"
    with pair(tell):
        assert (tmp_path / "candidate.log").read_text() == f"{sorted(allowed)}\n"
