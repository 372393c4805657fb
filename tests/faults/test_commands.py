"""Faults in what a user types."""

from __future__ import annotations

import random
import string
from pathlib import Path

from faulty import assert_one_sentence, cnnperf, write_suite
from matrix import Trials


def test_an_unknown_key_in_a_suite(tmp_path: Path, trials: Trials) -> None:
    """A key of random letters is named, with the file."""
    suite = write_suite(tmp_path)
    text = suite.read_text(encoding="utf-8")

    def one(numbers: random.Random) -> None:
        key = "".join(numbers.choices(string.ascii_lowercase, k=12))
        suite.write_text(f"{key} = 1\n{text}", encoding="utf-8")
        assert_one_sentence(cnnperf("run", suite, "--dry-run"), 2, "small.toml", key)

    trials.run(one)
