"""The standard streams of a command."""

from __future__ import annotations

import codecs
import os
import sys
from pathlib import Path

import pytest
from processes import completed, environment, started

from cnnperf.cli import streams

WRITER = """
import os, sys
from cnnperf.cli.streams import open_streams, end_streams
open_streams()
print("×" * 3, "caf\\u00e9 \\u4e2d", "\\udcff")
{more}
os._exit(end_streams({status}))
"""


def ended(redirection: str, status: int = 0, more: str = "", **variables: str) -> tuple[int, str, str]:
    """Return exit status, output and messages of a small program under a shell's redirection."""
    done = completed(
        "sh",
        "-c",
        f'"$0" -c "$1" {redirection}',
        sys.executable,
        WRITER.format(status=status, more=more),
        env=environment(**variables),
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", "xxx cafe \\u4e2d \\udcff\n"),
        ("latin1", "××× café \\u4e2d \\udcff\n"),
        ("utf-8", "××× café 中 \\udcff\n"),
    ],
)
def test_a_character_that_the_encoding_lacks_is_replaced(encoding: str, expected: str) -> None:
    """A lacking character is written as similar ASCII text, or as an escape."""
    status, out, _ = ended(f"| iconv -f {encoding} -t utf-8", PYTHONIOENCODING=encoding)
    assert (status, out) == (0, expected)


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_output_that_cannot_be_written_ends_in_1_and_one_sentence(redirection: str) -> None:
    """A full disk or a closed stdout is said once; another exit status stays."""
    status, _, err = ended(redirection)
    assert status == 1
    assert err.startswith("cnnperf: stdout: cannot be written (")
    assert err.count("\n") == 1
    assert ended(redirection, status=3)[0] == 3


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "<&- 2>&-"])
def test_messages_that_cannot_be_written_are_dropped(redirection: str) -> None:
    """A command whose messages are lost works on."""
    assert ended(redirection, more="print('lost', file=sys.stderr)", PYTHONIOENCODING="utf-8")[:2] == (
        0,
        "××× café 中 \\udcff\n",
    )


def test_output_without_a_reader_ends_as_by_sigpipe(tmp_path: Path) -> None:
    """The exit status is that of a shell for SIGPIPE, and nothing is said."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with started((sys.executable, "-c", WRITER.format(status=0, more="")), stdout=writer) as process:
            _, err = process.communicate()
    finally:
        os.close(writer)
    assert (process.returncode, err) == (141, "")


def test_every_likeness_is_ascii() -> None:
    """Text in place of a character can be written in any encoding."""
    assert all(text.isascii() and not mark.isascii() for mark, text in streams.LIKENESSES.items())
    codecs.register_error("likeness", streams._alike)
    assert "✓ 3 µs".encode("ascii", "likeness") == b"+ 3 us"
