"""Turns: the order of the sides, and the untimed steps at the beginning of a turn."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from cnnperf.duet.schedule import QUADS
from cnnperf.duet.turns import Baton, play
from cnnperf.ipc.messages import Taken, Turns
from cnnperf.sides import SIDES, Side

ORDER = QUADS[0] + QUADS[1]


def test_each_turn_begins_with_getting_ready_which_is_not_timed() -> None:
    """Each turn begins with one untimed call of `get_ready`, and a side takes samples in its own turns only."""
    done: list[tuple[str, str]] = []

    def side(me: Side, end: socket.socket) -> Taken:
        baton = Baton(end.detach())
        try:
            turns = Turns(me=me, order=ORDER, calls=2, warmup=3, warmup_s=0.0)
            return play(
                lambda: done.append((me, "call")),
                lambda: None,
                turns,
                baton,
                get_ready=lambda: done.append((me, "get ready")),
            )
        finally:
            baton.close()

    with ThreadPoolExecutor(2) as pool:
        taken = list(pool.map(side, SIDES, socket.socketpair()))
    counted = 2 * ORDER.count("baseline")
    assert [len(each.samples) for each in taken] == [counted / 2, counted / 2]
    wanted = [(me, word) for me, run in groupby(ORDER) for word in ["get ready", *["call"] * 2 * len(list(run))]]
    assert done[-len(wanted) :] == wanted
    warmup = [list(run) for _, run in groupby(done[: -len(wanted)], key=lambda each: each[0])]
    assert all([word for _, word in turn] == ["get ready", "call", "call"] for turn in warmup)
