"""The log of a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnperf.ipc import log
from cnnperf.ipc.log import TAIL_BYTES, Log, tail


@pytest.mark.parametrize("size", [0, 4, 8, 9, 16])
def test_a_short_log_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A log up to the limit has all of the output."""
    monkeypatch.setattr(log, "LOG_BYTES", 16)
    output = bytes(range(65, 65 + size))
    with Log(tmp_path / "log") as written:
        for start in range(0, size, 3):
            written.write(output[start : start + 3])
    assert (tmp_path / "log").read_bytes() == output


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_a_long_log_keeps_both_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """A longer output keeps the first and the last half of the limit, and the size of the rest is said."""
    monkeypatch.setattr(log, "LOG_BYTES", 16)
    output = bytes(33 + number % 90 for number in range(1000))
    with Log(tmp_path / "log") as written:
        for start in range(0, 1000, chunk):
            written.write(output[start : start + chunk])
    said = b"\n[cnnperf: 984 bytes of output are left out here]\n"
    assert (tmp_path / "log").read_bytes() == output[:8] + said + output[-8:]


def test_the_beginning_of_a_log_is_on_the_disk_at_once(tmp_path: Path) -> None:
    """The output of a worker can be read while it runs."""
    with Log(tmp_path / "log") as written:
        written.write(b"words")
        assert (tmp_path / "log").read_bytes() == b"words"


def test_a_tail_is_read_from_the_end(tmp_path: Path) -> None:
    """The last lines are found in a sparse file of a terabyte; a line of it is cut; without a file there are none."""
    with open(tmp_path / "log", "wb") as file:
        file.seek(2**40)
        file.write(b"\none\ntwo\xff\n")
    assert tail(tmp_path / "log", 2) == ("one", "two\ufffd")
    assert len(tail(tmp_path / "log", 3)[0]) <= TAIL_BYTES
    assert tail(tmp_path / "absent") == ()
