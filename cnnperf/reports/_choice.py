"""A choice on a terminal: one line per network, engine and batch size."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from cnnperf.tables.choice import Selection
from cnnperf.units import printable

STYLES = {"chosen": "bold green", "by middle": "yellow", "misses": "", "not judged": "dim"}
WORDS = {"by middle": "by its middle only"}
"""Words for a state, where they differ from its name."""


def readable_choice(selection: Selection) -> Iterator[Text]:
    """Yield one readable line for each cell, engine and batch size, the chosen one first."""
    names = [selection.name(standing) for standing in selection.standings]
    states = [WORDS.get(standing.state, standing.state).upper() for standing in selection.standings]
    width, wide = (max(map(len, words)) for words in (names, states))
    for name, state, standing in zip(names, states, selection.standings, strict=True):
        line = f"{name:{width}}  {state:{wide}}  {standing.words}"
        yield Text(printable(line), style=STYLES.get(standing.state, ""))
