"""Messages of a worker, cut into lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cnnperf.ipc.lines import LINES_PER_S, Lines


@given(st.binary(max_size=200), st.lists(st.integers(1, 20)))
def test_lines_arrive_whole_however_they_are_cut(text: bytes, cuts: list[int]) -> None:
    """The lines do not depend on the chunks in which they arrive; a line that has not ended is kept back."""
    lines, found, rest = Lines(1000), [], text
    for cut in [*cuts, len(text)]:
        chunk, rest = rest[:cut], rest[cut:]
        found += lines.feed(chunk)
    assert found == text.split(b"\n")[:-1]
    assert lines.loss is None


def test_a_line_that_is_too_long_is_dropped() -> None:
    """A line beyond the limit is dropped and counted, and the next line is read."""
    lines = Lines(10)
    assert lines.feed(b"x" * 10 + b"\n") == (b"x" * 10,)
    assert not any(lines.feed(b"x" * 4) for _ in range(4))
    assert lines.loss is not None
    assert lines.feed(b"\nnext\n") == (b"next",)
    assert lines.loss.startswith("1 messages of the process were dropped")
    assert lines.is_flooded


def test_a_flood_is_dropped() -> None:
    """No more lines are read in one second than the limit."""
    lines = Lines(1000)
    found = lines.feed(b"x\n" * 10 * LINES_PER_S)
    assert LINES_PER_S <= len(found) <= 2 * LINES_PER_S  # A second may end meanwhile.
    assert lines.loss is not None
    assert f"{10 * LINES_PER_S - len(found):,} messages" in lines.loss
